"""Terrain: where random walks go, how long they are, and where they may end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import ITEM, USER
from pipeline.graph import DomainGraph

IntArray = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Terrain:
    """A domain's graph, its anchors, and the lengths of the walks whose ends count.

    Attributes:
        graph: the domain's train graph.
        is_anchor: bool [nodes].
        steps: lengths, at least one.
    """

    graph: DomainGraph
    is_anchor: npt.NDArray[np.bool_]
    steps: tuple[int, ...]

    @cached_property
    def anchors(self) -> Numbers:
        """int64 [anchors], the anchor nodes, ascending: the node that each column of visits stands for."""
        return np.flatnonzero(self.is_anchor)

    @cached_property
    def column_of(self) -> IntArray:
        """int32 [nodes], each anchor's place among the anchors, -1 for other nodes."""
        return np.where(self.is_anchor, np.cumsum(self.is_anchor) - 1, -1).astype(np.int32)

    @cached_property
    def adjacency(self) -> sp.csr_array:
        """float32 [nodes, nodes], 1 for neighbours."""
        ones = np.ones(self.graph.indices.size, np.float32)
        return sp.csr_array((ones, self.graph.indices, self.graph.indptr), shape=(self.graph.nodes,) * 2)

    def near(self, nodes: Mask) -> Mask:
        """bool [nodes], who has one of these nodes for a neighbour."""
        found: Mask = self.adjacency @ nodes.astype(np.float32) > 0
        return found

    def counting_steps(self, kind: str) -> npt.NDArray[np.bool_]:
        """bool [last + 1], which steps of a walk from a kind of node count: those asked for that can end on an anchor.

        The graph is bipartite: odd steps end on the other kind. The array ends with the last step that counts; it is
        [False] where none does.
        """
        anchors = {USER: self.is_anchor[: self.graph.users].any(), ITEM: self.is_anchor[self.graph.users :].any()}
        on_even, on_odd = (USER, ITEM) if kind == USER else (ITEM, USER)
        useful = [step for step in set(self.steps) if anchors[on_odd if step % 2 else on_even]]
        return np.isin(np.arange(max(useful, default=0) + 1), useful)

    def reaching(self) -> npt.NDArray[np.bool_]:
        """bool [nodes], whether a walk from the node can end on an anchor when it counts."""
        ends, found = self.is_anchor, np.zeros(self.graph.nodes, np.bool_)
        for step in range(1, max(self.steps) + 1):
            ends = self.near(ends)
            found |= ends & (step in self.steps)
        return found

    def expected_ends(self, nodes: Numbers) -> npt.NDArray[np.float32]:
        """float32 [nodes, n], Σ over steps of P^step: how often a walk from each of n nodes is expected on each anchor.

        Walks forward from few nodes, where `pipeline.reach.expected` walks backward from all anchors.
        """
        degrees = np.maximum(self.graph.degrees, 1).astype(np.float32)[:, None]
        at = np.zeros((self.graph.nodes, nodes.size), np.float32)
        at[nodes, np.arange(nodes.size)] = 1.0
        total = np.zeros_like(at)
        for step in range(1, max(self.steps) + 1):
            at = self.adjacency @ (at / degrees)
            total += at if step in self.steps else 0.0
        total[~self.is_anchor] = 0.0
        return total
