"""Compiled loops over sparse rows of item neighbours.

Arrays in, preallocated output filled; nothing is checked here. Sums run in the order of the histories, so that evidence
is the same to the bit whichever loop adds it up.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sum_neighbours(history, rows, position, evidence):
    """Add up the neighbour weights of each history's items.

    Args:
        history: (indptr, items), compressed rows of item numbers.
        rows: (indptr, neighbours, weights), compressed rows of each item's neighbours.
        position: int32 (items of the union), column of each item in `evidence`, -1 where it has none.
        evidence: float32 (histories, columns), zeros, filled.
    """
    (history_indptr, items), (indptr, neighbours, weights) = history, rows
    for row in range(evidence.shape[0]):
        for slot in range(history_indptr[row], history_indptr[row + 1]):
            item = items[slot]
            for entry in range(indptr[item], indptr[item + 1]):
                column = position[neighbours[entry]]
                if column >= 0:
                    evidence[row, column] += weights[entry]


@njit(nogil=True, cache=True)
def blend_rows(scores, evidence, factors, spread):
    """Add weighted evidence to scores and bring each row to the vectors' scale, in place.

    Args:
        scores, evidence: float32 (users, items).
        factors: (of scores, of evidence), float32 (users).
        spread: of the vectors' scores.
    """
    of_scores, of_evidence = factors
    for row in range(scores.shape[0]):
        total = squares = 0.0
        for column in range(scores.shape[1]):
            weighted = of_evidence[row] * evidence[row, column]
            total += weighted
            squares += weighted * weighted
            scores[row, column] = of_scores[row] * scores[row, column] + weighted
        variance = max(squares / scores.shape[1] - (total / scores.shape[1]) ** 2, 0.0)
        scale = np.float32(1.0 / (1.0 + np.sqrt(variance) / spread))
        for column in range(scores.shape[1]):
            scores[row, column] *= scale


@njit(nogil=True, cache=True)
def sum_neighbours_sparsely(items, rows, position, columns, sums):
    """As `sum_neighbours` for one history, in a hash table: its cost does not grow with the number of columns.

    Args:
        items: int32, one history's.
        rows, position: as there.
        columns: int32, a power of two of them, more than there can be distinct ones; all -1, filled.
        sums: float32, likewise; zeros, filled.
    """
    indptr, neighbours, weights = rows
    last = np.uint64(columns.size - 1)
    for slot in range(items.size):
        for entry in range(indptr[items[slot]], indptr[items[slot] + 1]):
            column = position[neighbours[entry]]
            if column < 0:
                continue
            place = (np.uint64(column) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & last
            while columns[place] >= 0 and columns[place] != column:
                place = (place + np.uint64(1)) & last
            columns[place] = column
            sums[place] += weights[entry]


@njit(nogil=True, cache=True)
def strongest_items(history, owners, targets, rows, items, weights, totals):
    """The items of a history with the largest weights to a target; of equal ones the smaller number first.

    Args:
        history: (indptr, items), compressed rows of item numbers.
        owners: int64 (targets), row of `history` behind each target.
        targets: int32 (targets), item numbers.
        rows: (indptr, neighbours, weights), compressed rows of each item's neighbours.
        items: int32 (targets, most), filled; -1 where no further item has a weight.
        weights: float32 (targets, most), zeros, filled.
        totals: float32 (targets), zeros, filled with the weights of all items of the history.
    """
    indptr, numbers = history
    items[:] = -1
    for n in range(targets.size):
        for slot in range(indptr[owners[n]], indptr[owners[n] + 1]):
            weight = _weight(numbers[slot], targets[n], rows)
            totals[n] += weight
            place = items.shape[1]
            while place > 0 and weight > weights[n, place - 1]:
                place -= 1
                if place + 1 < items.shape[1]:
                    items[n, place + 1], weights[n, place + 1] = items[n, place], weights[n, place]
            if place < items.shape[1]:
                items[n, place], weights[n, place] = numbers[slot], weight


@njit(nogil=True, cache=True)
def _weight(item, target, rows):
    indptr, neighbours, weights = rows
    place = _place_of(target, neighbours, indptr[item], indptr[item + 1])
    return weights[place] if place < indptr[item + 1] and neighbours[place] == target else np.float32(0.0)


@njit(nogil=True, cache=True)
def _place_of(value, ascending, low, high):
    """Where a value stands, or would stand, in ascending[low:high]."""
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low
