"""Pairs: for every node its most similar nodes in each other domain, by the anchors that both reach.

    reach of domain s ─┐ anchors that both      unit rows, equal rows  ┌ sparse: inverted index ┐ top-k
    reach of domain t ─┘ domains share      →   joined once        →   └ dense: matrix blocks   ┘  → pairs, both ways

Differs: the released code takes only users as anchors, lets users pair with items, and "aligns" nodes without any
reach to an arbitrary node; here users pair with items only where `pairs.kinds` is "mixed", and nodes of zero similarity
are never a pair.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import COVERAGE_FILE, PAIRS, USER
from data_contracts.progress import Progress, offset_progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import PairsSettings
from data_contracts.statistics import PairCoverage, PairsCheck, PairsStatistics, columns_of_coverage
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays, is_small
from pipeline.compute.dtypes import Longs
from pipeline.compute.fan_out import TaskProgress, bounded_ranges, fan_out
from pipeline.compute.scratch import read_report
from pipeline.graph import DomainNodes, read_nodes
from pipeline.pairs.domain_pair import StoredDomainPair, entity_keys, finish_pair, larger_first, prepare_joins
from pipeline.pairs.domain_vectors import open_vectors, store_vectors
from pipeline.pairs.incremental import ReusedPairs
from pipeline.pairs.join import join_chunk
from pipeline.pairs.shuffled import shuffle_partners
from pipeline.pairs.small_domains import SmallDomains, SmallSources, pair_small_domains

log = logging.getLogger(__name__)

_NODES_PER_TASK = 4096
"""Of small domains, which one task compares with all small ones."""

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
    """Pair the nodes of every ordered pair of domains that have a user or an item in common.

    Small domains are compared with all others at once. Pairs of larger ones are taken in batches that fit into memory;
    chunks of their nodes are joined in parallel. All of these are kept, so that an interrupted attempt loses no more
    than the chunks in progress.

    Args:
        store: where the artifact lives.
        settings: partners per node and their kinds, identity pairs, when to compare exactly; shuffled: the pairs are
            made as without it, kept, and their partners dealt anew.
        parents: `nodes` and `reach`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: called after each chunk of nodes.
        previous: earlier `nodes`, `reach` and `pairs`; pairs of larger domains that did not change since are copied.

    Returns:
        A `pairs` artifact. `coverage.json` has the coverage by domain pair and kind (`mixed`: of both); the statistics,
        how often the best partner of a sample of nodes of larger domains was found, and how many pairs of domains were
        copied, which small ones never are.
    """
    if settings.shuffled:
        similar = settings.model_copy(update={"shuffled": False})
        pairs = pair_domains(store, similar, parents, compute, progress, previous)
        return store.make(PAIRS, settings.keyed(), parents, partial(shuffle_partners, pairs=pairs, seed=settings.seed))

    def write(draft: Draft) -> None:
        reused = ReusedPairs.find(previous, parents, settings)
        domains = [read_nodes(parents["nodes"], partition["domain"]) for partition in parents["nodes"].partitions()]
        tasks = _compare_small_domains(draft, domains, parents["reach"], settings)
        pairs, entries = _store_large_pairs(draft, domains, parents, settings, compute)
        is_reused = np.array([reused.includes(pair.domains) for pair in pairs], np.bool_)
        new = [pair for pair, copied in zip(pairs, is_reused, strict=True) if not copied]
        coverage = [row for pair in pairs if reused.includes(pair.domains) for row in reused.coverage(pair.domains)]
        sizes = [task.nodes for task in tasks]
        done, total = sum(sizes), sum(sizes) + sum(pair.nodes for pair in new)
        report = TaskProgress(offset_progress(progress, 0, total), "nodes", sizes)
        coverage += chain.from_iterable(fan_out(pair_small_domains, tasks, compute, report))
        for batch in bounded_ranges(entries[~is_reused], (compute.memory_mib << 20) // _BYTES_PER_ENTRY):
            pairs_of_batch = new[batch.start : batch.stop]
            coverage += _align(pairs_of_batch, compute, offset_progress(progress, done, total))
            done += sum(pair.nodes for pair in pairs_of_batch)
            progress(done, total, "nodes")
        _adopt(draft, tasks, pairs, reused)
        if not coverage:
            names = [nodes.domain for nodes in domains]
            log.warning("there is nothing to align: %s", _describe_lack(names))
        _write_coverage(draft, coverage, len(pairs) - len(new))

    return store.make(PAIRS, settings.keyed(), parents, write)


def _describe_lack(domains: Sequence[str]) -> str:
    """Why no two domains have anything in common."""
    if len(domains) == 1:
        return f"{domains[0]} is the only domain"
    return f"no two of the {len(domains)} domains have a user or item in common; do the logs name them alike?"


def _compare_small_domains(
    draft: Draft, domains: Sequence[DomainNodes], reach: Artifact, settings: PairsSettings
) -> list[SmallSources]:
    """Tasks that compare small domains with each other."""
    small = [nodes for nodes in domains if is_small(nodes.entity.size)]
    if len(small) < 2:
        return []
    stored = SmallDomains.store(small, reach, DiskArrays(draft.scratch / "small-domains"), settings)
    blocks = bounded_ranges(np.diff(stored.starts), _NODES_PER_TASK)
    return [SmallSources(stored, block, draft.scratch / "small-pairs" / str(block.start)) for block in blocks]


def _store_large_pairs(
    draft: Draft,
    domains: Sequence[DomainNodes],
    parents: Mapping[str, Artifact],
    settings: PairsSettings,
    compute: ComputeSettings,
) -> tuple[list[StoredDomainPair], Longs]:
    """The other pairs of domains with a common user or item, the larger domain first, and their vectors' entries."""
    by_name = {nodes.domain: nodes for nodes in sorted(domains, key=larger_first)}
    all_ends = combinations(by_name, 2)
    large = [ends for ends in all_ends if not is_small(sum(by_name[domain].entity.size for domain in ends))]
    ends_of_pairs = _with_common_entities(large, by_name)
    used = [domain for domain in by_name if any(domain in ends for ends in ends_of_pairs)]
    folders = {domain: DiskArrays(draft.scratch / "vectors" / str(number)) for number, domain in enumerate(used)}
    fan_out(_store_vectors, [(parents["nodes"], parents["reach"], *item) for item in folders.items()], compute)
    vectors = {domain: open_vectors(domain, folder) for domain, folder in folders.items()}
    share = settings.checked_nodes / max(1, sum(nodes.entity.size for nodes in domains) * (len(domains) - 1))
    pairs = [
        StoredDomainPair(
            domains=ends,
            vectors=(folders[ends[0]], folders[ends[1]]),
            nodes=sum(by_name[domain].entity.size for domain in ends),
            folder=DiskArrays(draft.scratch / "pairs" / str(number)),
            settings=settings,
            checked_share=share,
        )
        for number, ends in enumerate(ends_of_pairs)
    ]
    entries = [sum(vectors[domain].rows.indices.size for domain in pair.domains) for pair in pairs]
    return pairs, np.array(entries, np.int64)


