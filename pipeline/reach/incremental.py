"""Stale: the nodes of a domain whose reach vectors an update must compute; those of all others it copies.

A vector follows from the neighbours of every node within the walks' steps, in their order, and from which of them are
anchors. Numbers may shift between two updates but keep their order, so where all this is as it was, a vector computed
anew has the earlier one's bits. Earlier artifacts are a cache here: no key depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from data_contracts.contracts import GRAPH, NODES, REACH
from data_contracts.node_mapping import earlier_places
from data_contracts.settings import ReachSettings
from data_contracts.store.artifact import Artifact
from pipeline.compute.rows import Rows, ragged_arrays, scipy_rows, spread_indptr
from pipeline.graph import read_graph, read_nodes
from pipeline.reach.walk_graph import IntArray, Mask, Terrain


@dataclass(frozen=True)
class Copied:
    """The reach vectors of a domain that are copied.

    Attributes:
        stale: bool [nodes], whose vectors are not.
        places: int32 [nodes], what number each node had before, -1 for new ones; ascending without these.
        earlier: the reach artifact that they are in.
        domain: its name.
    """

    stale: Mask
    places: IntArray
    earlier: Artifact
    domain: str

    @classmethod
    def of(
        cls, before: Mapping[str, Artifact], nodes: Artifact, terrain: Terrain, method: str, settings: ReachSettings
    ) -> Copied | None:
        """What can be copied; None where nothing can.

        Args:
            before: `nodes`, `graph` and `reach`, or nothing.
            nodes: of today.
            terrain: of today.
            method: by which the domain is described; sampled walks go by the nodes' numbers, and are not copied.
            settings: of the stage.
        """
        domain = terrain.graph.domain
        if REACH.name not in before or before[REACH.name].manifest.settings != settings.keyed():
            return None
        had = before[REACH.name].statistics["domains"].get(domain, {}).get("method")
        if method == "walk" or had != method:
            return None
        places = earlier_places(before[NODES.name], nodes.read(["kind", "id"], domain=domain), domain)
        if (np.diff(places[places >= 0]) < 0).any():
            return None
        numbered = read_nodes(before[NODES.name], domain)
        earlier = Terrain(read_graph(before[GRAPH.name], numbered), numbered.is_anchor, settings.steps)
        return cls(stale_nodes(terrain, earlier, places), places, before[REACH.name], domain)

    def parts(self) -> Iterator[Rows]:
        """The copied vectors in today's numbers, a file of the earlier artifact at a time; a row of every node."""
        fresh = np.flatnonzero(~self.stale)
        number = np.full(int(self.places.max(initial=-1)) + 1, -1, np.int32)
        kept = np.flatnonzero(self.places >= 0)
        number[self.places[kept]] = kept
        start = done = 0
        for table in self.earlier.batches(["anchors", "weights"], domain=self.domain):
            first, last = np.searchsorted(self.places[fresh], [start, start + table.num_rows])
            indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
            of_file, nodes = Rows(indptr, anchors, weights), fresh[first:last]
            rows = scipy_rows(of_file, number.size)[self.places[nodes] - start]
            end = int(nodes[-1]) + 1 if nodes.size else done
            yield Rows(spread_indptr(np.diff(rows.indptr), nodes - done, end - done), number[rows.indices], rows.data)
            start, done = start + table.num_rows, end
        none = np.empty(0, np.int32), np.empty(0, np.float32)
        yield Rows(np.zeros(self.stale.size - done + 1, np.int64), *none)


def stale_nodes(terrain: Terrain, earlier: Terrain, places: IntArray) -> Mask:
    """bool [nodes], whose reach vectors may differ from what they were.

    Args:
        terrain: of today.
        earlier: of before.
        places: int32 [nodes], each node's number there, -1 for new ones.
    """
    elsewhere = _has_other_neighbours(terrain, earlier, places)
    counts_otherwise: Mask = (places < 0) | (terrain.is_anchor != earlier.is_anchor[places])
    stale: Mask = counts_otherwise
    for step in range(max(terrain.steps) - 1, -1, -1):
        stale = terrain.near(stale) | elsewhere | (counts_otherwise & (step in terrain.steps))
    return stale


def _has_other_neighbours(terrain: Terrain, earlier: Terrain, places: IntArray) -> Mask:
    graph, before = terrain.graph, earlier.graph
    owners = np.repeat(np.arange(graph.nodes), graph.degrees)
    ends = places[owners].astype(np.int64), places[graph.indices]
    edges = np.where((ends[0] >= 0) & (ends[1] >= 0), ends[0] * before.nodes + ends[1], -1)
    had = np.repeat(np.arange(before.nodes, dtype=np.int64), before.degrees) * before.nodes + before.indices
    other: Mask = (places < 0) | (graph.degrees != before.degrees[places])
    other[owners[~np.isin(edges, had)]] = True
    return other
