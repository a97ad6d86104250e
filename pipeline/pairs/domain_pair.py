"""The aligned pairs of two domains: from their vectors in files to a table in each direction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ITEM, KINDS, PAIRS, USER
from data_contracts.seeding import name_seed
from data_contracts.settings.preparation import PairsSettings
from data_contracts.statistics import PairCoverage
from data_contracts.store.files import flush_all, write_checked
from pipeline.compute.array_folder import ArrayFolder, DiskArrays
from pipeline.compute.dtypes import Ints, Longs
from pipeline.compute.scratch import write_reports
from pipeline.graph import DomainNodes
from pipeline.pairs.domain_vectors import (
    DistinctRows,
    DomainVectors,
    open_vectors,
    rows_by_group,
    shared_anchors,
)
from pipeline.pairs.join import Join, JoinChunk, TopK, join_chunk
from pipeline.pairs.join_kernels import expand_groups

_SAME = 1e-5
"""Larger than the error of the float32 products of the check."""


@dataclass(frozen=True)
class DomainPair:
    """Two domains to be aligned.

    Attributes:
        domains: their names.
        vectors: folders of their vectors.
        nodes: of both together.
        folder: for the joins.
        settings: of the stage.
        checked_share: share of the nodes whose best partner is checked.
    """

    domains: tuple[str, str]
    vectors: tuple[ArrayFolder, ArrayFolder]
    nodes: int
    folder: ArrayFolder
    settings: PairsSettings
    checked_share: float

    def open_domain(self, number: int) -> DomainVectors:
        """The vectors of the first domain, 0, or of the second, 1."""
        return open_vectors(self.domains[number], self.vectors[number])

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of nodes that are joined with their own kind: user and item, or `mixed` for all nodes at once."""
        return KINDS if self.settings.kinds == "apart" else (self.settings.kinds,)


@dataclass(frozen=True)
class StoredDomainPair(DomainPair):
    """Two domains to be aligned in files that every process sees."""

    folder: DiskArrays

    def table_path(self, source: int) -> Path:
        """File of the pairs from the given domain, 0 or 1."""
        return self.folder.path / f"from-{source}.parquet"

    @property
    def join_folders(self) -> list[DiskArrays]:
        """The joins' files; not needed once the pairs are written."""
        return [self.folder / kind for kind in self.kinds]

    @property
    def report_path(self) -> Path:
        """File of the coverage, written last."""
        return self.folder.path / "coverage.json"


def prepare_joins(pair: DomainPair) -> dict[str, Join]:
    """The joins of a pair of domains by kind; their vectors over shared anchors are written to its folder."""
    domains = pair.open_domain(0), pair.open_domain(1)
    anchors = shared_anchors(domains[0].nodes, domains[1].nodes)
    unit = [domain.unit_rows(shared) for domain, shared in zip(domains, anchors, strict=True)]
    joins = {}
    for kind in pair.kinds:
        left, right = (
            DistinctRows.build(rows, domain.row_of[_range_of_kind(kind, domain.nodes)])
            for rows, domain in zip(unit, domains, strict=True)
        )
        joins[kind] = Join.build(pair.folder / kind, left.rows, right.rows, pair.settings)
        (pair.folder / kind / "groups").write_arrays(**{"0": left.group_of, "1": right.group_of})
    return joins


@dataclass(frozen=True)
class DirectedAlignment:
    """Partners of one domain's nodes of a kind among the other domain's nodes of the same kind.

    Attributes:
        pair: the domains.
        kind: user, item or mixed.
        source: 0 or 1, the domain whose nodes get partners.
        join: of both domains' groups of equal vectors.
        best: the best groups of each group.
    """

    pair: DomainPair
    kind: str
    source: int
    join: Join
    best: TopK

    def table(self, nodes: tuple[DomainNodes, DomainNodes]) -> tuple[pa.Table, PairCoverage]:
        """The pairs, sorted by source node and rank, and their coverage."""
        settings, source, target = self.pair.settings, nodes[self.source], nodes[1 - self.source]
        groups = (self.pair.folder / self.kind / "groups").arrays()
        group_of, group_of_target = groups[str(self.source)], groups[str(1 - self.source)]
        same = _same_entity(*(entity_keys(nodes)[_range_of_kind(self.kind, nodes)] for nodes in (source, target)))
        identity = same if settings.identity else np.full_like(same, -1)
        partners = TopK.build_empty(same.size, settings.k)
        targets_by_group = rows_by_group(group_of_target, self.join.rows[1 - self.source])
        expand_groups(group_of, tuple(self.best), targets_by_group, identity, tuple(partners))
        starts = _range_of_kind(self.kind, source).start, _range_of_kind(self.kind, target).start
        checked_nodes, checked_best, checked_loss = self._check(group_of)
        coverage = PairCoverage(
            source_domain=source.domain,
            target_domain=target.domain,
            kind=self.kind,
            shared_anchors=self.join.columns,
            nodes=int(same.size),
            nodes_with_shared_reach=int(np.count_nonzero(group_of >= 0)),
            nodes_paired=int(np.count_nonzero(partners.similarities[:, 0])),
            identity_pairs=int(np.count_nonzero(identity >= 0)),
            mean_best_similarity=_mean_best(partners),
            method="candidates" if self.join.candidates else "exact",
            checked_nodes=checked_nodes,
            checked_best=checked_best,
            checked_loss=checked_loss,
        )
        return _pairs_table(source.users, starts, partners, identity), coverage

    def _check(self, group_of: Ints) -> tuple[int, int, float]:
        """The size of a sample of nodes, how often the best vector was found, and the similarity lost otherwise."""
        name = (*self.pair.domains, str(self.source), self.kind)
        draw = np.random.Generator(np.random.Philox(name_seed(self.pair.settings.seed, *name)))
        grouped = group_of[group_of >= 0]
        size = min(grouped.size, round(self.pair.checked_share * group_of.size))
        sample = grouped[np.sort(draw.choice(grouped.size, size, replace=False))]
        lost = np.maximum(self.join.largest_products(self.source, sample) - self.best.similarities[sample, 0], 0.0)
        return int(size), int(np.count_nonzero(lost <= _SAME)), round(float(lost.sum()), 6)


