"""Compiled loop over coarse vectors. Arrays in, preallocated output filled; nothing is checked here."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def coarse_dots(codes, steps, vector, dots):
    """Dot products of a vector with all rows of coarse vectors.

    Args:
        codes: int8 (rows, width).
        steps: float32 (rows), the length of a code's unit in each row.
        vector: float32 (width).
        dots: float32 (rows), filled.
    """
    for row in range(codes.shape[0]):
        total = np.float32(0.0)
        for j in range(vector.size):
            total += np.float32(codes[row, j]) * vector[j]
        dots[row] = total * steps[row]
