"""Reach sampled by random walks, for graphs whose expected end points cost too much."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import ITEM, USER
from data_contracts.seeding import name_seed
from data_contracts.settings.preparation import ReachSettings
from pipeline.compute.dtypes import Longs, Mask
from pipeline.compute.rows import keep_largest_weights
from pipeline.reach.walk_graph import WalkGraph
from pipeline.reach.walk_kernels import walk_counts

_ENDS_AT_ONCE = 1 << 22
"""End points in the buffer, 4 bytes each; one node's walks may need more."""


def sampled_reach(walk_graph: WalkGraph, settings: ReachSettings, nodes: Longs) -> sp.csr_array:
    """The share of `settings.walks` random walks from each node that ends on each anchor.

    Walks stop after the last step that can end on an anchor.

    Args:
        walk_graph: the graph, its anchors and the steps that count.
        settings: number and seed of the walks, weights kept.
        nodes: int64 [n], ascending, that can reach an anchor.

    Returns:
        float32 [n, nodes].
    """
    blocks = [sp.csr_array((0, walk_graph.graph.nodes), dtype=np.float32)]
    users = int(np.searchsorted(nodes, walk_graph.graph.users))
    for kind, sources in ((USER, nodes[:users]), (ITEM, nodes[users:])):
        is_counted = walk_graph.counted_steps(kind)
        size = max(1, _ENDS_AT_ONCE // (settings.walks * max(1, is_counted.sum())))
        batches = (sources[start : start + size] for start in range(0, sources.size, size))
        blocks += [_walk_from(walk_graph, settings, is_counted, batch) for batch in batches]
    return sp.csr_array(sp.vstack(blocks))


def _walk_from(walk_graph: WalkGraph, settings: ReachSettings, is_counted: Mask, sources: Longs) -> sp.csr_array:
    graph = walk_graph.graph
    capacity = sources.size * min(settings.walks * int(is_counted.sum()), walk_graph.anchors.size)
    indptr, (anchors, counts) = np.zeros(sources.size + 1, np.int64), np.empty((2, capacity), np.int32)
    seed, nodes = np.uint64(name_seed(settings.seed, graph.domain)), sources.astype(np.int32)
    walk_counts(
        graph.indptr,
        graph.indices,
        walk_graph.is_anchor,
        is_counted,
        nodes,
        settings.walks,
        seed,
        indptr,
        anchors,
        counts,
    )
    weights = (counts[: indptr[-1]] / settings.walks).astype(np.float32)
    ends = sp.csr_array((weights, anchors[: indptr[-1]], indptr), shape=(sources.size, graph.nodes))
    return keep_largest_weights(ends, settings.anchors_kept)
