"""Describe: the reach vectors of one domain's nodes, chunk by chunk, in any process that sees the stage's files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import REACH
from data_contracts.seeding import name_seed
from data_contracts.settings import ComputeSettings, ReachSettings
from data_contracts.store.files import flush, write_atomically, write_checked
from pipeline.compute.rows import (
    Rows,
    distinct_rows,
    ragged_tables,
    scipy_rows,
    spill_rows,
    spilled_rows,
    spread_indptr,
)
from pipeline.compute.scratch import Folder, spill_arrays, spilled_arrays
from pipeline.graph import DomainGraph
from pipeline.reach.expected import Step, spill_visits, visits_cost
from pipeline.reach.incremental import Copied
from pipeline.reach.sampled import sampled_reach
from pipeline.reach.walk_graph import Numbers, Terrain


@dataclass(frozen=True)
class Choice:
    """How a domain is described, and why.

    Attributes:
        method: exact, pruned or walk.
        reason: in words, with the predicted costs.
    """

    method: str
    reason: str


def chosen_method(terrain: Terrain, settings: ReachSettings) -> Choice:
    """The method asked for, or the most accurate one whose predicted cost the settings allow."""
    if settings.method != "auto":
        return Choice(settings.method, "asked for")
    allowed = f"{settings.exact_multiply_adds / 1e9:g} G for exact and {settings.visits_memory_mib:,} MiB"
    found: list[str] = []
    for method, most in (("exact", settings.exact_multiply_adds), ("pruned", None)):
        cost = visits_cost(terrain, _limit(method, terrain, settings))
        found.append(f"{method} takes at most {cost.multiply_adds / 1e9:.3g} G multiply-adds, {cost.memory_mib:,} MiB")
        if cost.memory_mib <= settings.visits_memory_mib and (most is None or cost.multiply_adds <= most):
            return Choice(method, f"{'; '.join(found)}; allowed are {allowed}")
    return Choice("walk", f"{'; '.join(found)}; allowed are {allowed}")


def _limit(method: str, terrain: Terrain, settings: ReachSettings) -> int:
    """Most entries of the rows of each step."""
    return settings.anchors_kept if method == "pruned" else max(1, terrain.anchors.size)


@dataclass(frozen=True)
class Description:
    """One domain's walks, ready to be asked for any node's reach vector; everything large is in a folder.

    Attributes:
        folder: of its arrays.
        domain: its name.
        nodes, users, anchors: how many there are.
        method: exact, pruned or walk.
        settings: of the stage.
    """

    folder: Folder
    domain: str
    nodes: int
    users: int
    anchors: int
    method: str
    settings: ReachSettings

    @classmethod
    def of(
        cls,
        terrain: Terrain,
        method: str,
        settings: ReachSettings,
        folder: Folder,
        compute: ComputeSettings,
        copied: Copied | None = None,
    ) -> Description:
        """Prepare the files; those that an earlier attempt finished are kept."""
        graph = terrain.graph
        if copied:
            spill_rows(folder / "copied", copied.parts())
        reaches = terrain.reaching() if method == "walk" else np.empty(0, np.bool_)
        spill_arrays(
            folder / "terrain",
            indptr=graph.indptr,
            indices=graph.indices,
            is_anchor=terrain.is_anchor,
            reaches=reaches,
            stale=copied.stale if copied else np.ones(graph.nodes, np.bool_),
        )
        if method != "walk":
            stale = spilled_arrays(folder / "terrain")["stale"]  # an earlier attempt may have had less to copy
            spill_visits(terrain, _limit(method, terrain, settings), folder / "visits", compute, stale)
        return cls(folder, graph.domain, graph.nodes, graph.users, terrain.anchors.size, method, settings)

    def rows(self, nodes: Numbers) -> sp.csr_array:
        """float32 [n, nodes], reach vectors of ascending nodes, each cut to its largest weights; columns are nodes."""
        arrays = spilled_arrays(self.folder / "terrain")
        graph = DomainGraph(self.domain, self.users, arrays["indptr"], arrays["indices"])
        terrain = Terrain(graph, arrays["is_anchor"], self.settings.steps)
        if self.method == "walk":
            return self._sampled(terrain, nodes, arrays["reaches"])
        stale = arrays["stale"][nodes]
        if stale.all():
            return self._expected(terrain, nodes)
        both = sp.vstack([self._expected(terrain, nodes[stale]), self._copied(nodes[~stale])], format="csr")
        return both[np.argsort(np.argsort(~stale, kind="stable"))]

    def _expected(self, terrain: Terrain, nodes: Numbers) -> sp.csr_array:
        """The last step, once for all nodes of equal neighbours."""
        representatives, row_of = distinct_rows(terrain.adjacency[nodes])
        kept, visits = self.settings.anchors_kept, spilled_rows(self.folder / "visits" / "1")
        last = Step(terrain, visits, np.empty(0, np.int32), kept)
        visits = last.rows(nodes[representatives], representatives.size * min(kept, self.anchors))
        anchors = terrain.anchors[visits.indices].astype(np.int32)
        rows = sp.csr_array((visits.weights, anchors, visits.indptr), shape=(representatives.size, terrain.graph.nodes))
        return rows[row_of]

    def _copied(self, nodes: Numbers) -> sp.csr_array:
        rows, first, end = spilled_rows(self.folder / "copied"), nodes[0], nodes[-1] + 1
        entries = slice(rows.indptr[first], rows.indptr[end])
        within = Rows(rows.indptr[first : end + 1] - entries.start, rows.indices[entries], rows.weights[entries])
        return scipy_rows(within, self.nodes)[nodes - first]

    def _sampled(self, terrain: Terrain, nodes: Numbers, reaches: np.ndarray) -> sp.csr_array:
        """Walks from the nodes that can reach an anchor, on a copy in memory: NumPy's own lies on huge pages."""
        graph, reaching = terrain.graph, reaches[nodes]
        graph = DomainGraph(self.domain, self.users, graph.indptr.copy(), graph.indices.copy())
        rows = sampled_reach(replace(terrain, graph=graph), self.settings, nodes[reaching])
        indptr = spread_indptr(np.diff(rows.indptr), np.flatnonzero(reaching), nodes.size)
        return sp.csr_array((rows.data, rows.indices, indptr), shape=(nodes.size, terrain.graph.nodes))

    @property
    def steps_per_node(self) -> int:
        """Steps that are walked from a node; 0 where none are."""
        return self.settings.walks * max(self.settings.steps) if self.method == "walk" else 0


