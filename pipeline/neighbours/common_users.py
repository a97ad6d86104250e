"""The Gram matrix of items, which regressions of items on each other start from: numbers of common users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_contracts.settings.machine import ComputeSettings
from pipeline.compute.dtypes import Ints, Longs
from pipeline.compute.fan_out import bounded_ranges, stream
from pipeline.compute.rows import CsrRows
from pipeline.neighbours.item_weights import ItemWeights

_ENTRIES_PER_BLOCK = 1 << 22


@dataclass(frozen=True)
class CommonUsers:
    """How many users each two items have in common, for the items that have train interactions.

    Attributes:
        weights: of a graph, whose rows are these numbers.
        items: int64 [n], the items, numbered within the graph, ascending.
    """

    weights: ItemWeights
    items: Longs

    @classmethod
    def build(cls, weights: ItemWeights) -> CommonUsers:
        """Of all items of a graph; `weights` are by settings whose weights are fitted."""
        every = weights.settings.model_copy(update={"top": max(weights.norms.size, 1)})
        return cls(replace(weights, settings=every), np.flatnonzero(weights.paths))

    @property
    def degrees(self) -> npt.NDArray[np.float64]:
        """float64 [n], users of each item: the matrix's diagonal."""
        graph = self.weights.graph
        return graph.degrees[graph.users + self.items].astype(np.float64)

    @property
    def most_entries(self) -> int:
        """A bound of the numbers outside the diagonal that are not 0."""
        return int(self.weights.bound_rows(self.items).sum())

    def rows(self, positions: range) -> CsrRows:
        """Some rows without their diagonal; columns are positions in `items`."""
        rows = self.weights.rows(self.items[positions.start : positions.stop])
        return rows._replace(indices=self._positions[rows.indices])

    def blocks(self, compute: ComputeSettings) -> Iterator[CsrRows]:
        """All rows, by blocks."""
        bounds = self.weights.bound_rows(self.items)
        return stream(self.rows, bounded_ranges(bounds, _ENTRIES_PER_BLOCK), compute)

    @property
    def _positions(self) -> Ints:
        positions = np.zeros(self.weights.norms.size, np.int32)
        positions[self.items] = np.arange(self.items.size, dtype=np.int32)
        return positions
