"""Pairs of small domains: each domain is compared with all other small ones at once.

Hundreds of domains make tens of thousands of pairs of domains, and what one of these costs beside its products would be
most of the work. The rows have the bits that the join of two domains gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ITEM, KINDS, PAIRS, USER
from data_contracts.settings.preparation import PairsSettings
from data_contracts.statistics import PairCoverage
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import flush_all, write_checked
from pipeline.compute.array_folder import DiskArrays, is_small
from pipeline.compute.dtypes import Array, Floats32, Ints, Longs, Mask
from pipeline.compute.rows import CsrRows, ragged_arrays
from pipeline.compute.scratch import read_report, write_reports
from pipeline.graph import DomainNodes
from pipeline.pairs.domain_pair import entity_keys
from pipeline.pairs.small_kernels import best_of_all_domains, sum_squares

_VECTOR = ["anchors", "weights"]


class _NodePairs(NamedTuple):
    """Pairs of nodes, which are numbered over all small domains.

    Attributes:
        source, target: int32 [n], nodes.
        similarity: float32 [n].
        rank: int32 [n], 0 for the same user or item.
    """

    source: Ints
    target: Ints
    similarity: Floats32
    rank: Ints

    def take(self, chosen: Array) -> Self:
        """Those chosen, in this order."""
        return type(self)(self.source[chosen], self.target[chosen], self.similarity[chosen], self.rank[chosen])


@dataclass(frozen=True)
class SmallDomains:
    """Nodes and vectors of small domains, in a folder that every process sees.

    Attributes:
        names: ascending; a domain's number is its position.
        folder: of the arrays.
        settings: of the stage.
    """

    names: tuple[str, ...]
    folder: DiskArrays
    settings: PairsSettings

    @classmethod
    def store(
        cls, domains: Sequence[DomainNodes], reach: Artifact, folder: DiskArrays, settings: PairsSettings
    ) -> SmallDomains:
        """Write the domains to a folder, unless an earlier attempt did."""
        ordered = sorted(domains, key=lambda nodes: nodes.domain)
        if not folder.exists():
            folder.write_arrays(**_build_arrays(ordered, reach))
        return cls(tuple(nodes.domain for nodes in ordered), folder, settings)

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return self.folder.arrays()

    @property
    def starts(self) -> Longs:
        """int64 [domains + 1], each domain's first node among those of all."""
        return self._arrays["starts"]

    def node_range(self, domain: int) -> range:
        """A domain's nodes."""
        start, stop = self.starts[domain : domain + 2].tolist()
        return range(start, stop)

    def tables(self, source: int) -> tuple[pa.Table, list[PairCoverage]]:
        """The pairs from one domain to all others, by target domain, source node and rank, and their coverage."""
        sizes = np.diff(self.starts)
        is_target = np.array([is_small(int(size + sizes[source])) for size in sizes])
        is_target[source] = False
        same = self._same_entities(source)
        same = same.take(is_target[self._arrays["domain_of"][same.target]])
        blocks, coverage = ([same] if self.settings.identity else []), list[PairCoverage]()
        for kind in KINDS if self.settings.kinds == "apart" else (self.settings.kinds,):
            partners, reaching = self._partners(source, kind, is_target)
            blocks.append(partners)
            coverage += self._coverage((source, kind), partners, same, reaching)
        return self._table(source, _NodePairs(*map(np.concatenate, zip(*blocks, strict=True)))), coverage

    def _same_entities(self, source: int) -> _NodePairs:
        """The source's nodes with the same user or item in other small domains."""
        arrays, sources = self._arrays, self.node_range(source)
        entity = arrays["entity"][sources.start : sources.stop]
        first = arrays["nodes_of_entity-starts"][entity]
        lengths = arrays["nodes_of_entity-starts"][entity + 1] - first
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        targets = arrays["nodes_of_entity-nodes"][np.repeat(first, lengths) + offsets]
        number = targets.size
        return _NodePairs(
            np.repeat(np.arange(sources.start, sources.stop, dtype=np.int32), lengths),
            targets,
            np.ones(number, np.float32),
            np.zeros(number, np.int32),
        )

    def _of_kind(self, nodes: Ints, kind: str) -> Mask:
        """Which nodes are of a kind: user, item, or `mixed` for all."""
        is_item = self._arrays["is_item"][nodes]
        return is_item == (kind == ITEM) if kind in KINDS else np.ones(nodes.size, np.bool_)

    def _partners(self, source: int, kind: str, is_target: Mask) -> tuple[_NodePairs, Longs]:
        """The most similar nodes of a kind, and how many sources have a vector over the anchors shared with each."""
        arrays, nodes = self._arrays, self.node_range(source)
        sources = np.arange(nodes.start, nodes.stop, dtype=np.int32)
        postings = tuple(arrays[f"{kind}_postings-{name}"] for name in ("starts", "nodes", "weights"))
        domains_of_anchor = arrays["anchors-starts"], arrays["anchors-domains"]
        is_anchor = arrays["is_anchor"][nodes.start : nodes.stop]
        squares = np.zeros(arrays["entity"].size)
        sum_squares(arrays["entity"][nodes.start : nodes.stop][is_anchor], postings, squares)
        *columns, reaching = best_of_all_domains(
            (arrays["indptr"], arrays["columns"], arrays["weights"]),
            sources[self._of_kind(sources, kind)],
            postings,
            (arrays["domain_of"], domains_of_anchor, is_target),
            np.sqrt(squares),
            (arrays["entity"], self.settings.identity),
            self.settings.k,
        )
        return _NodePairs(*columns), reaching

    def _coverage(
        self, source_and_kind: tuple[int, str], partners: _NodePairs, same: _NodePairs, reaching: Longs
    ) -> Iterator[PairCoverage]:
        """The coverage of each domain that shares a user or an item with the source."""
        (source, kind), arrays, domains = source_and_kind, self._arrays, len(self.names)
        nodes = self.node_range(source)
        domain_of, is_anchor = arrays["domain_of"], arrays["is_anchor"]
        best = partners.take(partners.rank == 1)
        paired = np.bincount(domain_of[best.target], minlength=domains)
        similarity = np.bincount(domain_of[best.target], best.similarity, minlength=domains)
        identical = np.bincount(domain_of[same.target[self._of_kind(same.source, kind)]], minlength=domains)
        shared = same.target[is_anchor[same.source] & is_anchor[same.target]]
        anchors = np.bincount(domain_of[shared], minlength=domains)
        size = int(self._of_kind(np.arange(nodes.start, nodes.stop, dtype=np.int32), kind).sum())
        for target in np.unique(domain_of[same.target]).tolist():
            yield PairCoverage(
                source_domain=self.names[source],
                target_domain=self.names[target],
                kind=kind,
                shared_anchors=int(anchors[target]),
                nodes=size,
                nodes_with_shared_reach=int(reaching[target]),
                nodes_paired=int(paired[target]),
                identity_pairs=int(identical[target]) if self.settings.identity else 0,
                mean_best_similarity=round(float(similarity[target] / paired[target]), 4) if paired[target] else None,
                method="exact",
                checked_nodes=0,
                checked_best=0,
                checked_loss=0.0,
            )

    def _table(self, source: int, pairs: _NodePairs) -> pa.Table:
        arrays = self._arrays
        pairs = pairs.take(np.lexsort((pairs.rank, pairs.source, arrays["domain_of"][pairs.target])))
        target_domain = arrays["domain_of"][pairs.target]
        return pa.table(
            {
                "target_domain": pa.array(self.names, pa.string()).take(pa.array(target_domain)),
                "source_node": (pairs.source - self.starts[source]).astype(np.int32),
                "target_node": (pairs.target - self.starts[target_domain]).astype(np.int32),
                "kind": pc.if_else(pa.array(arrays["is_item"][pairs.source]), ITEM, USER),
                "similarity": pairs.similarity,
                "rank": pairs.rank,
                "identity": pairs.rank == 0,
            }
        )


