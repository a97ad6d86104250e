"""Products: rows of weights between items, summed over the users of both, in full or from some of the walks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_contracts.seeding import name_seed
from data_contracts.settings import NeighboursSettings
from pipeline.compute.rows import Rows
from pipeline.graph import DomainGraph
from pipeline.neighbours.kernels import neighbour_rows

Numbers = npt.NDArray[np.int64]

_ALL_WALKS = 1 << 62


@dataclass(frozen=True)
class Products:
    """A graph, and what the weights between its items are made of.

    Attributes:
        graph: of users and items.
        of_users: float64 [users], degree^-alpha, what a walk through each user counts; 1 for isolated ones.
        norms: float64 [items], degree^beta.
        paths: int64 [items], walks of two steps from each item: the multiply-adds of its row.
        settings: how many weights are kept; number and seed of walks.
        method: exact or walk.
    """

    graph: DomainGraph
    of_users: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    paths: Numbers
    settings: NeighboursSettings
    method: str

    @classmethod
    def of(cls, graph: DomainGraph, settings: NeighboursSettings, method: str = "exact") -> Products:
        """What the settings make of a graph."""
        degrees = np.maximum(graph.degrees, 1).astype(np.float64)
        of_users, norms = degrees[: graph.users] ** -settings.alpha, degrees[graph.users :] ** settings.beta
        return cls(graph, of_users, norms, paths_of(graph), settings, method)

    @property
    def walks(self) -> int:
        """Walks of two steps that are added up at most; the row of an item with more is estimated from so many."""
        return self.settings.walks if self.method == "walk" else _ALL_WALKS

    def exact(self) -> Products:
        """The same, every row summed in full."""
        return replace(self, method="exact")

    def row_bounds(self, items: Numbers) -> Numbers:
        """int64 [n], no fewer than the items that the walks of each row end on."""
        bounds: Numbers = np.minimum(self.paths[items], min(self.walks + 2, self.norms.size))  # 2 by rounding
        return bounds

    def rows(self, items: Numbers) -> Rows:
        """The rows of n items, each cut to its largest weights; items are numbered within the graph."""
        bounds = self.row_bounds(items)
        capacity = int(np.minimum(bounds, self.settings.top).sum())
        rows = Rows(np.empty(items.size + 1, np.int64), np.empty(capacity, np.int32), np.empty(capacity, np.float32))
        neighbour_rows(
            (self.graph.indptr, self.graph.indices),
            (self.of_users, self.norms),
            (self.settings.shrink, self.settings.power),
            (items + self.graph.users, self.paths[items]),
            (self.settings.top, self.walks, int(bounds.max(initial=0))),
            np.uint64(name_seed(self.settings.seed, self.graph.domain, "neighbours")),
            tuple(rows),
        )
        entries = int(rows.indptr[-1])
        return Rows(rows.indptr, rows.indices[:entries], rows.weights[:entries])


def paths_of(graph: DomainGraph) -> Numbers:
    """int64 [items], walks of two steps from each item: the sum of its users' degrees."""
    starts = graph.indptr[graph.users :] - graph.indptr[graph.users]
    until = np.zeros(starts[-1] + 1, np.int64)
    np.cumsum(graph.degrees[graph.indices[graph.indptr[graph.users] :]], out=until[1:])
    paths: Numbers = np.diff(until[starts])
    return paths
