"""Rows of weights between items, summed over the users of both, in full or from some of the walks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_contracts.seeding import name_seed
from data_contracts.settings.preparation import NeighboursSettings
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
        row_norms, norms: float64 [items], powers of the degree that divide an item's row, and its column.
        paths: int64 [items], walks of two steps from each item: the multiply-adds of its row.
        settings: how many weights are kept; number and seed of walks.
        method: exact or walk.
    """

    graph: DomainGraph
    user_weights: npt.NDArray[np.float64]
    row_norms: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    paths: Longs
    settings: NeighboursSettings
    method: str

    @classmethod
    def from_graph(cls, graph: DomainGraph, settings: NeighboursSettings, method: str = "exact") -> ItemWeights:
        """The weights of a graph by these settings."""
        of_users, of_rows, of_columns = _exponents(settings)
        users, items = np.split(np.maximum(graph.degrees, 1).astype(np.float64), [graph.users])
        norms = items**of_columns
        row_norms = norms if of_rows == of_columns else items**of_rows
        return cls(graph, users**-of_users, row_norms, norms, count_paths(graph), settings, method)

    @property
    def shape(self) -> tuple[float, float]:
        """What is added to the product of two items' norms, and the power of the quotient that is the weight."""
        shrink = self.settings.shrink if self.settings.weights in {"walks", "cosine"} else 0.0
        return shrink, self.settings.power if self.settings.weights == "walks" else 1.0

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
            (self.user_weights, self.row_norms, self.norms),
            self.shape,
            (items + self.graph.users, self.paths[items]),
            (self.settings.top, self.walks, int(bounds.max(initial=0))),
            np.uint64(name_seed(self.settings.seed, self.graph.domain, "neighbours")),
            tuple(rows),
        )
        return rows.trimmed()


def _exponents(settings: NeighboursSettings) -> tuple[float, float, float]:
    """Powers of the degrees of users, of the items of rows and of those of columns, that divide a weight.

    The fitted weights start from numbers of common users, which no degree divides.
    """
    return {
        "walks": (settings.alpha, settings.beta, settings.beta),
        "cosine": (0.0, 0.5, 0.5),
        "rp3beta": (settings.rp3beta.alpha, settings.rp3beta.alpha, settings.rp3beta.beta),
    }.get(settings.weights, (0.0, 0.0, 0.0))


def count_paths(graph: DomainGraph) -> Longs:
    """int64 [items], walks of two steps from each item: the sum of its users' degrees."""
    starts = graph.indptr[graph.users :] - graph.indptr[graph.users]
    until = np.zeros(starts[-1] + 1, np.int64)
    np.cumsum(graph.degrees[graph.indices[graph.indptr[graph.users] :]], out=until[1:])
    paths: Longs = np.diff(until[starts])
    return paths
