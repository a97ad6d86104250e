"""The reach vectors of one domain's nodes, computed chunk by chunk in any process that sees the stage's files."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import REACH
from data_contracts.seeding import name_seed
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import ReachSettings
from data_contracts.statistics import ReachComparison
from data_contracts.store.files import flush, write_checked
from pipeline.compute.array_folder import ArrayFolder
from pipeline.compute.dtypes import Longs, Mask
from pipeline.compute.fan_out import ranges
from pipeline.compute.method_choice import ASKED_FOR, MethodChoice
from pipeline.compute.rows import group_equal_rows, ragged_tables, scatter_indptr
from pipeline.compute.scratch import read_report, write_reports
from pipeline.graph import DomainGraph
from pipeline.reach.expected import TransitionStep, bound_cost, write_expected_ends
from pipeline.reach.incremental import ReusedReach
from pipeline.reach.sampled import sampled_reach
from pipeline.reach.walk_graph import WalkGraph

log = logging.getLogger(__name__)

_NODES_PER_CHUNK = 256, 16_384
"""Fewest and most nodes of a chunk; in between, as many as a sixteenth of the memory holds vectors of."""

_CHUNKS_IN_MEMORY = 16

_ENTRY_BYTES = 8


def choose_method(walk_graph: WalkGraph, settings: ReachSettings) -> MethodChoice:
    """The method in the settings or, for `auto`, the most accurate one whose predicted cost the settings allow."""
    if settings.method != "auto":
        return MethodChoice(settings.method, ASKED_FOR)
    allowed = f"{settings.exact_multiply_adds / 1e9:g} G for exact and {settings.visits_memory_mib:,} MiB"
    costs: list[str] = []
    for method, most in (("exact", settings.exact_multiply_adds), ("pruned", None)):
        cost = bound_cost(walk_graph, _row_limit(method, walk_graph, settings))
        costs.append(f"{method} takes at most {cost.multiply_adds / 1e9:.3g} G multiply-adds, {cost.memory_mib:,} MiB")
        if cost.memory_mib <= settings.visits_memory_mib and (most is None or cost.multiply_adds <= most):
            return MethodChoice(method, f"{'; '.join(costs)}; allowed are {allowed}")
    return MethodChoice("walk", f"{'; '.join(costs)}; allowed are {allowed}")


def _row_limit(method: str, walk_graph: WalkGraph, settings: ReachSettings) -> int:
    """Most entries of the rows of each step."""
    return settings.anchors_kept if method == "pruned" else max(1, walk_graph.anchors.size)


@dataclass(frozen=True)
class ReachComputation:
    """Computes the reach vectors of any nodes of a domain, in any process; everything large is in its folder.

    Attributes:
        folder: of its arrays.
        domain: its name.
        nodes, users, anchors: how many there are.
        method: exact, pruned or walk.
        settings: of the stage.
    """

    folder: ArrayFolder
    domain: str
    nodes: int
    users: int
    anchors: int
    method: str
    settings: ReachSettings

    @classmethod
    def build(
        cls,
        walk_graph: WalkGraph,
        method: str,
        settings: ReachSettings,
        folder: ArrayFolder,
        compute: ComputeSettings,
        reused: ReusedReach | None = None,
    ) -> ReachComputation:
        """Prepare the arrays; those that an earlier attempt finished are kept."""
        graph = walk_graph.graph
        if (folder / "graph").is_damaged() or (folder / "reused").is_damaged():
            log.warning("reach of %s, left by an earlier attempt, is damaged; making it again", graph.domain)
            folder.remove()  # everything else was made for the nodes that these say are unchanged
        if reused:
            (folder / "reused").write_rows(reused.rows())
        (folder / "graph").write_arrays(
            indptr=graph.indptr,
            indices=graph.indices,
            is_anchor=walk_graph.is_anchor,
            reaches_anchor=walk_graph.reaches_anchor() if method == "walk" else np.empty(0, np.bool_),
            is_changed=reused.is_changed if reused else np.ones(graph.nodes, np.bool_),
        )
        if method != "walk":
            is_changed = (folder / "graph").arrays()["is_changed"]  # an earlier attempt may have reused fewer
            write_expected_ends(
                walk_graph, _row_limit(method, walk_graph, settings), folder / "expected", compute, is_changed
            )
        return cls(folder, graph.domain, graph.nodes, graph.users, walk_graph.anchors.size, method, settings)

    def rows(self, nodes: Longs) -> sp.csr_array:
        """float32 [n, nodes], reach vectors of ascending nodes, each cut to its largest weights; columns are nodes."""
        arrays = (self.folder / "graph").arrays()
        graph = DomainGraph(self.domain, self.users, arrays["indptr"], arrays["indices"])
        walk_graph = WalkGraph(graph, arrays["is_anchor"], self.settings.steps)
        if self.method == "walk":
            return self._sampled(walk_graph, nodes, arrays["reaches_anchor"])
        is_changed = arrays["is_changed"][nodes]
        if is_changed.all():
            return self._expected(walk_graph, nodes)
        both = sp.vstack(
            [self._expected(walk_graph, nodes[is_changed]), self._reused(nodes[~is_changed])], format="csr"
        )
        # Rows of changed nodes were put first; the inverse of that permutation puts them back in the order of nodes.
        return both[np.argsort(np.argsort(~is_changed, kind="stable"))]

    def _expected(self, walk_graph: WalkGraph, nodes: Longs) -> sp.csr_array:
        """The last step, once for all nodes that have the same neighbours."""
        representatives, group_of = group_equal_rows(walk_graph.adjacency[nodes])
        kept, ends = self.settings.anchors_kept, (self.folder / "expected" / "1").rows()
        last_step = TransitionStep(walk_graph, ends, np.empty(0, np.int32), kept)
        rows = last_step.rows(nodes[representatives], representatives.size * min(kept, self.anchors))
        anchors = walk_graph.anchors[rows.indices].astype(np.int32)
        return rows._replace(indices=anchors).to_scipy(walk_graph.graph.nodes)[group_of]

    def _reused(self, nodes: Longs) -> sp.csr_array:
        first, end = int(nodes[0]), int(nodes[-1]) + 1
        rows = (self.folder / "reused").rows().select(range(first, end))
        return rows.to_scipy(self.nodes)[nodes - first]

    def _sampled(self, walk_graph: WalkGraph, nodes: Longs, reaches_anchor: Mask) -> sp.csr_array:
        """Walks from the nodes that can reach an anchor, on a copy in memory: NumPy's own arrays use huge pages."""
        graph, is_source = walk_graph.graph, reaches_anchor[nodes]
        graph = DomainGraph(self.domain, self.users, graph.indptr.copy(), graph.indices.copy())
        rows = sampled_reach(replace(walk_graph, graph=graph), self.settings, nodes[is_source])
        indptr = scatter_indptr(np.diff(rows.indptr), np.flatnonzero(is_source), nodes.size)
        return sp.csr_array((rows.data, rows.indices, indptr), shape=(nodes.size, graph.nodes))

    @property
    def steps_per_node(self) -> int:
        """Steps of all walks from a node; 0 where none are walked."""
        return self.settings.walks * max(self.settings.steps) if self.method == "walk" else 0

    def chunk_ranges(self, compute: ComputeSettings) -> list[range]:
        """Consecutive ranges of nodes whose vectors fit into a share of the memory."""
        width = _ENTRY_BYTES * max(1, min(self.settings.anchors_kept, self.anchors))
        size = int(np.clip((compute.memory_mib << 20) // (_CHUNKS_IN_MEMORY * width), *_NODES_PER_CHUNK))
        return ranges(self.nodes, size)


@dataclass(frozen=True)
class ReachChunk:
    """Consecutive nodes of a domain, and the Parquet file for their reach vectors."""

    computation: ReachComputation
    nodes: range
    path: Path


@dataclass(frozen=True)
class ReachCounts:
    """Rows, rows that are not empty, and weights in a chunk's file."""

    nodes: int
    nodes_with_reach: int
    entries: int


def compute_chunk(chunk: ReachChunk) -> ReachCounts:
    """Write the reach vectors of a chunk, unless an earlier attempt finished it."""
    report_path = chunk.path.with_suffix(".json")
    if report := read_report(report_path):
        return ReachCounts(**report)
    rows = chunk.computation.rows(np.arange(chunk.nodes.start, chunk.nodes.stop))
    columns = {"anchors": rows.indices.astype(np.int32, copy=False), "weights": rows.data}
    (table,) = ragged_tables(chunk.nodes.start, rows.indptr, columns)
    write_checked(REACH, table, chunk.path, f"reach of {chunk.computation.domain}")
    flush(chunk.path)
    counts = ReachCounts(len(chunk.nodes), int(np.count_nonzero(np.diff(rows.indptr))), rows.nnz)
    write_reports({report_path: (asdict(counts), [chunk.path])})
    return counts


def compare_with_exact(computation: ReachComputation, walk_graph: WalkGraph) -> ReachComparison:
    """How close a domain's vectors, and walks, are to the exact ones: mean cosines over a sample of nodes.

    Returns:
        `nodes` of the sample that reach an anchor, `walks`, and, where there are such nodes, `mean_cosine` of the
        stored vectors and `mean_cosine_of_walks`.
    """
    settings = computation.settings
    draw = np.random.Generator(np.random.Philox(name_seed(settings.seed, computation.domain, "compare")))
    size = min(settings.compared_nodes, walk_graph.graph.nodes)
    sample = np.sort(draw.choice(walk_graph.graph.nodes, size, replace=False))
    exact = walk_graph.expected_ends(sample)
    reaches = exact.any(axis=0)
    comparison = ReachComparison(nodes=int(reaches.sum()), walks=settings.walks)
    if reaches.any():
        comparison["mean_cosine"] = _mean_cosine(computation.rows(sample[reaches]), exact[:, reaches])
        sampled = sampled_reach(walk_graph, settings, sample[reaches])
        comparison["mean_cosine_of_walks"] = _mean_cosine(sampled, exact[:, reaches])
    return comparison


def _mean_cosine(rows: sp.csr_array, exact: np.ndarray) -> float:
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    products = np.bincount(owner, rows.data * exact[rows.indices, owner], rows.shape[0])
    norms = np.sqrt(np.bincount(owner, rows.data**2, rows.shape[0]) * (exact**2).sum(axis=0))
    return round(float(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).mean()), 4)
