"""Reach: the probability that a random walk from a node ends at each anchor of its domain, exact or sampled.

    user ── item ── user ── item ── user        P = D^-1 A, one step to a random neighbour
      └────── 3 steps ──────┘        |          from a user, 3 steps end on items, 4 on users;
      └────────── 4 steps ───────────┘          from an item the other way round

"The random walk stop count vector on the common nodes" of two domains [EDDA] is the part of this vector that lies on
the anchors which both domains share. Vectors over all anchors of a domain, computed once, serve every pair of domains.

Differs: the released code walks anew for each pair of domains, only users are anchors, and half of its walks end on
nodes that cannot be anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_contracts.contracts import REACH
from data_contracts.progress import Progress, Unit, offset_progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import ReachSettings
from data_contracts.statistics import DomainReachStatistics, ReachStatistics
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.array_folder import arrays_for
from pipeline.compute.fan_out import TaskProgress, fan_out
from pipeline.graph import read_graph, read_nodes
from pipeline.reach.incremental import ReusedReach
from pipeline.reach.vectors import (
    ReachChunk,
    ReachComputation,
    ReachCounts,
    choose_method,
    compare_with_exact,
    compute_chunk,
)
from pipeline.reach.walk_graph import WalkGraph


def compute_reach(
    store: Store,
    settings: ReachSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> Artifact:
    """Compute the reach vector of every node of every domain.

    Domains are taken one at a time; chunks of their nodes are computed in parallel and kept, so that an interrupted
    attempt loses no more than the chunks in progress.

    Args:
        store: where the artifact lives.
        settings: method, walk lengths, walks, how many anchors are kept.
        parents: `nodes` and `graph`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: called after each chunk of nodes.
        previous: earlier `nodes`, `graph` and `reach`; vectors that cannot have changed since are copied.

    Returns:
        A `reach` artifact with one row per node; nodes that reach no anchor have empty lists. Its statistics hold, by
        domain, the method with its reason, how many nodes have a vector, the number of weights, how many vectors were
        copied, and on a sample of nodes how far the vectors, and those of walks, are from exact ones.
    """
    nodes, graph = parents["nodes"], parents["graph"]

    def write(draft: Draft) -> None:
        domains = [read_nodes(nodes, partition["domain"]) for partition in nodes.partitions()]
        total, done = sum(domain.entity.size for domain in domains), 0
        statistics = ReachStatistics(domains={})
        for number, domain in enumerate(domains):
            walk_graph = WalkGraph(read_graph(graph, domain), domain.is_anchor, settings.steps)
            choice = choose_method(walk_graph, settings)
            reused = ReusedReach.find(previous, nodes, walk_graph, choice.method, settings)
            folder = draft.scratch / str(number)
            arrays = arrays_for(domain.entity.size, folder)
            computation = ReachComputation.build(walk_graph, choice.method, settings, arrays, compute, reused)
            counts = _compute_domain(draft, folder, computation, compute, offset_progress(progress, done, total))
            statistics["domains"][domain.domain] = DomainReachStatistics(
                method=choice.method,
                reason=choice.reason,
                nodes=sum(chunk.nodes for chunk in counts),
                nodes_with_reach=sum(chunk.nodes_with_reach for chunk in counts),
                entries=sum(chunk.entries for chunk in counts),
                copied=int(np.count_nonzero(~reused.is_changed)) if reused else 0,
                against_exact=compare_with_exact(computation, walk_graph),
            )
            done += domain.entity.size
        draft.statistics |= statistics

    return store.make(REACH, settings.keyed(), parents, write)


def _compute_domain(
    draft: Draft, folder: Path, computation: ReachComputation, compute: ComputeSettings, progress: Progress
) -> list[ReachCounts]:
    """Compute the vectors of a domain in chunks, and add these to the draft."""
    if not computation.folder.is_shared:
        folder.mkdir(exist_ok=True)
        compute = compute.model_copy(update={"dask_scheduler": None})
    # With another memory setting chunks have other ranges, so their files are named by the range.
    chunks = [
        ReachChunk(computation, nodes, folder / f"{nodes.start}-{nodes.stop}.parquet")
        for nodes in computation.chunk_ranges(compute)
    ]
    unit = Unit("nodes", computation.steps_per_node, "steps") if computation.steps_per_node else "nodes"
    sizes = [len(chunk.nodes) for chunk in chunks]
    report = TaskProgress(progress, unit, sizes, [computation.domain] * len(chunks))
    counts = fan_out(compute_chunk, chunks, compute, report)
    for chunk in chunks:
        draft.adopt(chunk.path, domain=computation.domain)
    return counts
