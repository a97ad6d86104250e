"""Compiled loops over rows: expanding sparse rows with their dropout mask, transposing, Adam.

Arrays in, preallocated output filled; nothing is checked here. Every random bit is `mix(key, counter)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from model.compute.random_kernels import mix


@njit(nogil=True, cache=True)
def cut_rows(
    indptr, columns, values, own_columns, rows, own_weight, scale, threshold, key, out_indptr, out_columns, out_values
):  # fmt: skip
    """Cut `rows` out of a CSR matrix, keeping each entry by its own hash; returns the number of entries.

    Entry `slot` is kept where `mix(key, slot)` reaches `threshold`. Row r becomes, in this order, its own column
    with `own_weight` (left out where that is 0) and its kept entries times `scale`.

    Args:
        indptr, columns, values: the matrix (int64, int32, float32).
        own_columns: int32, of each row.
        rows: int32, rows to cut out.
        own_weight, scale: float32.
        threshold, key: uint64.
        out_indptr, out_columns, out_values: the cut-out rows; room for all entries of `rows` and one more for each.
    """
    entries = 0
    out_indptr[0] = 0
    for i in range(rows.size):
        row = rows[i]
        if own_weight != 0:
            out_columns[entries], out_values[entries] = own_columns[row], own_weight
            entries += 1
        for slot in range(indptr[row], indptr[row + 1]):  # no branch depends on a draw: processors cannot guess them
            out_columns[entries], out_values[entries] = columns[slot], values[slot] * scale
            entries += mix(key, slot) >= threshold
        out_indptr[i + 1] = entries
    return entries


@njit(nogil=True, cache=True)
def number_distinct(first, places, most):
    """Replace numbers below `most` in `places` by the positions of what they name; returns that, distinct, int32.

    `first`, distinct, stands at its beginning, whatever else is met after it in ascending order: who reads it in this
    order reads memory in order.
    """
    position, distinct, met = np.full(most, -1, np.int32), np.empty(most, np.int32), first.size
    for i in range(first.size):
        position[first[i]], distinct[i] = i, first[i]
    for i in range(places.size):
        known = position[places[i]]
        position[places[i]] = known if known >= 0 else first.size
    for i in range(most):
        if position[i] >= first.size:
            position[i], distinct[met] = met, i
            met += 1
    for i in range(places.size):
        places[i] = position[places[i]]
    return distinct[:met].copy()


@njit(nogil=True, cache=True)
def transpose(indptr, indices, values, out_indptr, out_indices, out_values):
    """Transpose a CSR matrix by counting; rows stay ascending within a column. `out_indptr` comes in as zeros."""
    for slot in range(indices.size):
        out_indptr[indices[slot] + 1] += 1
    for column in range(out_indptr.size - 1):
        out_indptr[column + 1] += out_indptr[column]
    for row in range(indptr.size - 1):
        for slot in range(indptr[row], indptr[row + 1]):
            column = indices[slot]
            place = out_indptr[column]
            out_indices[place] = row
            out_values[place] = values[slot]
            out_indptr[column] = place + 1
    for column in range(out_indptr.size - 1, 0, -1):
        out_indptr[column] = out_indptr[column - 1]
    out_indptr[0] = 0
