"""One user's evidence where it is not 0, to score some items of a domain without scoring all. No torch or numba."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.sparse.rows import Ints

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class UserEvidence:
    """What one user's history adds to the scores of a domain's items.

    Attributes:
        items: int32, the domain's items with evidence, ascending.
        weighted: float32, their evidence times its weight.
        vectors: what dot products are multiplied by.
        scale: what the sum of both is multiplied by.
    """

    items: Ints
    weighted: Floats32
    vectors: np.float32
    scale: np.float32

    @classmethod
    def none(cls) -> UserEvidence:
        """That of a run which ranks by vectors alone."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.float32(1.0), np.float32(1.0))

    def blend(self, dots: Floats32, items: Ints) -> Floats32:
        """The served scores of some items, from their dot products with the user's vector."""
        weighted = np.zeros(items.size, np.float32)
        if self.items.size:
            place = np.minimum(np.searchsorted(self.items, items), self.items.size - 1)
            weighted = np.where(self.items[place] == items, self.weighted[place], np.float32(0.0))
        return (self.vectors * dots + weighted) * self.scale
