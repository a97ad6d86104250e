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

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import REACH
from data_contracts.progress import Progress, Unit, after, silent
from data_contracts.settings import ComputeSettings, ReachSettings
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.fan_out import fan_out, ranges
from pipeline.compute.rows import ragged_arrays
from pipeline.compute.scratch import Memory, is_small
from pipeline.graph import DomainNodes, read_graph, read_nodes
from pipeline.reach.incremental import Copied
from pipeline.reach.vectors import Chunk, Description, against_exact, chosen_method, describe_chunk
from pipeline.reach.walk_graph import Terrain

_NODES_PER_CHUNK = 256, 16_384
"""Least and most nodes of a chunk; in between, as many as a sixteenth of the memory holds vectors of."""

_CHUNKS_IN_MEMORY = 16

_ENTRY_BYTES = 8


def describe_reach(
    store: Store,
    settings: ReachSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> Artifact:
    """Describe every node of every domain by the anchors that its walks end on.

    Domains are taken one at a time; chunks of their nodes are described side by side and kept, so that an interrupted
    attempt loses no more than the chunks at hand.

    Args:
        store: where the artifact lives.
        settings: method, walk lengths, walks, how many anchors are kept.
        parents: `nodes` and `graph`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: told after each chunk of nodes.
        previous: earlier `nodes`, `graph` and `reach`; vectors that cannot have changed since are copied.

    Returns:
        A `reach` artifact with one row per node; nodes that reach no anchor have empty lists. Its statistics hold, by
        domain, the method with its reason, how many nodes have a vector, the number of weights, how many vectors were
        copied, and on a sample of nodes how far the vectors, and those of walks, are from exact ones.
    """
    nodes, graph = parents["nodes"], parents["graph"]

    def write(draft: Draft) -> None:
        numbered = [read_nodes(nodes, partition["domain"]) for partition in nodes.partitions()]
        total, done = sum(domain.entity.size for domain in numbered), 0
        draft.statistics["domains"] = {}
        for number, domain in enumerate(numbered):
            terrain = Terrain(read_graph(graph, domain), domain.is_anchor, settings.steps)
            choice = chosen_method(terrain, settings)
            copied = Copied.of(previous, nodes, terrain, choice.method, settings)
            folder = draft.scratch / str(number)
            arrays = Memory() if is_small(domain.entity.size) else folder
            description = Description.of(terrain, choice.method, settings, arrays, compute, copied)
            found = _describe_domain(draft, folder, description, compute, after(progress, done, total))
            draft.statistics["domains"][domain.domain] = {
                **asdict(choice),
                **found,
                "copied": int(np.count_nonzero(~copied.stale)) if copied else 0,
                "against_exact": against_exact(description, terrain),
            }
            done += domain.entity.size

    return store.make(REACH, settings.keyed(), parents, write)


def _describe_domain(
    draft: Draft, folder: Path, description: Description, compute: ComputeSettings, progress: Progress
) -> dict[str, int]:
    if isinstance(description.folder, Memory):  # which no other process sees
        folder.mkdir(exist_ok=True)
        compute = compute.model_copy(update={"dask_scheduler": None})
    chunks = [
        Chunk(description, nodes, folder / f"{nodes.start}-{nodes.stop}.parquet")  # another memory, other chunks
        for nodes in _chunks(description, compute)
    ]
    unit = Unit("nodes", description.steps_per_node, "steps") if description.steps_per_node else "nodes"
    sizes, parts = [len(chunk.nodes) for chunk in chunks], [description.domain] * len(chunks)
    found = fan_out(describe_chunk, chunks, compute, progress, unit, sizes, parts)
    for chunk in chunks:
        draft.adopt(chunk.path, domain=description.domain)
    names = ("nodes", "nodes_with_reach", "entries")
    return {name: sum(getattr(described, name) for described in found) for name in names}


def _chunks(description: Description, compute: ComputeSettings) -> list[range]:
    width = _ENTRY_BYTES * max(1, min(description.settings.anchors_kept, description.anchors))
    size = int(np.clip((compute.memory_mib << 20) // (_CHUNKS_IN_MEMORY * width), *_NODES_PER_CHUNK))
    return ranges(description.nodes, size)


def read_reach(reach: Artifact, nodes: DomainNodes) -> sp.csr_array:
    """float32 [nodes, nodes] reach vectors of one domain; columns are anchor nodes."""
    table = reach.read(["anchors", "weights"], domain=nodes.domain)
    indptr, (anchors, weights) = ragged_arrays(table, ["anchors", "weights"])
    return sp.csr_array((weights, anchors, indptr), shape=(nodes.entity.size, nodes.entity.size))
