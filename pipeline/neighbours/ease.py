"""EASE: every item regressed on all others by ridge regression, in closed form [Steck 2019].

With the Gram matrix G of the items, numbers of common users with numbers of users on the diagonal, and P the inverse of
G + l2 · I, the weight of item i for item j is S[j, i] = -P[j, i] / P[i, i].

P is computed in place, by blocks of the lower half of a dense matrix. A block is the work of one thread, so that P does
not depend on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from pipeline.compute.fan_out import ranges, thread_count
from pipeline.compute.rows import CsrRows, keep_largest_weights
from pipeline.neighbours.common_users import CommonUsers

_BLOCK = 256
"""Rows of a block: matrix products of this depth run at full speed."""

_UNIT = f"blocks of {_BLOCK} items eliminated"

Floats = npt.NDArray[np.float32]

_NO_FLOATS: Floats = np.empty(0, np.float32)


def predict_ease_bytes(items: int, top: int, threads: int) -> int:
    """Memory that EASE of so many items takes: half a matrix of float32, panels of a block's width, and the rows.

    Args:
        items: that have train interactions.
        top: most weights of an item; they exist twice while blocks of rows are joined.
        threads: each has a panel of its own.
    """
    return 4 * items * (items // 2 + (10 + threads) * _BLOCK) + 2 * 8 * items * min(top, items)


def fit_ease(
    common: CommonUsers, l2: float, top: int, compute: ComputeSettings, progress: Progress = silent
) -> CsrRows:
    """The largest weights of each item that are above 0; columns are positions in `common.items`.

    Args:
        common: numbers of common users.
        l2: ridge penalty.
        top: most weights of an item.
        compute: threads; the result does not depend on them.
        progress: called after each block of items is eliminated.
    """
    lower = _penalised_gram(common, l2)
    with threadpool_limits(1, "blas"):
        invert_in_place(lower, thread_count(compute), progress)
    diagonal = np.concatenate([block.diagonal(block.shape[1] - block.shape[0]) for block in lower] or [_NO_FLOATS])
    return CsrRows.stack([_largest_of_block(rows, diagonal, top) for rows in _full_rows(lower)])


def _penalised_gram(common: CommonUsers, l2: float) -> list[Floats]:
    """The lower half of G + l2 · I: block rows that end with the diagonal's block."""
    diagonal, blocks = common.degrees + l2, []
    for span in ranges(common.items.size, _BLOCK):
        counts = common.rows(span)
        rows = np.repeat(np.arange(len(span)), np.diff(counts.indptr))
        is_lower = counts.indices < span.stop
        block = np.zeros((len(span), span.stop), np.float32)
        block[rows[is_lower], counts.indices[is_lower]] = counts.weights[is_lower]
        block[np.arange(len(span)), span] = diagonal[span.start : span.stop]
        blocks.append(block)
    return blocks


def invert_in_place(lower: list[Floats], threads: int, progress: Progress = silent) -> None:
    """Replace a symmetric positive definite matrix A by -inverse(A): the sweep operator, a block at a time.

    To sweep block k turns A[k, k] into -inverse(A[k, k]) =: -Q, A[i, k] into A[i, k] Q, and every other A[i, j] into
    A[i, j] - A[i, k] Q A[k, j]. With all blocks swept it takes as many operations as Cholesky factor and inverse.

    Args:
        lower: float32, block rows of the lower half; row i has the columns of blocks 0 … i.
        threads: that work side by side; the result does not depend on them.
        progress: called before the first block and after each; blocks take equally long.
    """
    progress(0, len(lower), _UNIT)
    with ThreadPoolExecutor(threads) as pool:
        for k in range(len(lower)):
            _sweep(lower, k, pool)
            progress(k + 1, len(lower), _UNIT)


def _sweep(lower: list[Floats], k: int, pool: ThreadPoolExecutor) -> None:
    start, stop = k * _BLOCK, lower[k].shape[1]
    pivot = lower[k][:, start:].astype(np.float64)
    inverse = cho_solve(cho_factor(pivot, lower=True), np.eye(stop - start))
    column = np.concatenate([lower[k][:, :start].T, np.zeros_like(pivot, np.float32), *_below(lower, k)])
    inverse = inverse.astype(np.float32)
    product = column @ inverse

    def update(i: int) -> None:
        if i != k:
            first, last = i * _BLOCK, lower[i].shape[1]
            lower[i] -= product[first:last] @ column[:last].T
            if i > k:
                lower[i][:, start:stop] = product[first:last]

    list(pool.map(update, range(len(lower))))
    lower[k][:, :start], lower[k][:, start:] = product[:start].T, -inverse


def _below(lower: list[Floats], k: int) -> list[Floats]:
    """The blocks of column k below the diagonal."""
    start, stop = k * _BLOCK, lower[k].shape[1]
    return [block[:, start:stop] for block in lower[k + 1 :]]


def _full_rows(lower: list[Floats]) -> Iterator[Floats]:
    """The rows of a symmetric matrix from its lower half, block by block."""
    for k, block in enumerate(lower):
        yield np.concatenate([block, *(below.T for below in _below(lower, k))], axis=1)


def _largest_of_block(rows: Floats, diagonal: Floats, top: int) -> CsrRows:
    """The largest weights of some rows of -P, those above 0; the diagonal, which is below 0, is none of them."""
    weights = np.maximum(rows / -diagonal, 0.0)
    return CsrRows.from_scipy(keep_largest_weights(sp.csr_array(weights), top))
