"""Compiled coordinate descent for elastic nets on a sparse Gram matrix. Serial; kernels check nothing."""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def slim_columns(gram, degrees, first, penalties, limits, columns):
    """Fit the weights of all items for each of some items, ascending by item.

    Args:
        gram: (indptr, indices, counts): the Gram matrix without its diagonal, symmetric.
        degrees: float64 [items], its diagonal.
        first: the first item that is fitted; the others follow it.
        penalties: (l1, l2).
        limits: (tolerance, sweeps): the descent ends when no weight changes by more in a sweep, or after so many.
        columns: (indptr int64 [n + 1], indices int32, weights float32), filled with the weights above 0; long enough
            for all entries of the items' rows.
    """
    (indptr, indices, counts), (l1, _), (column_indptr, column_indices, column_weights) = gram, penalties, columns
    gradient, weights = np.zeros(degrees.size, np.float64), np.zeros(degrees.size, np.float64)
    is_candidate, candidates = np.zeros(degrees.size, np.bool_), np.empty(degrees.size, np.int32)
    column_indptr[0] = end = 0
    for n in range(column_indptr.size - 1):
        size = 0
        for entry in range(indptr[first + n], indptr[first + n + 1]):
            if counts[entry] > l1:
                j = candidates[size] = indices[entry]
                gradient[j], is_candidate[j] = counts[entry], True
                size += 1
        _descend(gram, degrees, penalties, limits, candidates[:size], is_candidate, gradient, weights)
        for j in candidates[:size]:
            weight = np.float32(weights[j])
            if weight > 0.0:
                column_indices[end], column_weights[end] = j, weight
                end += 1
            weights[j], is_candidate[j] = 0.0, False
        column_indptr[n + 1] = end


@njit(nogil=True, cache=True)
def _descend(gram, degrees, penalties, limits, candidates, is_candidate, gradient, weights):
    """Sweep over the candidates in their order; `gradient` is X'(x_i - X w) of each, kept up to date."""
    (indptr, indices, counts), (l1, l2), (tolerance, sweeps) = gram, penalties, limits
    for _ in range(sweeps):
        largest = 0.0
        for j in candidates:
            step = max(gradient[j] + degrees[j] * weights[j] - l1, 0.0) / (degrees[j] + l2) - weights[j]
            if step == 0.0:
                continue
            weights[j] += step
            gradient[j] -= step * degrees[j]
            for entry in range(indptr[j], indptr[j + 1]):
                if is_candidate[indices[entry]]:
                    gradient[indices[entry]] -= step * counts[entry]
            largest = max(largest, abs(step))
        if largest <= tolerance:
            return
