"""Visits: the expectation of random walks, by sparse products.

    start   a node's own column where it is an anchor
    V(s)    P · V(s + 1), plus the own column where walks of s steps count
    reach   P · V(1) = Σ over counting steps of P^step on the anchors' columns                  (Horner's rule)

All rows of V(s) are needed for a row of V(s - 1), so every step but the last is taken for all nodes and spilled to
files; the last is taken for the nodes asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_contracts.settings import ComputeSettings
from pipeline.compute.fan_out import bounded_ranges, stream
from pipeline.compute.rows import Rows, spill_rows, spilled_rows, spread_indptr
from pipeline.compute.scratch import Folder, dropped
from pipeline.reach.visit_kernels import visit_rows
from pipeline.reach.walk_graph import IntArray, Mask, Numbers, Terrain

_BYTES_PER_ENTRY = 8
_PARTS_IN_MEMORY = 16
"""Parts of a step's result that the memory setting is divided into; a few wait to be written at a time."""


@dataclass(frozen=True)
class Cost:
    """An upper bound on what expected visits cost.

    Attributes:
        multiply_adds: in all products.
        memory_mib: of the largest rows of two consecutive steps.
    """

    multiply_adds: int
    memory_mib: int


def visits_cost(terrain: Terrain, limit: int) -> Cost:
    """Bound the cost of expected visits whose rows are cut to `limit` entries, without computing them."""
    own = terrain.is_anchor.astype(np.float64)
    widest = min(own.sum(), limit)
    lengths, multiply_adds, entries = own, 0.0, 0.0
    for step in range(max(terrain.steps) - 1, -1, -1):
        before, products = lengths.sum(), terrain.adjacency @ lengths
        multiply_adds += products.sum()
        lengths = np.minimum(products + own, widest)
        entries = max(entries, before + (lengths.sum() if step else 0.0))
    return Cost(int(multiply_adds), int(entries * _BYTES_PER_ENTRY) >> 20)


def spill_visits(terrain: Terrain, limit: int, folder: Folder, compute: ComputeSettings, wanted: Mask) -> None:
    """Take all steps but the last for all nodes needed; what an earlier attempt finished is not done again.

    Args:
        terrain: where walks go and end.
        limit: most entries of a row; every step's rows are cut to their largest weights.
        folder: its sub-folder `1` will hold V(1).
        compute: threads, and memory for parts of rows.
        wanted: bool [nodes], for whom the last step will be taken.
    """
    if (folder / "1").exists():
        return
    visits = _start(terrain)
    needed = [wanted]
    for _ in range(1, max(terrain.steps)):
        needed.append(terrain.near(needed[-1]))
    for step in range(max(terrain.steps) - 1, 0, -1):
        own = terrain.column_of if step in terrain.steps else np.empty(0, np.int32)
        spill_rows(folder / str(step), _needed_rows(Step(terrain, visits, own, limit), needed[step], compute))
        visits = spilled_rows(folder / str(step))
    if max(terrain.steps) == 1:
        spill_rows(folder / "1", [visits])
    for step in range(2, max(terrain.steps)):
        dropped(folder / str(step))


def _start(terrain: Terrain) -> Rows:
    columns = np.arange(terrain.anchors.size, dtype=np.int32)
    return Rows(np.concatenate([[0], np.cumsum(terrain.is_anchor)]), columns, np.ones(columns.size, np.float32))


@dataclass(frozen=True)
class Step:
    """One step in front of the walks that `visits` describes.

    Attributes:
        terrain: where walks go and end.
        visits: a row per node, a column per anchor.
        own: int32 [nodes], the column in which a node itself counts, -1 for none; or empty.
        limit: most entries of a row.
    """

    terrain: Terrain
    visits: Rows
    own: IntArray
    limit: int

    def lengths(self) -> Numbers:
        """int64 [nodes], bounds of the rows' lengths."""
        products = self.terrain.adjacency @ np.diff(self.visits.indptr).astype(np.float64) + 1
        lengths: Numbers = np.minimum(products, min(self.limit, self.terrain.anchors.size)).astype(np.int64)
        return lengths

    def rows(self, nodes: Numbers, capacity: int) -> Rows:
        """The rows of some nodes, each cut to its largest weights; `capacity` is no less than they hold."""
        rows = Rows(np.empty(nodes.size + 1, np.int64), np.empty(capacity, np.int32), np.empty(capacity, np.float32))
        graph, sums = self.terrain.graph, np.zeros(self.terrain.anchors.size, np.float32)
        visit_rows((graph.indptr, graph.indices), tuple(self.visits), self.own, nodes, self.limit, sums, tuple(rows))
        entries = int(rows.indptr[-1])
        return Rows(rows.indptr, rows.indices[:entries], rows.weights[:entries])


def _needed_rows(step: Step, needed: Mask, compute: ComputeSettings) -> Iterator[Rows]:
    """The rows of all nodes, of those not needed empty, in parts that leave memory for those that wait."""
    lengths = np.where(needed, step.lengths(), 0)
    most = (compute.memory_mib << 20) // (_BYTES_PER_ENTRY * _PARTS_IN_MEMORY)

    def part(nodes: range) -> Rows:
        places = np.flatnonzero(needed[nodes.start : nodes.stop])
        rows = step.rows(nodes.start + places, int(lengths[nodes.start : nodes.stop].sum()))
        return Rows(spread_indptr(np.diff(rows.indptr), places, len(nodes)), rows.indices.copy(), rows.weights.copy())

    return stream(part, bounded_ranges(lengths, most), compute)
