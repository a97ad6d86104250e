"""Pairs: for every node its most similar nodes of the same kind in each other domain, by the anchors both reach.

    reach of domain s ─┐ anchors that both      unit rows, equal rows  ┌ sparse: inverted index ┐ top-k
    reach of domain t ─┘ domains share      →   joined once        →   └ dense: matrix blocks   ┘  → pairs

Differs: the released code lets users pair with items, takes only users as anchors, and "aligns" nodes without any
reach to an arbitrary node; here kinds stay apart and zero similarity is never a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from data_contracts.artifact import Artifact
from data_contracts.contracts import KINDS, PAIRS
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, PairsSettings
from data_contracts.store import Draft, Store
from pipeline.join import Groups, Partners, nearest_nodes
from pipeline.nodes import DomainNodes, IntArray, read_nodes
from pipeline.ragged import distinct_rows
from pipeline.reach import read_reach


def align_domains(
    store: Store,
    settings: PairsSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Pair the nodes of every ordered pair of domains.

    Args:
        store: where the artifact lives.
        settings: partners per node, identity pairs.
        parents: `nodes` and `reach`.
        compute: threads; the result does not depend on them.
        progress: told after each ordered pair of domains.

    Returns:
        A `pairs` artifact; two domains that share no anchor have a partition without rows. Its statistics hold the
        coverage by domain pair and kind.
    """
    nodes, reach = parents["nodes"], parents["reach"]

    def write(draft: Draft) -> None:
        sides = Sides(nodes, reach, compute.memory_mib << 20)
        both_ways = list(combinations([partition["domain"] for partition in nodes.partitions()], 2))
        coverage: list[dict[str, Any]] = []
        for done, domains in enumerate(both_ways, start=1):
            shared = shared_rows(sides.of(domains[0]), sides.of(domains[1]))
            for (source, target), rows in zip(permutations(domains), permutations(shared), strict=True):
                table, report = Alignment(rows[0], rows[1], settings).pairs(compute)
                draft.write(table, source_domain=source, target_domain=target)
                coverage += [{"source_domain": source, "target_domain": target, **row} for row in report]
            progress(2 * done, 2 * len(both_ways), "domain pairs")
        draft.statistics["coverage"] = coverage

    return store.make(PAIRS, settings.keyed(), parents, write)


@dataclass(frozen=True)
class Side:
    """One domain of a pair.

    Attributes:
        nodes: its nodes.
        rows: float32 [distinct, columns] their distinct reach vectors.
        row_of: int64 [nodes], each node's vector among them.
    """

    nodes: DomainNodes
    rows: sp.csr_array
    row_of: npt.NDArray[np.int64]

    @classmethod
    def of(cls, nodes: DomainNodes, reach: sp.csr_array) -> Side:
        """A domain's nodes with their reach vectors, float32 [nodes, nodes], equal ones kept once."""
        representatives, row_of = distinct_rows(reach)
        return cls(nodes, reach[representatives], row_of)

    def groups(self, kind: str) -> Groups:
        """The nodes of a kind by their vector."""
        return Groups.of(self.rows, self.row_of[self.nodes.of_kind(kind)])


class Sides:
    """Domains read once and kept while they fit into memory, those used longest ago dropped first."""

    def __init__(self, nodes: Artifact, reach: Artifact, memory_bytes: int) -> None:
        self._artifacts = nodes, reach
        self._memory_bytes = memory_bytes
        self._kept: dict[str, Side] = {}

    def of(self, domain: str) -> Side:
        """One domain's side over all its anchors."""
        if domain not in self._kept:
            nodes, reach = self._artifacts
            numbered = read_nodes(nodes, domain)
            self._kept[domain] = Side.of(numbered, read_reach(reach, numbered))
        side = self._kept[domain] = self._kept.pop(domain)
        while len(self._kept) > 1 and sum(8 * kept.rows.nnz for kept in self._kept.values()) > self._memory_bytes:
            del self._kept[next(iter(self._kept))]
        return side


def shared_rows(source: Side, target: Side) -> tuple[Side, Side]:
    """Both domains' vectors over the anchors they share, scaled to length 1."""
    anchors = shared_anchors(source.nodes, target.nodes)
    first, second = (
        Side(side.nodes, unit_rows(side.rows, columns), side.row_of)
        for side, columns in zip((source, target), anchors, strict=True)
    )
    return first, second


