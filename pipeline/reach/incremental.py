"""Incremental reach: the nodes whose vectors an update must compute; those of all others are copied.

A vector follows from the neighbours of every node within the walks' steps, in their order, and from which of them are
anchors. Numbers may shift between two updates but keep their order, so where none of this changed, recomputing would
give the earlier bits. Earlier artifacts are only a cache: no key depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from data_contracts.contracts import GRAPH, NODES, REACH
from data_contracts.settings.preparation import ReachSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.node_mapping import previous_node_numbers
from pipeline.compute.dtypes import Ints, Mask
from pipeline.compute.rows import CsrRows, ragged_arrays, scatter_indptr
from pipeline.graph import read_graph, read_nodes
from pipeline.reach.walk_graph import WalkGraph


@dataclass(frozen=True)
class ReusedReach:
    """The reach vectors of a domain that are copied from an earlier artifact.

    Attributes:
        is_changed: bool [nodes], whose vectors are computed instead.
        previous_numbers: int32 [nodes], the earlier number of each node, -1 for new ones; ascending without these.
        previous: the earlier `reach`.
        domain: its name.
    """

    is_changed: Mask
    previous_numbers: Ints
    previous: Artifact
    domain: str

    @classmethod
    def find(
        cls,
        before: Mapping[str, Artifact],
        nodes: Artifact,
        walk_graph: WalkGraph,
        method: str,
        settings: ReachSettings,
    ) -> ReusedReach | None:
        """What can be copied; None where nothing can.

        Args:
            before: earlier `nodes`, `graph` and `reach`, or nothing.
            nodes: the new ones.
            walk_graph: over the new graph.
            method: of the domain; sampled walks depend on the nodes' numbers and are not copied.
            settings: of the stage.
        """
        domain = walk_graph.graph.domain
        if REACH.name not in before or before[REACH.name].manifest.settings != settings.keyed():
            return None
        previous_method = before[REACH.name].statistics["domains"].get(domain, {}).get("method")
        if method == "walk" or previous_method != method:
            return None
        numbers = previous_node_numbers(before[NODES.name], nodes.read(["kind", "id"], domain=domain), domain)
        if (np.diff(numbers[numbers >= 0]) < 0).any():
            return None
        previous_nodes = read_nodes(before[NODES.name], domain)
        previous = WalkGraph(read_graph(before[GRAPH.name], previous_nodes), previous_nodes.is_anchor, settings.steps)
        return cls(changed_nodes(walk_graph, previous, numbers), numbers, before[REACH.name], domain)

    def rows(self) -> Iterator[CsrRows]:
        """The copied vectors under the new numbers, by files of the earlier artifact; other nodes have empty rows."""
        unchanged = np.flatnonzero(~self.is_changed)
        number = np.full(int(self.previous_numbers.max(initial=-1)) + 1, -1, np.int32)
        known = np.flatnonzero(self.previous_numbers >= 0)
        number[self.previous_numbers[known]] = known
        start = done = 0
        for table in self.previous.batches(["anchors", "weights"], domain=self.domain):
            first, last = np.searchsorted(self.previous_numbers[unchanged], [start, start + table.num_rows])
            indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
            rows_of_file, nodes = CsrRows(indptr, anchors, weights), unchanged[first:last]
            copied = rows_of_file.to_scipy(number.size)[self.previous_numbers[nodes] - start]
            end = int(nodes[-1]) + 1 if nodes.size else done
            indptr = scatter_indptr(np.diff(copied.indptr), nodes - done, end - done)
            yield CsrRows(indptr, number[copied.indices], copied.data)
            start, done = start + table.num_rows, end
        empty_rows = np.zeros(self.is_changed.size - done + 1, np.int64)
        yield CsrRows(empty_rows, np.empty(0, np.int32), np.empty(0, np.float32))


def changed_nodes(walk_graph: WalkGraph, previous: WalkGraph, previous_numbers: Ints) -> Mask:
    """bool [nodes], whose reach vectors may differ from the earlier ones.

    Args:
        walk_graph: over the new graph.
        previous: over the earlier graph.
        previous_numbers: int32 [nodes], each node's number in the earlier graph, -1 for new ones.
    """
    has_others = _has_other_neighbours(walk_graph, previous, previous_numbers)
    counts_otherwise: Mask = (previous_numbers < 0) | (walk_graph.is_anchor != previous.is_anchor[previous_numbers])
    changed: Mask = counts_otherwise
    for step in range(max(walk_graph.steps) - 1, -1, -1):
        changed = walk_graph.neighbours_of(changed) | has_others | (counts_otherwise & (step in walk_graph.steps))
    return changed


def _has_other_neighbours(walk_graph: WalkGraph, previous: WalkGraph, previous_numbers: Ints) -> Mask:
    new, old = walk_graph.graph, previous.graph
    owners = np.repeat(np.arange(new.nodes), new.degrees)
    ends = previous_numbers[owners].astype(np.int64), previous_numbers[new.indices]
    edges = np.where((ends[0] >= 0) & (ends[1] >= 0), ends[0] * old.nodes + ends[1], -1)
    old_edges = np.repeat(np.arange(old.nodes, dtype=np.int64), old.degrees) * old.nodes + old.indices
    has_other: Mask = (previous_numbers < 0) | (new.degrees != old.degrees[previous_numbers])
    has_other[owners[~np.isin(edges, old_edges)]] = True
    return has_other
