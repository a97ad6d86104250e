"""Compiled loops over sparse rows of item neighbours.

Arrays in, preallocated output filled; nothing is checked here. All loops sum in the order of the
histories, so that evidence is the same to the bit whichever of them computes it.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sum_neighbours(history, rows, column_of_item, evidence):
    """Sum the neighbour weights of each history's items.

    Args:
        history: (indptr, items), compressed rows of item numbers.
        rows: (indptr, neighbours, weights), compressed rows of each item's neighbours.
        column_of_item: int32 (items of the union), column of each item in `evidence`, -1 for items without one.
        evidence: float32 (histories, columns), zeros, filled.
    """
    (history_indptr, items), (indptr, neighbours, weights) = history, rows
    for row in range(evidence.shape[0]):
        for slot in range(history_indptr[row], history_indptr[row + 1]):
            item = items[slot]
            for entry in range(indptr[item], indptr[item + 1]):
                column = column_of_item[neighbours[entry]]
                if column >= 0:
                    evidence[row, column] += weights[entry]


@njit(nogil=True, cache=True)
def blend_rows(scores, evidence, factors, spread):
    """Add weighted evidence to scores and rescale each row to the spread of the vectors' scores, in place.

    Args:
        scores, evidence: float32 (users, items).
        factors: (of scores, of evidence), float32 (users).
        spread: of the vectors' scores.
    """
    score_factors, evidence_factors = factors
    for row in range(scores.shape[0]):
        total = squares = 0.0
        for column in range(scores.shape[1]):
            weighted = evidence_factors[row] * evidence[row, column]
            total += weighted
            squares += weighted * weighted
            scores[row, column] = score_factors[row] * scores[row, column] + weighted
        variance = max(squares / scores.shape[1] - (total / scores.shape[1]) ** 2, 0.0)
        scale = np.float32(1.0 / (1.0 + np.sqrt(variance) / spread))
        for column in range(scores.shape[1]):
            scores[row, column] *= scale


@njit(nogil=True, cache=True)
def sum_neighbours_sparsely(items, rows, column_of_item, columns, sums):
    """As `sum_neighbours` for one history, in a hash table: the cost does not depend on the number of columns.

    Args:
        items: int32, one history's.
        rows, column_of_item: as for `sum_neighbours`.
        columns: int32, filled; all -1, its size a power of two and larger than the number of distinct columns.
        sums: float32, filled; zeros of the same size.
    """
    indptr, neighbours, weights = rows
    last = np.uint64(columns.size - 1)
    for slot in range(items.size):
        for entry in range(indptr[items[slot]], indptr[items[slot] + 1]):
            column = column_of_item[neighbours[entry]]
            if column < 0:
                continue
            bucket = (np.uint64(column) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & last
            while columns[bucket] >= 0 and columns[bucket] != column:
                bucket = (bucket + np.uint64(1)) & last
            columns[bucket] = column
            sums[bucket] += weights[entry]


@njit(nogil=True, cache=True)
def strongest_items(history, owners, targets, rows, items, weights, totals):
    """The items of a history with the largest weights for each target, equal ones by ascending number.

    Args:
        history: (indptr, items), compressed rows of item numbers.
        owners: int64 (targets), the row of `history` of each target.
        targets: int32 (targets), item numbers.
        rows: (indptr, neighbours, weights), compressed rows of each item's neighbours.
        items: int32 (targets, most), filled; -1 if no further item has a weight.
        weights: float32 (targets, most), zeros, filled.
        totals: float32 (targets), zeros, filled with the weights of all items of the history.
    """
    indptr, numbers = history
    items[:] = -1
    for n in range(targets.size):
        for slot in range(indptr[owners[n]], indptr[owners[n] + 1]):
            weight = _weight(numbers[slot], targets[n], rows)
            totals[n] += weight
            rank = items.shape[1]
            while rank > 0 and weight > weights[n, rank - 1]:
                rank -= 1
                if rank + 1 < items.shape[1]:
                    items[n, rank + 1], weights[n, rank + 1] = items[n, rank], weights[n, rank]
            if rank < items.shape[1]:
                items[n, rank], weights[n, rank] = numbers[slot], weight


@njit(nogil=True, cache=True)
def _weight(item, target, rows):
    indptr, neighbours, weights = rows
    slot = _bisect(target, neighbours, indptr[item], indptr[item + 1])
    return weights[slot] if slot < indptr[item + 1] and neighbours[slot] == target else np.float32(0.0)


@njit(nogil=True, cache=True)
def _bisect(value, ascending, low, high):
    """The first index in low … high - 1 whose element is not less than the value; `high` if there is none."""
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low
