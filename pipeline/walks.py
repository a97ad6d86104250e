"""Walks: reach sampled by random walks, for graphs whose expected visits cost too much."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import ITEM, USER
from data_contracts.settings import ReachSettings
from pipeline.graph import DomainGraph, edges_of
from pipeline.ragged import keep_largest_weights
from pipeline.terrain import IntArray, Numbers, Terrain
from pipeline.walk_kernels import walk_counts, walk_paths

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


def random_walks(
    interactions: sp.csr_array | sp.csr_matrix,
    starts: npt.ArrayLike,
    length: int,
    walks: int = 1,
    seed: int = 0,
    domain: str = "",
) -> IntArray:
    """Uniform random walks between the users and items of a matrix, whole, as the method `walk` of reach takes them.

    Nodes are rows, then columns: user u is node u, item i is node users + i. A step is drawn by (seed, domain, start,
    walk, step), so a walk is the same whatever else is asked for.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        starts: int [n], nodes to walk from.
        length: steps of each walk.
        walks: walks from each start.
        seed: of the draws.
        domain: a name that walks are drawn by, too.

    Returns:
        int32 [n, walks, length + 1], the nodes of each walk, its start first; -1 after a start that has no neighbour.

    Raises:
        ValueError: a start is no node.
    """
    graph, sources = DomainGraph.of(domain, edges_of(interactions)), np.asarray(starts, np.int32)
    for start in sources[(sources < 0) | (sources >= graph.nodes)][:1]:
        raise ValueError(f"starts: found {start}, must be ≥ 0 and < {graph.nodes}, the number of rows and columns")
    paths = np.full((sources.size, walks, length + 1), -1, np.int32)
    paths[:, :, 0] = sources[:, None]
    walk_paths(graph.indptr, graph.indices, np.uint64(name_seed(seed, domain)), paths)
    return paths


def name_seed(seed: int, *names: str) -> int:
    """A 64-bit number that depends on a seed and on names, and on nothing else."""
    text = "\x1f".join([str(seed), *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
