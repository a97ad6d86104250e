"""Walk graph: the graph that random walks take, their lengths, and the anchors where they may end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import ITEM, USER
from pipeline.compute.dtypes import Floats32, Ints, Longs, Mask
from pipeline.graph import DomainGraph


@dataclass(frozen=True)
class WalkGraph:
    """A domain's graph, its anchors, and the lengths of the walks whose end points count.

    Attributes:
        graph: the domain's train graph.
        is_anchor: bool [nodes].
        steps: lengths, at least one.
    """

    graph: DomainGraph
    is_anchor: Mask
    steps: tuple[int, ...]

    @cached_property
    def anchors(self) -> Longs:
        """int64 [anchors], the anchor nodes, ascending: the nodes of the columns of expected end points."""
        return np.flatnonzero(self.is_anchor)

    @cached_property
    def column_of(self) -> Ints:
        """int32 [nodes], the column of each anchor, -1 for other nodes."""
        return np.where(self.is_anchor, np.cumsum(self.is_anchor) - 1, -1).astype(np.int32)

    @cached_property
    def adjacency(self) -> sp.csr_array:
        """float32 [nodes, nodes], 1 for neighbours."""
        ones = np.ones(self.graph.indices.size, np.float32)
        return sp.csr_array((ones, self.graph.indices, self.graph.indptr), shape=(self.graph.nodes,) * 2)

    def neighbours_of(self, nodes: Mask) -> Mask:
        """bool [nodes], whether a node has one of the given nodes as a neighbour."""
        is_neighbour: Mask = self.adjacency @ nodes.astype(np.float32) > 0
        return is_neighbour

    def counted_steps(self, kind: str) -> Mask:
        """bool [last + 1], which steps of a walk from a kind of node count: those in `steps` that can end on an anchor.

        The graph is bipartite: odd steps end on the other kind. The array ends with the last step that counts; it is
        [False] where none does.
        """
        has_anchors = {USER: self.is_anchor[: self.graph.users].any(), ITEM: self.is_anchor[self.graph.users :].any()}
        on_even, on_odd = (USER, ITEM) if kind == USER else (ITEM, USER)
        useful = [step for step in set(self.steps) if has_anchors[on_odd if step % 2 else on_even]]
        return np.isin(np.arange(max(useful, default=0) + 1), useful)

    def reaches_anchor(self) -> Mask:
        """bool [nodes], whether a walk from the node can be on an anchor after a step that counts."""
        ends, reaches = self.is_anchor, np.zeros(self.graph.nodes, np.bool_)
        for step in range(1, max(self.steps) + 1):
            ends = self.neighbours_of(ends)
            reaches |= ends & (step in self.steps)
        return reaches

    def expected_ends(self, nodes: Longs) -> Floats32:
        """float32 [nodes, n], Σ over steps of P^step: the expected number of ends on each anchor of walks from n nodes.

        Goes forward from few nodes, where `pipeline.reach.expected` goes backward from all anchors.
        """
        degrees = np.maximum(self.graph.degrees, 1).astype(np.float32)[:, None]
        distribution = np.zeros((self.graph.nodes, nodes.size), np.float32)
        distribution[nodes, np.arange(nodes.size)] = 1.0
        total = np.zeros_like(distribution)
        for step in range(1, max(self.steps) + 1):
            distribution = self.adjacency @ (distribution / degrees)
            total += distribution if step in self.steps else 0.0
        total[~self.is_anchor] = 0.0
        return total
