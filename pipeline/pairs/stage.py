"""Pairs: for every node its most similar nodes in each other domain, by the anchors both reach.

    reach of domain s ─┐ anchors that both      unit rows, equal rows  ┌ sparse: inverted index ┐ top-k
    reach of domain t ─┘ domains share      →   joined once        →   └ dense: matrix blocks   ┘  → pairs, both ways

Differs: the released code takes only users as anchors, lets users pair with items, and "aligns" nodes without any
reach to an arbitrary node; here users pair with items where `pairs.kinds` is "mixed" only, and zero similarity is never
a pair.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.contracts import PAIRS
from data_contracts.progress import Progress, after, silent
from data_contracts.settings import ComputeSettings, PairsSettings
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.fan_out import bounded_ranges, fan_out
from pipeline.compute.scratch import is_small
from pipeline.pairs.domain_pair import (
    FiledPair,
    _larger_first,
    finish_pair,
    finish_small_pairs,
    prepare_joins,
)
from pipeline.pairs.domain_vectors import spill_side, spilled_side
from pipeline.pairs.incremental import UnchangedDomains
from pipeline.pairs.join import join_chunk

_BYTES_PER_ENTRY = 32
"""Of a pair's reach vectors: both sides' unit rows, their transposes, and copies of some of them."""


def pair_domains(
    store: Store,
    settings: PairsSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> Artifact:
    """Pair the nodes of every ordered pair of domains.

    Domain pairs are taken in batches that fit into memory; chunks of their nodes are joined side by side and kept, so
    that an interrupted attempt loses no more than the chunks at hand.

    Args:
        store: where the artifact lives.
        settings: partners per node and their kinds, identity pairs, when to compare exactly.
        parents: `nodes` and `reach`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: told after each chunk of nodes.
        previous: earlier `nodes`, `reach` and `pairs`; pairs of domains that did not change since are copied.

    Returns:
        A `pairs` artifact; two domains that share no anchor have a partition without rows. Its statistics hold the
        coverage by domain pair and kind (`mixed`: of both), how often the best partner of a sample of nodes was found,
        and how many pairs of domains were copied.
    """

    def write(draft: Draft) -> None:
        unchanged = UnchangedDomains.of(previous, parents, settings)
        every, entries = _spill_sides(draft, settings, parents, compute)
        pairs = [pair for pair in every if not unchanged.has(pair.domains)]
        entries = entries[[not unchanged.has(pair.domains) for pair in every]]
        coverage = [row for pair in every if unchanged.has(pair.domains) for row in unchanged.coverage(pair.domains)]
        done, total = 0, sum(pair.nodes for pair in pairs)
        for batch in bounded_ranges(entries, (compute.memory_mib << 20) // _BYTES_PER_ENTRY):
            of_batch = pairs[batch.start : batch.stop]
            coverage += _align(of_batch, compute, after(progress, done, total))
            done += sum(pair.nodes for pair in of_batch)
            progress(done, total, "nodes")
        for pair in every:
            for source, ends in enumerate((pair.domains, pair.domains[::-1])):
                files = unchanged.files(*ends) if unchanged.has(pair.domains) else [pair.table_path(source)]
                for path in files:
                    draft.adopt(path, source_domain=ends[0], target_domain=ends[1])
        copied = {"pairs_of_domains": len(every), "copied": len(every) - len(pairs)}
        draft.statistics |= {"coverage": coverage, "checked": _checked(coverage), **copied}

    return store.make(PAIRS, settings.keyed(), parents, write)


def _spill_sides(
    draft: Draft, settings: PairsSettings, parents: Mapping[str, Artifact], compute: ComputeSettings
) -> tuple[list[FiledPair], npt.NDArray[np.int64]]:
    """Every two domains, the larger one first, their sides in files, and how many entries these have."""
    domains = [partition["domain"] for partition in parents["nodes"].partitions()]
    folders = {domain: draft.scratch / "sides" / str(number) for number, domain in enumerate(domains)}
    fan_out(_spill_side, [(parents["nodes"], parents["reach"], *item) for item in folders.items()], compute)
    sides = {domain: spilled_side(domain, folder) for domain, folder in folders.items()}
    nodes = {domain: side.nodes.entity.size for domain, side in sides.items()}
    share = settings.checked_nodes / max(1, sum(nodes.values()) * (len(domains) - 1))
    ordered = sorted(domains, key=lambda domain: _larger_first(sides[domain].nodes))
    pairs = [
        FiledPair(
            domains=ends,
            sides=(folders[ends[0]], folders[ends[1]]),
            nodes=nodes[ends[0]] + nodes[ends[1]],
            folder=draft.scratch / "pairs" / str(number),
            settings=settings,
            checked_share=share,
        )
        for number, ends in enumerate(combinations(ordered, 2))
    ]
    entries = [sum(sides[domain].rows.indices.size for domain in pair.domains) for pair in pairs]
    return pairs, np.array(entries, np.int64)


def _spill_side(arguments: tuple[Artifact, Artifact, str, Path]) -> None:
    spill_side(*arguments)


def _align(batch: Sequence[FiledPair], compute: ComputeSettings, progress: Progress) -> list[dict[str, Any]]:
    """Align the domain pairs of a batch, those that an earlier attempt finished excepted; returns their coverage."""
    unfinished = [pair for pair in batch if not pair.report_path.exists()]
    small, large = ([pair for pair in unfinished if is_small(pair.nodes) is small] for small in (True, False))
    groups = [list(group) for _, group in groupby(small, key=lambda pair: pair.domains[0])]
    nodes, total = [sum(pair.nodes for pair in group) for group in groups], sum(pair.nodes for pair in unfinished)
    names = [" and ".join(group[0].domains) + ", …" * (len(group) > 1) for group in groups]
    fan_out(finish_small_pairs, groups, compute, after(progress, 0, total), "nodes", nodes, names)
    _align_by_chunks(large, compute, after(progress, sum(nodes), total))
    return [row for pair in batch for row in json.loads(pair.report_path.read_text())]


def _align_by_chunks(pairs: Sequence[FiledPair], compute: ComputeSettings, progress: Progress) -> None:
    joins = fan_out(prepare_joins, pairs, compute)
    chunks, sizes, names = [], [], []
    for pair, of_pair in zip(pairs, joins, strict=True):
        parts = [chunk for join in of_pair.values() for chunk in join.chunks()]
        rows = sum(len(chunk.rows) for chunk in parts)
        chunks += parts
        sizes += [pair.nodes * len(chunk.rows) // rows for chunk in parts]
        names += [" and ".join(pair.domains)] * len(parts)
    fan_out(join_chunk, chunks, compute, progress, "nodes", sizes, names)
    fan_out(finish_pair, list(zip(pairs, joins, strict=True)), compute)
    for pair in pairs:
        for join in pair.join_folders:
            shutil.rmtree(join)


def _checked(coverage: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """How often the best vector of the checked nodes was found, and the mean similarity lost."""
    nodes, best, lost = (sum(row[f"checked_{name}"] for row in coverage) for name in ("nodes", "best", "loss"))
    shares = {"recall_at_1": round(best / nodes, 5), "mean_regret": round(lost / nodes, 7)} if nodes else {}
    return {"nodes": nodes, **shares}
