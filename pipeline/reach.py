"""Reach: how likely a random walk from a node ends at each anchor of its domain, exactly or by sampling.

    user ── item ── user ── item ── user        P = D^-1 A, one step to a uniform neighbour
      └────── 3 steps ──────┘        |          from a user, 3 steps end on items, 4 on users;
      └────────── 4 steps ───────────┘          from an item the other way round

"The random walk stop count vector on the common nodes" of two domains [EDDA] is the part of this vector that lies on
the anchors which both domains share. Describing each domain over all its anchors, once, serves every pair of domains.

Differs: the released code walks anew for each pair of domains, only users are anchors, and half of its walks end on
nodes that cannot be anchors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.artifact import Artifact
from data_contracts.contracts import REACH
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, ReachSettings
from data_contracts.store import Draft, Store
from pipeline.fanout import ranges, stream
from pipeline.graph import DomainGraph, read_graph
from pipeline.kernels import count_runs, walk_hits
from pipeline.nodes import DomainNodes, IntArray, read_nodes
from pipeline.ragged import coalesced, distinct_rows, keep_largest_weights, ragged_arrays, ragged_tables

_DENSE_FILL = 0.2
"""Above this share of non-zeros a block multiplies faster as a dense array."""

_ROWS_PER_CHUNK = 256, 16_384
"""Least and most rows of a chunk; in between, as many dense rows as an eighth of the memory holds."""

_CHUNKS_PER_MEMORY = 8

_ENTRIES_PER_FILE = 1 << 24


def describe_reach(
    store: Store,
    settings: ReachSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Describe every node of every domain by the anchors that its walks end on.

    Args:
        store: where the artifact lives.
        settings: method, walk lengths, walks, how many anchors are kept.
        parents: `nodes` and `graph`.
        compute: threads; the result does not depend on them.
        progress: told after each chunk of nodes.

    Returns:
        A `reach` artifact with one row per node; nodes that reach no anchor have empty lists. Its statistics hold,
        by domain, the share of nodes with a vector, the mean length of the vectors, and how far sampled vectors are
        from exact ones on a sample of nodes.
    """
    nodes, graph = parents["nodes"], parents["graph"]

    def write(draft: Draft) -> None:
        domains = [partition["domain"] for partition in nodes.partitions()]
        numbered = [read_nodes(nodes, domain) for domain in domains]
        total, done = sum(n.entity.size for n in numbered), 0
        draft.statistics["method"] = settings.method
        draft.statistics["domains"] = {}
        for domain_nodes in numbered:
            walker = Walker(read_graph(graph, domain_nodes), domain_nodes.is_anchor, settings)
            filled = entries = first = 0
            for rows in coalesced(walker.rows(compute), _ENTRIES_PER_FILE):
                anchors = rows.indices.astype(np.int32, copy=False)
                for table in ragged_tables(first, rows.indptr, {"anchors": anchors, "weights": rows.data}):
                    draft.write(table, domain=domain_nodes.domain)
                first += rows.shape[0]
                filled += int(np.count_nonzero(np.diff(rows.indptr)))
                entries += rows.nnz
                done += rows.shape[0]
                progress(done, total, "nodes")
            draft.statistics["domains"][domain_nodes.domain] = {
                "nodes": first,
                "nodes_with_reach": filled,
                "entries": entries,
                "walk_against_exact": walker.compare(),
            }

    return store.make(REACH, settings.keyed(), parents, write)


