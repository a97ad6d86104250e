"""Compiled loop of the alignment loss: distances of aligned pairs, and the sums of their gradients."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def pull_pairs(first, last, indptr, partners, vectors, partner_vectors, weight, lengths, gradient):
    """Distances of the pairs of rows first … last - 1, and the gradient of their weighted sum by these rows' vectors.

    A pair at distance 0 has no gradient.

    Args:
        indptr, partners: int32, the rows of `partner_vectors` that each row is paired with, one after another.
        vectors, partner_vectors: float32 (rows, width).
        weight: float32, of each distance.
        lengths: float32 (pairs), filled in the order of `partners`.
        gradient: float32 (rows, width), filled.
    """
    width = vectors.shape[1]
    for row in range(first, last):
        vector, pull = vectors[row], gradient[row]
        for j in range(width):
            pull[j] = np.float32(0.0)
        for pair in range(indptr[row], indptr[row + 1]):
            partner, squares = partner_vectors[partners[pair]], np.float32(0.0)
            for j in range(width):
                squares += (vector[j] - partner[j]) * (vector[j] - partner[j])
            length = np.sqrt(squares)
            lengths[pair] = length
            if length > 0:
                scale = weight / length
                for j in range(width):
                    pull[j] += scale * (vector[j] - partner[j])
