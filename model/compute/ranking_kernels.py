"""Compiled ranks and top-k of rows of scores.

`model.serving.exact` has a top-k of its own in NumPy: a service that ranks by vectors alone does not load Numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def count_at_least(scores, rows, items, indptr, masked, ranks):
    """Pessimistic rank of each (row, item): unmasked items of the row that score at least as high, itself included."""
    for i in range(rows.size):
        row = rows[i]
        score = scores[row, items[i]]
        rank = 0
        for j in range(scores.shape[1]):
            rank += scores[row, j] >= score
        for slot in range(indptr[row], indptr[row + 1]):
            rank -= scores[row, masked[slot]] >= score
        ranks[i] = rank


@njit(nogil=True, cache=True)
def top_k_rows(scores, indptr, masked, items, best):
    """The k highest scoring unmasked columns of each row, equal scores by ascending column; padded with -1.

    Args:
        scores: float32 (rows, columns); masked entries become -inf.
        indptr, masked: masked columns by row.
        items, best: int32 and float32 (rows, k), filled.
    """
    for row in range(scores.shape[0]):
        for slot in range(indptr[row], indptr[row + 1]):
            scores[row, masked[slot]] = -np.inf
        filled = 0
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if score == -np.inf or (filled == items.shape[1] and score <= best[row, filled - 1]):
                continue
            position = min(filled, items.shape[1] - 1)
            while position > 0 and best[row, position - 1] < score:
                best[row, position] = best[row, position - 1]
                items[row, position] = items[row, position - 1]
                position -= 1
            best[row, position] = score
            items[row, position] = column
            filled = min(filled + 1, items.shape[1])
        items[row, filled:] = -1
        best[row, filled:] = 0
