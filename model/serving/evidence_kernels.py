"""Compiled loops over sparse rows of item neighbours.

Arrays in, preallocated output filled; nothing is checked here. Sums run in the order of the histories.
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
def single_weights(items, target, rows, weights_found):
    """S[items[n], target] for each n, 0 where the target is no neighbour; neighbours ascend within a row."""
    indptr, neighbours, weights = rows
    for n in range(items.size):
        low, high = indptr[items[n]], indptr[items[n] + 1]
        while low < high:
            middle = (low + high) // 2
            if neighbours[middle] < target:
                low = middle + 1
            else:
                high = middle
        is_neighbour = low < indptr[items[n] + 1] and neighbours[low] == target
        weights_found[n] = weights[low] if is_neighbour else 0.0
