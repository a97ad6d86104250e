"""Compiled loops over rows: expanding sparse rows with their dropout mask, transposing, Adam.

Arrays in, preallocated output filled; nothing is checked here. Every random bit is `mix(key, counter)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from model.kernels import mix


@njit(nogil=True, cache=True)
def expand_rows(
    indptr, indices, values, column_of, rows, own_weight, scale, threshold, key,
    position, frontier, seeded, out_indptr, out_indices, out_values,
):  # fmt: skip
    """Cut `rows` out of a square CSR matrix, keep each entry by its own hash, and number the columns met, ascending.

    Entry `slot` is kept where `mix(key, slot)` reaches `threshold`. Row r becomes, in this order, its own column
    with `own_weight` (left out where that is 0) and its kept entries times `scale`.

    Args:
        indptr, indices, values: the matrix (int64, int32, float32).
        column_of: int32, what a column stands for; columns of equal meaning are joined.
        rows: int32, rows to cut out.
        own_weight, scale: float32.
        threshold, key: uint64.
        position: int32, -1 for every meaning; left as found.
        frontier: int32, its first `seeded` entries are the meanings numbered before any is met; filled. It has one
            entry more than can be met.
        out_indptr, out_indices, out_values: the cut-out rows; columns are positions in `frontier`.

    Returns:
        Length of `frontier` and number of entries.
    """
    met = seeded
    for i in range(seeded):
        position[frontier[i]] = i
    entries = 0
    out_indptr[0] = 0
    for i in range(rows.size):
        row = rows[i]
        if own_weight != 0:
            column = column_of[row]
            if position[column] < 0:
                position[column] = met
                frontier[met] = column
                met += 1
            out_indices[entries] = position[column]
            out_values[entries] = own_weight
            entries += 1
        kept = entries
        for slot in range(indptr[row], indptr[row + 1]):  # no branch depends on a draw: processors cannot guess them
            out_indices[kept] = slot - indptr[row]
            kept += mix(key, slot) >= threshold
        for place in range(entries, kept):
            slot = indptr[row] + out_indices[place]
            column = column_of[indices[slot]]
            known = position[column]
            number = known if known >= 0 else met
            position[column] = number
            frontier[met] = column
            met += known < 0
            out_indices[place] = number
            out_values[place] = values[slot] * scale
        entries = kept
        out_indptr[i + 1] = entries
    renumber(position, frontier, seeded, met, out_indices[:entries])
    return met, entries


@njit(nogil=True, cache=True)
def renumber(position, distinct, fixed, met, places):
    """Number what was met anew, ascending but for the first `fixed`: who reads it in this order reads memory in order.

    Args:
        position: int32, the number of each of `distinct[:met]`, -1 elsewhere; all -1 afterwards.
        distinct: int32, what was met, in the order of its numbers; put into the new order.
        places: int32, numbers; changed into the new ones.
    """
    numbers = np.empty(met, np.int32)
    for i in range(fixed):
        numbers[i] = i
        position[distinct[i]] = -1
    number = fixed
    for i in range(position.size):
        if position[i] >= 0:
            numbers[position[i]] = number
            distinct[number] = i
            position[i] = -1
            number += 1
    for i in range(places.size):
        places[i] = numbers[places[i]]


@njit(nogil=True, cache=True)
def number_distinct(nodes, position, distinct, places, counts):
    """Number the distinct nodes, ascending: `distinct[places[i]] == nodes[i]`; returns how many.

    `position` is -1 for every node and left as found; `counts` is filled with how often each was met.
    """
    met = 0
    for i in range(nodes.size):
        node = nodes[i]
        if position[node] < 0:
            position[node] = met
            distinct[met] = node
            met += 1
        places[i] = position[node]
    renumber(position, distinct, 0, met, places)
    counts[:met] = 0
    for i in range(nodes.size):
        counts[places[i]] += 1
    return met


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


@njit(nogil=True, cache=True, error_model="numpy")  # Python's check of each division would cost four times as much
def adam_rows(first, last, place, gradient, rates, table, mean, square):
    """A step of Adam on rows first … last - 1 of a table, whose gradient is zero but in some rows.

    Args:
        place: int32, where in `gradient` a row's gradient is; -1 where it is zero.
        gradient: float32 (rows with a gradient, width).
        rates: float32, what is kept of the mean and what of the slope is added to it, the same of the square, the
            step's size over the mean's bias, one over the root of the square's bias, and epsilon.
        table, mean, square: float32 (rows, width), the table and its moments; changed.
    """
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for row in range(first, last):
        values, means, squares = table[row], mean[row], square[row]
        if place[row] >= 0:
            slopes = gradient[place[row]]
            for j in range(values.size):
                means[j] = keep_mean * means[j] + add_mean * slopes[j]
                squares[j] = keep_square * squares[j] + add_square * slopes[j] * slopes[j]
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
        else:
            for j in range(values.size):
                means[j] *= keep_mean
                squares[j] *= keep_square
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