def _with_common_entities(
    pairs: Sequence[tuple[str, str]], domains: Mapping[str, DomainNodes]
) -> list[tuple[str, str]]:
    """Those of the pairs of domains in which some user or item lives in both."""
    used = sorted({domain for ends in pairs for domain in ends})
    if not used:
        return []
    keys = [entity_keys(domains[domain]) for domain in used]
    _, columns = np.unique(np.concatenate(keys), return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum([of_domain.size for of_domain in keys])])
    lives = sp.csr_array((np.ones(columns.size, np.int32), columns, indptr))
    common = (lives @ lives.T).tocsr()
    number = {domain: position for position, domain in enumerate(used)}
    return [ends for ends in pairs if common[number[ends[0]], number[ends[1]]]]


def _store_vectors(arguments: tuple[Artifact, Artifact, str, DiskArrays]) -> None:
    nodes, reach, domain, folder = arguments
    store_vectors(nodes, reach, domain, folder)


def _align(batch: Sequence[StoredDomainPair], compute: ComputeSettings, progress: Progress) -> list[PairCoverage]:
    """Align the domain pairs of a batch that no earlier attempt finished; returns the coverage of all."""
    paths = [pair.report_path for pair in batch]
    reports: dict[Path, Any] = dict(zip(paths, fan_out(read_report, paths, compute), strict=True))
    unfinished = [pair for pair in batch if reports[pair.report_path] is None]
    _align_by_chunks(unfinished, compute, progress)
    reports |= {pair.report_path: read_report(pair.report_path) for pair in unfinished}
    return [row for path in paths for row in reports[path]]


def _adopt(draft: Draft, tasks: Sequence[SmallSources], pairs: Sequence[StoredDomainPair], reused: ReusedPairs) -> None:
    """Take the files of all pairs into the artifact: for each source one with all small targets, one for each other."""
    files: dict[tuple[str, str], Path | None] = {}
    for task in tasks:
        files |= {(task.domains.names[source], ""): task.table_path(source) for source in task.sources}
    for pair in pairs:
        for source, ends in enumerate((pair.domains, pair.domains[::-1])):
            files[ends] = reused.file(*ends) if reused.includes(pair.domains) else pair.table_path(source)
    for (source_domain, _), path in sorted(files.items()):
        if path is not None and path.exists():
            draft.adopt(path, source_domain=source_domain)


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


def _write_coverage(draft: Draft, coverage: list[PairCoverage], copied: int) -> None:
    """Write the coverage in the order of its domains, and the statistics that follow from it."""
    coverage.sort(key=lambda row: (row["source_domain"], row["target_domain"], row["kind"] != USER))
    (draft.folder / COVERAGE_FILE).write_text(json.dumps(columns_of_coverage(coverage)))
    draft.statistics |= PairsStatistics(
        checked=_summarise_checks(coverage),
        pairs_of_domains=len({frozenset((row["source_domain"], row["target_domain"])) for row in coverage}),
        copied=copied,
    )


def _summarise_checks(coverage: Sequence[PairCoverage]) -> PairsCheck:
    """How often the best partner of the checked nodes was found, and the mean similarity lost."""
    nodes = sum(row["checked_nodes"] for row in coverage)
    if not nodes:
        return PairsCheck(nodes=nodes)
    best, lost = sum(row["checked_best"] for row in coverage), sum(row["checked_loss"] for row in coverage)
    return PairsCheck(nodes=nodes, recall_at_1=round(best / nodes, 5), mean_regret=round(lost / nodes, 7))
