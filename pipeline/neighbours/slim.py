"""SLIM: every item regressed on all others by an elastic net whose weights are not negative [Ning and Karypis 2011].

The weights w of the items for item i minimise ½ ‖x_i - X w‖² + l1 ‖w‖₁ + ½ l2 ‖w‖², with w ≥ 0 and w_i = 0, where the
columns of X are the items and its rows the users.

They need only the Gram matrix X'X, which is sparse and has no negative entries: an item with at most l1 users in common
with item i has weight 0, whatever the other weights are, so it is left out from the start.
"""

from __future__ import annotations

import numpy as np

from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import SlimSettings
from pipeline.compute.fan_out import bounded_ranges, stream
from pipeline.compute.rows import CsrRows, keep_largest_weights
from pipeline.neighbours.common_users import CommonUsers
from pipeline.neighbours.slim_kernels import slim_columns

_ENTRIES_PER_BLOCK = 1 << 18
_BYTES_PER_ENTRY = 3 * 8
"""Of the Gram matrix, twice while its blocks are joined, and of the weights."""
_TOLERANCE = 1e-5
"""Coordinate descent ends when no weight changes by more in a sweep."""
_SWEEPS = 1000
_UNIT = "pairs of items with common users"


def predict_slim_bytes(common: CommonUsers) -> int:
    """Memory that SLIM takes at most: its Gram matrix without zeros, and the weights."""
    return _BYTES_PER_ENTRY * common.most_entries


def fit_slim(
    common: CommonUsers, settings: SlimSettings, top: int, compute: ComputeSettings, progress: Progress = silent
) -> CsrRows:
    """The largest weights of each item, above 0; columns are positions in `common.items`.

    Args:
        common: numbers of common users.
        settings: penalties.
        top: most weights of an item.
        compute: threads; the result does not depend on them.
        progress: called after each block of items; counts the entries of the Gram matrix, which take equally long.
    """
    gram, degrees, size = CsrRows.stack(list(common.blocks(compute))), common.degrees, common.items.size

    def fit(targets: range) -> CsrRows:
        columns = CsrRows.build_empty(len(targets), int(gram.indptr[targets.stop] - gram.indptr[targets.start]))
        limits = _TOLERANCE, _SWEEPS
        slim_columns(gram, degrees, targets.start, (settings.l1, settings.l2), limits, tuple(columns))
        return columns.trimmed()

    blocks = bounded_ranges(np.diff(gram.indptr), _ENTRIES_PER_BLOCK)
    fitted = []
    progress(0, gram.indices.size, _UNIT)
    for block, columns in zip(blocks, stream(fit, blocks, compute), strict=True):
        fitted.append(columns)
        progress(int(gram.indptr[block.stop]), gram.indices.size, _UNIT)
    columns = CsrRows.stack(fitted)
    by_row = columns.to_scipy(size).T.tocsr()
    by_row.sort_indices()
    return CsrRows.from_scipy(keep_largest_weights(by_row, top))
