"""Expected end points of random walks, by sparse products.

    start   a node's own column where it is an anchor
    E(s)    P · E(s + 1), plus the own column where walks of s steps count
    reach   P · E(1) = Σ over counted steps of P^step on the anchors' columns                  (Horner's rule)

All rows of E(s) are needed for a row of E(s - 1), so every step but the last is taken for all nodes and its result
written to files; the last step is taken for the nodes of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_contracts.settings.machine import ComputeSettings
from pipeline.compute.array_folder import ArrayFolder
from pipeline.compute.dtypes import Ints, Longs, Mask
from pipeline.compute.fan_out import bounded_ranges, stream
from pipeline.compute.rows import CsrRows, scatter_indptr
from pipeline.reach.expected_kernels import fill_expected_rows
from pipeline.reach.walk_graph import WalkGraph

_BYTES_PER_ENTRY = 8
_BLOCKS_IN_MEMORY = 16
"""Blocks of a step's rows that the memory setting is divided into, as a few are buffered until they are written."""


@dataclass(frozen=True)
class ExpectationCost:
    """An upper bound on the cost of expected end points.

    Attributes:
        multiply_adds: in all products.
        memory_mib: of the largest rows of two consecutive steps.
    """

    multiply_adds: int
    memory_mib: int


def bound_cost(walk_graph: WalkGraph, limit: int) -> ExpectationCost:
    """Bound the cost of expected end points whose rows are cut to `limit` entries, without computing them."""
    own_entries = walk_graph.is_anchor.astype(np.float64)
    longest = min(own_entries.sum(), limit)
    lengths, multiply_adds, entries = own_entries, 0.0, 0.0
    for step in range(max(walk_graph.steps) - 1, -1, -1):
        entries_before, products = lengths.sum(), walk_graph.adjacency @ lengths
        multiply_adds += products.sum()
        lengths = np.minimum(products + own_entries, longest)
        entries = max(entries, entries_before + (lengths.sum() if step else 0.0))
    return ExpectationCost(int(multiply_adds), int(entries * _BYTES_PER_ENTRY) >> 20)


def write_expected_ends(
    walk_graph: WalkGraph, limit: int, folder: ArrayFolder, compute: ComputeSettings, last: Mask
) -> None:
    """Take all steps but the last, for the nodes that the next step needs; steps of an earlier attempt are kept.

    Args:
        walk_graph: the graph, its anchors and the steps that count.
        limit: most entries of a row; every step's rows are cut to their largest weights.
        folder: its sub-folder `1` will hold E(1).
        compute: threads, and memory for blocks of rows.
        last: bool [nodes], the nodes for which the last step will be taken.
    """
    if (folder / "1").exists():
        return
    start = np.concatenate([[0], np.cumsum(walk_graph.is_anchor)])
    ends = CsrRows(
        start, np.arange(walk_graph.anchors.size, dtype=np.int32), np.ones(walk_graph.anchors.size, np.float32)
    )
    needed = [last]
    for _ in range(1, max(walk_graph.steps)):
        needed.append(walk_graph.neighbours_of(needed[-1]))
    for step in range(max(walk_graph.steps) - 1, 0, -1):
        self_column = walk_graph.column_of if step in walk_graph.steps else np.empty(0, np.int32)
        transition = TransitionStep(walk_graph, ends, self_column, limit)
        (folder / str(step)).write_rows(_needed_rows(transition, needed[step], compute))
        ends = (folder / str(step)).rows()
    if max(walk_graph.steps) == 1:
        (folder / "1").write_rows([ends])
    for step in range(2, max(walk_graph.steps)):
        (folder / str(step)).remove()


@dataclass(frozen=True)
class TransitionStep:
    """One step in front of walks whose expected ends are known.

    Attributes:
        walk_graph: the graph and its anchors.
        ends: expected ends of the walks, a row per node, a column per anchor.
        self_column: int32 [nodes], the column in which a node itself counts, -1 for none; or empty.
        limit: most entries of a row.
    """

    walk_graph: WalkGraph
    ends: CsrRows
    self_column: Ints
    limit: int

    def bound_lengths(self) -> Longs:
        """int64 [nodes], bounds of the rows' lengths."""
        products = self.walk_graph.adjacency @ np.diff(self.ends.indptr).astype(np.float64) + 1
        lengths: Longs = np.minimum(products, min(self.limit, self.walk_graph.anchors.size)).astype(np.int64)
        return lengths

    def rows(self, nodes: Longs, capacity: int) -> CsrRows:
        """The rows of some nodes, each cut to its largest weights; they have at most `capacity` entries."""
        rows = CsrRows.build_empty(nodes.size, capacity)
        graph, sums = self.walk_graph.graph, np.zeros(self.walk_graph.anchors.size, np.float32)
        fill_expected_rows(
            (graph.indptr, graph.indices), tuple(self.ends), self.self_column, nodes, self.limit, sums, tuple(rows)
        )
        return rows.trimmed()


def _needed_rows(step: TransitionStep, needed: Mask, compute: ComputeSettings) -> Iterator[CsrRows]:
    """The rows of all nodes in blocks, empty for those not needed; memory remains for the blocks that are buffered."""
    lengths = np.where(needed, step.bound_lengths(), 0)
    most = (compute.memory_mib << 20) // (_BYTES_PER_ENTRY * _BLOCKS_IN_MEMORY)

    def compute_block(nodes: range) -> CsrRows:
        offsets = np.flatnonzero(needed[nodes.start : nodes.stop])
        rows = step.rows(nodes.start + offsets, int(lengths[nodes.start : nodes.stop].sum()))
        indptr = scatter_indptr(np.diff(rows.indptr), offsets, len(nodes))
        return CsrRows(indptr, rows.indices.copy(), rows.weights.copy())

    return stream(compute_block, bounded_ranges(lengths, most), compute)