def _build_arrays(domains: Sequence[DomainNodes], reach: Artifact) -> dict[str, Array]:
    """Nodes of all domains, one after another, with their vectors by node and by anchor; entities are numbered anew."""
    starts = np.concatenate([[0], np.cumsum([nodes.entity.size for nodes in domains])])
    domain_of = np.repeat(np.arange(len(domains), dtype=np.int32), np.diff(starts))
    is_item = np.concatenate([np.arange(nodes.entity.size) >= nodes.users for nodes in domains])
    distinct, entity = np.unique(np.concatenate([entity_keys(nodes) for nodes in domains]), return_inverse=True)
    is_anchor = np.concatenate([nodes.is_anchor for nodes in domains])
    anchors = np.flatnonzero(is_anchor)
    blocks = [_read_vectors(reach, nodes, int(start)) for nodes, start in zip(domains, starts[:-1], strict=True)]
    rows = CsrRows.stack(blocks)
    columns = entity[rows.indices]
    owner = np.repeat(np.arange(entity.size, dtype=np.int32), np.diff(rows.indptr))
    arrays: dict[str, Array] = {
        "starts": starts,
        "domain_of": domain_of,
        "is_item": is_item,
        "is_anchor": is_anchor,
        "entity": entity,
        "indptr": rows.indptr,
        "columns": columns,
        "weights": rows.weights,
        **_group("nodes_of_entity", entity, distinct.size, nodes=np.arange(entity.size, dtype=np.int32)),
        **_group("anchors", entity[anchors], distinct.size, domains=domain_of[anchors]),
    }
    for kind, chosen in ((USER, ~is_item[owner]), (ITEM, is_item[owner]), ("mixed", np.ones(owner.size, np.bool_))):
        values = {"nodes": owner[chosen], "weights": rows.weights[chosen]}
        arrays |= _group(f"{kind}_postings", columns[chosen], distinct.size, **values)
    return arrays


