"""Compiled loops over CSR rows: cut rows out with dropout, renumber columns, transpose.

Arrays in, preallocated output filled; nothing is checked here. Every random bit is `mix(key, counter)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from model.compute.random_kernels import mix


@njit(nogil=True, cache=True)
def cut_rows(matrix, own_columns, rows, own_weight, scale, threshold, key, output):
    """Copy `rows` of a CSR matrix with dropout, each entry kept or dropped by its own hash; returns the entry count.

    Entry `slot` is kept if `mix(key, slot)` reaches `threshold`. Row r becomes, in this order, its own column with
    `own_weight` (left out if that is 0) and its kept entries times `scale`.

    Args:
        matrix: (indptr, columns, values), int64, int32, float32.
        own_columns: int32, of each row.
        rows: int32, the rows to copy.
        own_weight, scale: float32.
        threshold, key: uint64.
        output: (indptr, columns, values) of the copied rows, filled; long enough for all entries of `rows` and one more
            for each.
    """
    (indptr, columns, values), (out_indptr, out_columns, out_values) = matrix, output
    entries = 0
    out_indptr[0] = 0
    for i in range(rows.size):
        row = rows[i]
        if own_weight != 0:
            out_columns[entries], out_values[entries] = own_columns[row], own_weight
            entries += 1
        for slot in range(indptr[row], indptr[row + 1]):  # branch-free: a random branch is mispredicted half the time
            out_columns[entries], out_values[entries] = columns[slot], values[slot] * scale
            entries += mix(key, slot) >= threshold
        out_indptr[i + 1] = entries
    return entries


@njit(nogil=True, cache=True)
def renumber(first, numbers, bound):
    """Replace `numbers`, all below `bound`, in place by their positions in an array of the distinct ones; returns it.

    The array, int32, begins with `first`, which is distinct; the other numbers follow in ascending order, so that rows
    picked by it are read in the order of memory.
    """
    position, distinct, size = np.full(bound, -1, np.int32), np.empty(bound, np.int32), first.size
    for i in range(first.size):
        position[first[i]], distinct[i] = i, first[i]
    for i in range(numbers.size):
        known = position[numbers[i]]
        position[numbers[i]] = known if known >= 0 else first.size
    for i in range(bound):
        if position[i] >= first.size:
            position[i], distinct[size] = size, i
            size += 1
    for i in range(numbers.size):
        numbers[i] = position[numbers[i]]
    return distinct[:size].copy()


@njit(nogil=True, cache=True)
def transpose(indptr, indices, values, out_indptr, out_indices, out_values):
    """Transpose a CSR matrix by counting; rows stay ascending within a column. `out_indptr` must be zeros."""
    for slot in range(indices.size):
        out_indptr[indices[slot] + 1] += 1
    for column in range(out_indptr.size - 1):
        out_indptr[column + 1] += out_indptr[column]
    for row in range(indptr.size - 1):
        for slot in range(indptr[row], indptr[row + 1]):
            column = indices[slot]
            position = out_indptr[column]
            out_indices[position] = row
            out_values[position] = values[slot]
            out_indptr[column] = position + 1
    for column in range(out_indptr.size - 1, 0, -1):
        out_indptr[column] = out_indptr[column - 1]
    out_indptr[0] = 0