@dataclass(frozen=True)
class Chunk:
    """Consecutive nodes of a domain, and the Parquet file that their reach vectors go to."""

    description: Description
    nodes: range
    path: Path


@dataclass(frozen=True)
class Described:
    """What a chunk's file holds: rows, rows that are not empty, weights."""

    nodes: int
    nodes_with_reach: int
    entries: int


def describe_chunk(chunk: Chunk) -> Described:
    """Write the reach vectors of a chunk; one that an earlier attempt finished is left as it is."""
    done = chunk.path.with_suffix(".json")
    if done.exists():
        return Described(**json.loads(done.read_text()))
    rows = chunk.description.rows(np.arange(chunk.nodes.start, chunk.nodes.stop))
    columns = {"anchors": rows.indices.astype(np.int32, copy=False), "weights": rows.data}
    (table,) = ragged_tables(chunk.nodes.start, rows.indptr, columns)
    write_checked(REACH, table, chunk.path, f"reach of {chunk.description.domain}")
    flush(chunk.path)
    found = Described(len(chunk.nodes), int(np.count_nonzero(np.diff(rows.indptr))), rows.nnz)
    write_atomically({done: json.dumps(asdict(found)).encode()})
    return found


def against_exact(description: Description, terrain: Terrain) -> dict[str, float | int]:
    """How close a domain's vectors, and walks, are to the exact ones: mean cosines over a sample of nodes.

    Returns:
        `nodes` of the sample that reach an anchor, `walks`, and, where there are such nodes, `mean_cosine` of what is
        stored and `mean_cosine_of_walks`.
    """
    settings = description.settings
    draw = np.random.Generator(np.random.Philox(name_seed(settings.seed, description.domain, "compare")))
    size = min(settings.compared_nodes, terrain.graph.nodes)
    sample = np.sort(draw.choice(terrain.graph.nodes, size, replace=False))
    exact = terrain.expected_ends(sample)
    reaching = exact.any(axis=0)
    found: dict[str, float | int] = {"nodes": int(reaching.sum()), "walks": settings.walks}
    if reaching.any():
        found["mean_cosine"] = _mean_cosine(description.rows(sample[reaching]), exact[:, reaching])
        walked = sampled_reach(terrain, settings, sample[reaching])
        found["mean_cosine_of_walks"] = _mean_cosine(walked, exact[:, reaching])
    return found


def _mean_cosine(rows: sp.csr_array, exact: np.ndarray) -> float:
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    products = np.bincount(owner, rows.data * exact[rows.indices, owner], rows.shape[0])
    norms = np.sqrt(np.bincount(owner, rows.data**2, rows.shape[0]) * (exact**2).sum(axis=0))
    return round(float(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0).mean()), 4)