def _read_vectors(reach: Artifact, nodes: DomainNodes, start: int) -> CsrRows:
    """The vectors of a domain's nodes; columns are anchors, numbered over all small domains."""
    indptr, (anchors, weights) = ragged_arrays(reach.read(_VECTOR, domain=nodes.domain), _VECTOR)
    return CsrRows(indptr, anchors + np.int32(start), weights)


def _group(name: str, keys: Longs, size: int, **values: Array) -> dict[str, Array]:
    """Values by key, in their order: where those of each key start, and the values."""
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=size))])
    return {f"{name}-starts": starts, **{f"{name}-{key}": array[order] for key, array in values.items()}}


@dataclass(frozen=True)
class SmallSources:
    """Consecutive small domains to be compared with all small ones, by one task.

    Attributes:
        domains: all of them.
        sources: numbers of those to compare.
        folder: for their pairs, a file for each that has any.
    """

    domains: SmallDomains
    sources: range
    folder: Path

    @property
    def nodes(self) -> int:
        """Of the sources."""
        return int(self.domains.starts[self.sources.stop] - self.domains.starts[self.sources.start])

    @property
    def report_path(self) -> Path:
        """File of the coverage, written last."""
        return self.folder / "coverage.json"

    def table_path(self, source: int) -> Path:
        """File of the pairs from a domain."""
        return self.folder / f"from-{source}.parquet"


def pair_small_domains(task: SmallSources) -> list[PairCoverage]:
    """Write the pairs of a task's domains, unless an earlier attempt did; returns their coverage."""
    coverage: list[PairCoverage] | None = read_report(task.report_path)
    if coverage is not None:
        return coverage
    task.folder.mkdir(parents=True, exist_ok=True)
    coverage, written = [], []
    for source in task.sources:
        path = task.table_path(source)
        path.unlink(missing_ok=True)
        table, of_source = task.domains.tables(source)
        coverage += of_source
        if table.num_rows:
            write_checked(PAIRS, table, path, f"pairs of {task.domains.names[source]}")
            written.append(path)
    flush_all(written)
    write_reports({task.report_path: (coverage, written)})
    return coverage
