"""Rows of weights between items, summed over the users of both, in full or from some of the walks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_contracts.seeding import name_seed
from data_contracts.settings import NeighboursSettings
from pipeline.compute.dtypes import Longs
from pipeline.compute.rows import CsrRows
from pipeline.graph import DomainGraph
from pipeline.neighbours.kernels import neighbour_rows

_ALL_WALKS = 1 << 62


@dataclass(frozen=True)
class ItemWeights:
    """The weights between the items of a graph, computed row by row.

    Attributes:
        graph: of users and items.
        user_weights: float64 [users], degree^-alpha, what a walk through each user counts; 1 for isolated ones.
        norms: float64 [items], degree^beta.
        paths: int64 [items], walks of two steps from each item: the multiply-adds of its row.
        settings: how many weights are kept; number and seed of walks.
        method: exact or walk.
    """

    graph: DomainGraph
    user_weights: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    paths: Longs
    settings: NeighboursSettings
    method: str

    @classmethod
    def from_graph(cls, graph: DomainGraph, settings: NeighboursSettings, method: str = "exact") -> ItemWeights:
        """The weights of a graph by these settings."""
        degrees = np.maximum(graph.degrees, 1).astype(np.float64)
        user_weights, norms = degrees[: graph.users] ** -settings.alpha, degrees[graph.users :] ** settings.beta
        return cls(graph, user_weights, norms, count_paths(graph), settings, method)

    @property
    def walks(self) -> int:
        """Most walks of two steps in a sum; the row of an item with more is estimated from so many."""
        return self.settings.walks if self.method == "walk" else _ALL_WALKS

    def exact(self) -> ItemWeights:
        """The same, every row summed in full."""
        return replace(self, method="exact")

    def bound_rows(self, items: Longs) -> Longs:
        """int64 [n], bounds of the number of items that the walks of each row end on."""
        bounds: Longs = np.minimum(self.paths[items], min(self.walks + 2, self.norms.size))  # 2 by rounding
        return bounds

    def rows(self, items: Longs) -> CsrRows:
        """The rows of n items, each cut to its largest weights; items are numbered within the graph."""
        bounds = self.bound_rows(items)
        rows = CsrRows.build_empty(items.size, int(np.minimum(bounds, self.settings.top).sum()))
        neighbour_rows(
            (self.graph.indptr, self.graph.indices),
            (self.user_weights, self.norms),
            (self.settings.shrink, self.settings.power),
            (items + self.graph.users, self.paths[items]),
            (self.settings.top, self.walks, int(bounds.max(initial=0))),
            np.uint64(name_seed(self.settings.seed, self.graph.domain, "neighbours")),
            tuple(rows),
        )
        return rows.trimmed()


def count_paths(graph: DomainGraph) -> Longs:
    """int64 [items], walks of two steps from each item: the sum of its users' degrees."""
    starts = graph.indptr[graph.users :] - graph.indptr[graph.users]
    until = np.zeros(starts[-1] + 1, np.int64)
    np.cumsum(graph.degrees[graph.indices[graph.indptr[graph.users] :]], out=until[1:])
    paths: Longs = np.diff(until[starts])
    return paths
