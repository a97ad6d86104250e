"""One user's nonzero evidence, to score some items of a domain without scoring all. Needs no torch and no numba."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.sparse.rows import Floats32, Ints


@dataclass(frozen=True)
class UserEvidence:
    """The contribution of one user's history to the scores of a domain's items.

    Attributes:
        items: int32, the domain's items with evidence, ascending.
        weighted: float32, their evidence times its weight.
        vectors: factor of the dot products.
        scale: factor of the sum of both.
    """

    items: Ints
    weighted: Floats32
    vectors: np.float32
    scale: np.float32

    @classmethod
    def empty(cls) -> UserEvidence:
        """No evidence, as in a run that ranks by vectors alone."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.float32(1.0), np.float32(1.0))

    def blend(self, dots: Floats32, items: Ints) -> Floats32:
        """The served scores of some items, from their dot products with the user's vector."""
        weighted = np.zeros(items.size, np.float32)
        if self.items.size:
            positions = np.minimum(np.searchsorted(self.items, items), self.items.size - 1)
            weighted = np.where(self.items[positions] == items, self.weighted[positions], np.float32(0.0))
        return (self.vectors * dots + weighted) * self.scale