@dataclass(frozen=True)
class Alignment:
    """The pairs of one ordered pair of domains, from their unit vectors over shared anchors."""

    source: Side
    target: Side
    settings: PairsSettings

    def pairs(self, compute: ComputeSettings) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Pairs of all kinds, sorted by source node and rank, and the coverage by kind."""
        tables, report = [], []
        for kind in KINDS:
            table, coverage = self._pairs_of_kind(kind, compute)
            tables.append(table)
            report.append({"kind": kind, "shared_anchors": self.source.rows.shape[1], **coverage})
        return pa.concat_tables(tables), report

    def _pairs_of_kind(self, kind: str, compute: ComputeSettings) -> tuple[pa.Table, dict[str, Any]]:
        of_source, of_target = self.source.nodes.of_kind(kind), self.target.nodes.of_kind(kind)
        same = _same_entity(self.source.nodes.entity[of_source], self.target.nodes.entity[of_target])
        skip = same if self.settings.identity else np.full_like(same, -1)
        queries = self.source.groups(kind)
        partners = nearest_nodes(queries, self.target.groups(kind), skip, self.settings.k, compute)
        return _table(kind, of_source.start, of_target.start, partners, skip), {
            "nodes": int(same.size),
            "nodes_with_shared_reach": int(np.count_nonzero(queries.group_of >= 0)),
            "nodes_paired": int(np.count_nonzero(partners.sizes)),
            "identity_pairs": int(np.count_nonzero(skip >= 0)),
            "mean_best_similarity": _mean_best(partners),
        }


def shared_anchors(source: DomainNodes, target: DomainNodes) -> tuple[IntArray, IntArray]:
    """Nodes in both domains of the anchors that live in both, aligned by position, users before items."""
    found: tuple[list[IntArray], list[IntArray]] = ([], [])
    for kind in KINDS:
        anchors = [side.anchors_of_kind(kind) for side in (source, target)]
        entities = source.entity[anchors[0]], target.entity[anchors[1]]
        _, *positions = np.intersect1d(*entities, assume_unique=True, return_indices=True)
        for nodes, candidates, where in zip(found, anchors, positions, strict=True):
            nodes.append(candidates[where])
    return np.concatenate(found[0]), np.concatenate(found[1])


def unit_rows(reach: sp.csr_array, anchors: IntArray) -> sp.csr_array:
    """float32 [nodes, anchors]: the reach vectors over the given anchors, each scaled to length 1; zero rows stay."""
    column = np.full(reach.shape[1], -1, np.int32)
    column[anchors] = np.arange(anchors.size, dtype=np.int32)
    kept = column[reach.indices] >= 0
    owner = np.repeat(np.arange(reach.shape[0]), np.diff(reach.indptr))[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=reach.shape[0]))])
    weights = reach.data[kept].astype(np.float64)
    norms = np.sqrt(np.bincount(owner, weights * weights, minlength=reach.shape[0]))
    unit = (weights / norms[owner]).astype(np.float32)
    rows = sp.csr_array((unit, column[reach.indices[kept]], indptr), shape=(reach.shape[0], anchors.size))
    rows.sort_indices()
    return rows


def _same_entity(source: IntArray, target: IntArray) -> IntArray:
    """For each source entity its position among the target's, -1 where it does not live there. Both ascending."""
    position = np.searchsorted(target, source)
    inside = position < target.size
    same = np.full(source.size, -1, np.int32)
    hit = np.flatnonzero(inside)[target[position[inside]] == source[inside]]
    same[hit] = position[hit]
    return same


def _table(kind: str, source_start: int, target_start: int, partners: Partners, identity: IntArray) -> pa.Table:
    """Rows of one kind: identity pairs as rank 0, then partners by rank, within ascending source nodes."""
    twins = np.flatnonzero(identity >= 0)
    owner = np.repeat(np.arange(partners.sizes.size), partners.sizes)
    valid = np.arange(partners.targets.shape[1]) < partners.sizes[:, None]
    source = np.concatenate([twins, owner])
    rank = np.concatenate([np.zeros(twins.size, np.int64), np.nonzero(valid)[1] + 1])
    target = np.concatenate([identity[twins], partners.targets[valid]])
    similarity = np.concatenate([np.ones(twins.size, np.float32), partners.similarities[valid]])
    order = np.lexsort((rank, source))
    return pa.table(
        {
            "source_node": pa.array((source[order] + source_start).astype(np.int32)),
            "target_node": pa.array((target[order] + target_start).astype(np.int32)),
            "kind": pa.array([kind] * order.size, pa.string()),
            "similarity": pa.array(similarity[order]),
            "rank": pa.array(rank[order].astype(np.int32)),
            "identity": pa.array(rank[order] == 0),
        }
    )


def _mean_best(partners: Partners) -> float | None:
    best = partners.similarities[partners.sizes > 0, 0]
    return round(float(best.mean(dtype=np.float64)), 4) if best.size else None
