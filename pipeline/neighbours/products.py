"""Products: weights between items, summed over all users of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.settings import NeighboursSettings
from pipeline.graph import DomainGraph
from pipeline.neighbours.kernels import product_rows
from pipeline.spill import Rows

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Products:
    """What the weights between the items of a graph are made of.

    Attributes:
        graph: of users and items.
        leaving: float64 [users + items], degree^-alpha, the factor of a step out of each node; 1 for isolated ones.
        arriving: float64 [items], degree^-beta, the factor of walks that end on each item.
        top: most weights of a row.
    """

    graph: DomainGraph
    leaving: npt.NDArray[np.float64]
    arriving: npt.NDArray[np.float64]
    top: int

    @classmethod
    def of(cls, graph: DomainGraph, settings: NeighboursSettings) -> Products:
        """The factors of a graph's nodes."""
        degrees = np.maximum(graph.degrees, 1).astype(np.float64)
        return cls(graph, degrees**-settings.alpha, degrees[graph.users :] ** -settings.beta, settings.top)

    def paths(self) -> Numbers:
        """int64 [items], walks of two steps from each item: the multiply-adds of its row."""
        return paths_of(self.graph)

    def rows(self, items: Numbers) -> Rows:
        """The rows of some items, each cut to its largest weights; items are numbered within the graph."""
        capacity = int(np.minimum(self.paths()[items], min(self.top, self.arriving.size)).sum())
        rows = Rows(np.empty(items.size + 1, np.int64), np.empty(capacity, np.int32), np.empty(capacity, np.float32))
        graph = self.graph.indptr, self.graph.indices
        product_rows(graph, self.leaving, self.arriving, items + self.graph.users, self.top, tuple(rows))
        entries = int(rows.indptr[-1])
        return Rows(rows.indptr, rows.indices[:entries], rows.weights[:entries])


def paths_of(graph: DomainGraph) -> Numbers:
    """int64 [items], walks of two steps from each item: the sum of its users' degrees."""
    degrees = graph.degrees
    lengths = degrees[graph.indices[graph.indptr[graph.users] :]]
    until = np.concatenate([[0], np.cumsum(lengths)])
    paths: Numbers = np.diff(until[graph.indptr[graph.users :] - graph.indptr[graph.users]])
    return paths
