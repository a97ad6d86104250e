"""Walks: reach sampled by random walks, for graphs whose expected visits cost too much."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import ITEM, USER
from data_contracts.seeding import name_seed
from data_contracts.settings import ReachSettings
from pipeline.compute.rows import keep_largest_weights
from pipeline.reach.walk_graph import Numbers, Terrain
from pipeline.reach.walk_kernels import walk_counts

_HITS_AT_ONCE = 1 << 22
"""Positions in the buffer of end points, 4 bytes each; one node's walks may need more."""


def sampled_reach(terrain: Terrain, settings: ReachSettings, nodes: Numbers) -> sp.csr_array:
    """Of `settings.walks` walks from each node, the share that ends on each anchor.

    Walks take no step after the last that can end on an anchor.

    Args:
        terrain: where walks go and end.
        settings: number and seed of the walks, weights kept.
        nodes: int64 [n], ascending, that can reach an anchor.

    Returns:
        float32 [n, nodes].
    """
    parts = [sp.csr_array((0, terrain.graph.nodes), dtype=np.float32)]
    users = int(np.searchsorted(nodes, terrain.graph.users))
    for kind, of_kind in ((USER, nodes[:users]), (ITEM, nodes[users:])):
        counts_step = terrain.counting_steps(kind)
        batch = max(1, _HITS_AT_ONCE // (settings.walks * max(1, counts_step.sum())))
        batches = (of_kind[start : start + batch] for start in range(0, of_kind.size, batch))
        parts += [_walked(terrain, settings, counts_step, of_batch) for of_batch in batches]
    return sp.csr_array(sp.vstack(parts))


def _walked(terrain: Terrain, settings: ReachSettings, counts_step: np.ndarray, nodes: Numbers) -> sp.csr_array:
    graph, seed = terrain.graph, np.uint64(name_seed(settings.seed, terrain.graph.domain))
    room = nodes.size * min(settings.walks * int(counts_step.sum()), terrain.anchors.size)
    indptr, (anchors, counts) = np.zeros(nodes.size + 1, np.int64), np.empty((2, room), np.int32)
    walk_counts(
        *(graph.indptr, graph.indices, terrain.is_anchor, counts_step),
        *(nodes.astype(np.int32), settings.walks, seed, indptr, anchors, counts),
    )
    weights = (counts[: indptr[-1]] / settings.walks).astype(np.float32)
    ends = sp.csr_array((weights, anchors[: indptr[-1]], indptr), shape=(nodes.size, graph.nodes))
    return keep_largest_weights(ends, settings.anchors_kept)
