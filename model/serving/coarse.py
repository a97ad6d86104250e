"""Coarse vectors: a quarter of the bytes of vectors, and how far dot products with them may be off. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.sparse.rows import Floats32

_BLOCK = 16_384
"""Vectors made coarse at once."""
_ROUNDING = 4e-5
"""What the summation of a dot product in float32 may be off, in products of the two lengths."""


@dataclass(frozen=True)
class CoarseVectors:
    """Vectors as small integers times a step for each vector.

    Attributes:
        codes: int8 (vectors, width).
        steps: float32 (vectors).
        errors: float32 (vectors), at least the length of the difference from the vector: a dot product with x differs
            by at most this times the length of x.
    """

    codes: NDArray[np.int8]
    steps: Floats32
    errors: Floats32

    @classmethod
    def build(cls, vectors: Floats32) -> Self:
        """The coarse form of float32 (vectors, width)."""
        codes = np.empty(vectors.shape, np.int8)
        steps, errors = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = np.asarray(vectors[rows])
            steps[rows] = np.maximum(np.abs(block).max(axis=1, initial=0.0) / 127, np.finfo(np.float32).tiny)
            codes[rows] = np.rint(block / steps[rows, None])
            residual = block - codes[rows] * steps[rows, None]
            errors[rows] = np.linalg.norm(residual, axis=1) + _ROUNDING * np.linalg.norm(block, axis=1)
        return cls(codes, steps, errors)

    def dots(self, vector: Floats32) -> Floats32:
        """Dot products with all vectors, float32."""
        from model.serving.coarse_kernels import coarse_dots  # noqa: PLC0415 - loads numba

        dots = np.empty(len(self.steps), np.float32)
        coarse_dots(self.codes, self.steps, vector, dots)
        return dots
