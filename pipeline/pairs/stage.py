"""Pairs: for every node its most similar nodes in each other domain, by the anchors that both reach.

    reach of domain s ─┐ anchors that both      unit rows, equal rows  ┌ sparse: inverted index ┐ top-k
    reach of domain t ─┘ domains share      →   joined once        →   └ dense: matrix blocks   ┘  → pairs, both ways

Differs: the released code takes only users as anchors, lets users pair with items, and "aligns" nodes without any
reach to an arbitrary node; here users pair with items only where `pairs.kinds` is "mixed", and nodes of zero similarity
are never a pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.contracts import PAIRS
from data_contracts.progress import Progress, offset_progress, silent
from data_contracts.settings import ComputeSettings, PairsSettings
from data_contracts.statistics import PairCoverage, PairsCheck, PairsStatistics
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays, is_small
from pipeline.compute.dtypes import Longs
from pipeline.compute.fan_out import TaskProgress, bounded_ranges, fan_out
from pipeline.compute.scratch import read_report
from pipeline.pairs.domain_pair import StoredDomainPair, align_small_pairs, finish_pair, larger_first, prepare_joins
from pipeline.pairs.domain_vectors import open_vectors, store_vectors
from pipeline.pairs.incremental import ReusedPairs
from pipeline.pairs.join import join_chunk

_BYTES_PER_ENTRY = 32
"""Of the reach vectors of two domains: their unit rows, the transposes of these, and copies of some of them."""


def pair_domains(
    store: Store,
    settings: PairsSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> Artifact:
    """Pair the nodes of every ordered pair of domains.

    Domain pairs are taken in batches that fit into memory; chunks of their nodes are joined in parallel and kept, so
    that an interrupted attempt loses no more than the chunks in progress.

    Args:
        store: where the artifact lives.
        settings: partners per node and their kinds, identity pairs, when to compare exactly.
        parents: `nodes` and `reach`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: called after each chunk of nodes.
        previous: earlier `nodes`, `reach` and `pairs`; pairs of domains that did not change since are copied.

    Returns:
        A `pairs` artifact; two domains that share no anchor have a partition without rows. Its statistics hold the
        coverage by domain pair and kind (`mixed`: of both), how often the best partner of a sample of nodes was found,
        and how many pairs of domains were copied.
    """

    def write(draft: Draft) -> None:
        reused = ReusedPairs.find(previous, parents, settings)
        pairs, entries = _store_domains(draft, settings, parents, compute)
        is_reused = np.array([reused.includes(pair.domains) for pair in pairs], np.bool_)
        new = [pair for pair, copied in zip(pairs, is_reused, strict=True) if not copied]
        coverage = [row for pair in pairs if reused.includes(pair.domains) for row in reused.coverage(pair.domains)]
        done, total = 0, sum(pair.nodes for pair in new)
        for batch in bounded_ranges(entries[~is_reused], (compute.memory_mib << 20) // _BYTES_PER_ENTRY):
            pairs_of_batch = new[batch.start : batch.stop]
            coverage += _align(pairs_of_batch, compute, offset_progress(progress, done, total))
            done += sum(pair.nodes for pair in pairs_of_batch)
            progress(done, total, "nodes")
        for pair in pairs:
            for source, ends in enumerate((pair.domains, pair.domains[::-1])):
                files = reused.files(*ends) if reused.includes(pair.domains) else [pair.table_path(source)]
                for path in files:
                    draft.adopt(path, source_domain=ends[0], target_domain=ends[1])
        draft.statistics |= PairsStatistics(
            coverage=coverage,
            checked=_summarise_checks(coverage),
            pairs_of_domains=len(pairs),
            copied=len(pairs) - len(new),
        )

    return store.make(PAIRS, settings.keyed(), parents, write)


def _store_domains(
    draft: Draft, settings: PairsSettings, parents: Mapping[str, Artifact], compute: ComputeSettings
) -> tuple[list[StoredDomainPair], Longs]:
    """All pairs of domains, the larger one first, their vectors in files, and how many entries these have."""
    domains = [partition["domain"] for partition in parents["nodes"].partitions()]
    folders = {domain: DiskArrays(draft.scratch / "vectors" / str(number)) for number, domain in enumerate(domains)}
    fan_out(_store_vectors, [(parents["nodes"], parents["reach"], *item) for item in folders.items()], compute)
    vectors = {domain: open_vectors(domain, folder) for domain, folder in folders.items()}
    nodes = {domain: opened.nodes.entity.size for domain, opened in vectors.items()}
    share = settings.checked_nodes / max(1, sum(nodes.values()) * (len(domains) - 1))
    ordered = sorted(domains, key=lambda domain: larger_first(vectors[domain].nodes))
    pairs = [
        StoredDomainPair(
            domains=ends,
            vectors=(folders[ends[0]], folders[ends[1]]),
            nodes=nodes[ends[0]] + nodes[ends[1]],
            folder=DiskArrays(draft.scratch / "pairs" / str(number)),
            settings=settings,
            checked_share=share,
        )
        for number, ends in enumerate(combinations(ordered, 2))
    ]
    entries = [sum(vectors[domain].rows.indices.size for domain in pair.domains) for pair in pairs]
    return pairs, np.array(entries, np.int64)


def _store_vectors(arguments: tuple[Artifact, Artifact, str, DiskArrays]) -> None:
    nodes, reach, domain, folder = arguments
    store_vectors(nodes, reach, domain, folder)


def _align(batch: Sequence[StoredDomainPair], compute: ComputeSettings, progress: Progress) -> list[PairCoverage]:
    """Align the domain pairs of a batch that no earlier attempt finished; returns the coverage of all."""
    paths = [pair.report_path for pair in batch]
    reports: dict[Path, Any] = dict(zip(paths, fan_out(read_report, paths, compute), strict=True))
    unfinished = [pair for pair in batch if reports[pair.report_path] is None]
    small, large = ([pair for pair in unfinished if is_small(pair.nodes) is small] for small in (True, False))
    groups = [list(group) for _, group in groupby(small, key=lambda pair: pair.domains[0])]
    nodes, total = [sum(pair.nodes for pair in group) for group in groups], sum(pair.nodes for pair in unfinished)
    names = [" and ".join(group[0].domains) + ", …" * (len(group) > 1) for group in groups]
    report = TaskProgress(offset_progress(progress, 0, total), "nodes", nodes, names)
    fan_out(align_small_pairs, groups, compute, report)
    _align_by_chunks(large, compute, offset_progress(progress, sum(nodes), total))
    reports |= {pair.report_path: read_report(pair.report_path) for pair in unfinished}
    return [row for path in paths for row in reports[path]]


def _align_by_chunks(pairs: Sequence[StoredDomainPair], compute: ComputeSettings, progress: Progress) -> None:
    joins = fan_out(prepare_joins, pairs, compute)
    chunks, sizes, names = [], [], []
    for pair, joins_of_pair in zip(pairs, joins, strict=True):
        chunks_of_pair = [chunk for join in joins_of_pair.values() for chunk in join.chunks()]
        rows = sum(len(chunk.rows) for chunk in chunks_of_pair)
        chunks += chunks_of_pair
        sizes += [pair.nodes * len(chunk.rows) // rows for chunk in chunks_of_pair]
        names += [" and ".join(pair.domains)] * len(chunks_of_pair)
    fan_out(join_chunk, chunks, compute, TaskProgress(progress, "nodes", sizes, names))
    fan_out(finish_pair, list(zip(pairs, joins, strict=True)), compute)
    for pair in pairs:
        for folder in pair.join_folders:
            folder.remove()


def _summarise_checks(coverage: Sequence[PairCoverage]) -> PairsCheck:
    """How often the best partner of the checked nodes was found, and the mean similarity lost."""
    nodes = sum(row["checked_nodes"] for row in coverage)
    if not nodes:
        return PairsCheck(nodes=nodes)
    best, lost = sum(row["checked_best"] for row in coverage), sum(row["checked_loss"] for row in coverage)
    return PairsCheck(nodes=nodes, recall_at_1=round(best / nodes, 5), mean_regret=round(lost / nodes, 7))