@dataclass(frozen=True)
class Walker:
    """Walks on one domain's graph.

    Attributes:
        graph: the domain's train graph.
        is_anchor: bool [nodes].
        settings: method, lengths, walks, seed.
    """

    graph: DomainGraph
    is_anchor: npt.NDArray[np.bool_]
    settings: ReachSettings

    def rows(self, compute: ComputeSettings) -> Iterator[sp.csr_array]:
        """float32 [chunk, nodes] reach vectors of consecutive chunks of nodes, each cut to its largest weights."""
        describe = self.exact() if self.settings.method == "exact" else self.walk
        widest = max(1, int(np.count_nonzero(self.is_anchor)))
        size = int(np.clip((compute.memory_mib << 20) // (_CHUNKS_PER_MEMORY * 4 * widest), *_ROWS_PER_CHUNK))
        chunks = [np.arange(chunk.start, chunk.stop) for chunk in ranges(self.graph.nodes, size)]
        return stream(describe, chunks, compute)

    def exact(self) -> Callable[[npt.NDArray[np.int64]], sp.csr_array]:
        """The expectation of the walks: a function from nodes to the anchor columns of P^3 + P^4 in their rows.

        All steps but the last are taken here, for all nodes at once; the function takes the last for the nodes asked,
        once for all nodes of equal neighbours.
        """
        transitions = self.graph.transitions()
        anchors = np.flatnonzero(self.is_anchor)
        ones = np.ones(anchors.size, np.float32)
        start = sp.csr_array((ones, (anchors, np.arange(anchors.size))), shape=(self.graph.nodes, anchors.size))
        before_last = _expected_visits(transitions, start, self.settings.steps)

        def last_step(nodes: npt.NDArray[np.int64]) -> sp.csr_array:
            steps = transitions[nodes]
            representatives, row_of = distinct_rows(steps)
            visits = sp.csr_array(steps[representatives] @ before_last)
            visits.sort_indices()
            return _on_nodes(keep_largest_weights(visits, self.settings.anchors_kept), anchors, self.graph.nodes)[
                row_of
            ]

        return last_step

    def walk(self, nodes: npt.NDArray[np.int64]) -> sp.csr_array:
        """Sampled reach: of `settings.walks` walks from each node, the share that ends on each anchor."""
        walkable = self.graph.degrees[nodes] > 0
        found, hits = self._hits(nodes[walkable].astype(np.int32))
        bounds = np.zeros(nodes.size + 1, np.int64)
        np.cumsum(np.bincount(np.flatnonzero(walkable), np.diff(found), nodes.size), out=bounds[1:])
        rows, distinct, counts = np.empty_like(bounds), np.empty_like(hits), np.empty_like(hits)
        count_runs(hits, bounds, rows, distinct, counts)
        weights = (counts[: rows[-1]] / self.settings.walks).astype(np.float32)
        ends = sp.csr_array((weights, distinct[: rows[-1]], rows), shape=(nodes.size, self.graph.nodes))
        return keep_largest_weights(ends, self.settings.anchors_kept)

    def _hits(self, sources: IntArray) -> tuple[npt.NDArray[np.int64], IntArray]:
        counts_step = np.zeros(max(self.settings.steps) + 1, np.bool_)
        counts_step[list(self.settings.steps)] = True
        hits = np.empty(sources.size * self.settings.walks * len(set(self.settings.steps)), np.int32)
        found = np.zeros(sources.size + 1, np.int64)
        seed = np.uint64(name_seed(self.settings.seed, self.graph.domain))
        graph = self.graph
        walk_hits(
            graph.indptr, graph.indices, self.is_anchor, counts_step, sources, self.settings.walks, seed, hits, found
        )
        return found, hits[: found[-1]]

    def compare(self) -> dict[str, float | int]:
        """How close sampled vectors are to exact ones: mean cosine over a sample of nodes that reach an anchor."""
        draw = np.random.Generator(np.random.Philox(name_seed(self.settings.seed, self.graph.domain, "compare")))
        size = min(self.settings.compared_nodes, self.graph.nodes)
        sample = np.sort(draw.choice(self.graph.nodes, size, replace=False))
        exact, sampled = self._expected_ends(sample), self.walk(sample)
        products = np.asarray(exact.multiply(sampled).sum(axis=1))
        norms = np.sqrt(np.asarray(exact.power(2).sum(axis=1)) * np.asarray(sampled.power(2).sum(axis=1)))
        reaching = np.diff(exact.indptr) > 0
        cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)[reaching]
        mean = {"mean_cosine": round(float(cosines.mean()), 4)} if reaching.any() else {}
        return {"nodes": int(reaching.sum()), "walks": self.settings.walks, **mean}

    def _expected_ends(self, nodes: npt.NDArray[np.int64]) -> sp.csr_array:
        """As `exact`, for few nodes: their own rows are stepped forward, no other node's."""
        transitions, rows = self.graph.transitions(), np.arange(nodes.size)
        ends = sp.csr_array((np.ones(nodes.size, np.float32), (rows, nodes)), shape=(nodes.size, self.graph.nodes))
        total = sp.csr_array(ends.shape, dtype=np.float32)
        for step in range(1, max(self.settings.steps) + 1):
            ends = ends @ transitions
            total = total + ends if step in self.settings.steps else total
        anchors_only = sp.csr_array(total @ sp.diags_array(self.is_anchor.astype(np.float32)))
        anchors_only.eliminate_zeros()
        return anchors_only


def _expected_visits(transitions: sp.csr_array, start: sp.csr_array, steps: tuple[int, ...]) -> sp.csr_array:
    """Σ over steps of P^(step - 1) · start, by Horner's rule, dense once the rows fill up."""
    visits = start
    for step in range(max(steps) - 1, 0, -1):
        visits = transitions @ visits
        if step in steps:
            visits = visits + start
        if sp.issparse(visits) and visits.nnz > _DENSE_FILL * visits.shape[0] * visits.shape[1]:
            visits = visits.toarray()
    return visits


def _on_nodes(visits: sp.csr_array, anchors: npt.NDArray[np.int64], nodes: int) -> sp.csr_array:
    indices = anchors[visits.indices].astype(np.int32)
    return sp.csr_array((visits.data, indices, visits.indptr), shape=(visits.shape[0], nodes))


def name_seed(seed: int, *names: str) -> int:
    """A 64-bit number that depends on a seed and on names, and on nothing else."""
    text = "\x1f".join([str(seed), *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def read_reach(reach: Artifact, nodes: DomainNodes) -> sp.csr_array:
    """float32 [nodes, nodes] reach vectors of one domain; columns are anchor nodes."""
    table = reach.read(["anchors", "weights"], domain=nodes.domain)
    indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
    return sp.csr_array((weights, anchors, indptr), shape=(nodes.entity.size, nodes.entity.size))