DirectedTables = list[tuple[pa.Table, list[PairCoverage]]]
"""The pairs of two domains from the first and from the second, with their coverage by kind."""


def pair_tables(pair: DomainPair, joins: dict[str, Join]) -> DirectedTables:
    """The pairs of two domains, once all chunks are joined."""
    nodes = pair.open_domain(0).nodes, pair.open_domain(1).nodes
    best = {kind: join.best() for kind, join in joins.items()}
    tables = []
    for source in (0, 1):
        alignments = (DirectedAlignment(pair, kind, source, join, best[kind][source]) for kind, join in joins.items())
        by_kind = [alignment.table(nodes) for alignment in alignments]
        tables.append((pa.concat_tables([table for table, _ in by_kind]), [coverage for _, coverage in by_kind]))
    return tables


def align_domain_pair(
    pair: DomainPair, run: Callable[[Callable[[JoinChunk], None], Sequence[JoinChunk]], Iterable[None]] = map
) -> DirectedTables:
    """The pairs of two domains from their vectors; `run` calls a function on each chunk."""
    joins = prepare_joins(pair)
    for _ in run(join_chunk, [chunk for join in joins.values() for chunk in join.chunks()]):
        pass
    return pair_tables(pair, joins)


def finish_pair(work: tuple[StoredDomainPair, dict[str, Join]]) -> None:
    """Write the pairs of two domains in both directions, and then their coverage, once all chunks are joined."""
    pair, joins = work
    coverage, written = [], []
    for source, (table, by_kind) in enumerate(pair_tables(pair, joins)):
        path, target = pair.table_path(source), pair.domains[1 - source]
        coverage += by_kind
        path.unlink(missing_ok=True)
        if table.num_rows:
            names = pa.repeat(pa.scalar(target), table.num_rows)
            rows = table.append_column("target_domain", names)
            write_checked(PAIRS, rows, path, f"pairs of {pair.domains[source]} and {target}")
            written.append(path)
    flush_all(written)
    write_reports({pair.report_path: (coverage, written)})


def _range_of_kind(kind: str, nodes: DomainNodes) -> slice:
    return nodes.range_of_kind(kind) if kind in KINDS else slice(0, nodes.entity.size)


def entity_keys(nodes: DomainNodes) -> Longs:
    """int64 [nodes], equal for the same user or item of two domains and for nothing else."""
    keys = nodes.entity.astype(np.int64)
    keys[nodes.users :] += 1 << 32
    return keys


def _same_entity(source: Longs, target: Longs) -> Ints:
    """int32 [source], the index of each source entity among the target's, -1 where it is not in that domain."""
    same = np.full(source.size, -1, np.int32)
    _, in_source, in_target = np.intersect1d(source, target, assume_unique=True, return_indices=True)
    same[in_source] = in_target
    return same


def _pairs_table(users: int, starts: tuple[int, int], partners: TopK, identity: Ints) -> pa.Table:
    """Rows of one kind: identity pairs as rank 0, then partners by rank, within ascending source nodes.

    Args:
        users: source nodes below it are users.
        starts: the first node of the kind in the source and in the target domain.
        partners: of each node of the kind, counted from its first.
        identity: for each node the same user or item, counted likewise; -1 for none.
    """
    identical = np.flatnonzero(identity >= 0)
    owner, column = np.nonzero(partners.similarities)
    source = np.concatenate([identical, owner]) + starts[0]
    rank = np.concatenate([np.zeros(identical.size, np.int64), column + 1])
    target = np.concatenate([identity[identical], partners.ids[owner, column]]) + starts[1]
    similarity = np.concatenate([np.ones(identical.size, np.float32), partners.similarities[owner, column]])
    order = np.lexsort((rank, source))
    return pa.table(
        {
            "source_node": pa.array(source[order].astype(np.int32)),
            "target_node": pa.array(target[order].astype(np.int32)),
            "kind": pc.if_else(pa.array(source[order] < users), USER, ITEM),
            "similarity": pa.array(similarity[order]),
            "rank": pa.array(rank[order].astype(np.int32)),
            "identity": pa.array(rank[order] == 0),
        }
    )


def _mean_best(partners: TopK) -> float | None:
    best = partners.similarities[:, 0]
    return round(float(best[best > 0].mean(dtype=np.float64)), 4) if best.any() else None


def larger_first(nodes: DomainNodes) -> tuple[int, str]:
    """Key that sorts the larger domain first: a join holds as many sums at a time as its second domain has rows."""
    return -nodes.entity.size, nodes.domain
