"""Shared: the users and items of two matrices that are the same, by position or by id."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from data_contracts.seeding import name_seed
from data_contracts.settings import ComputeSettings, PairsSettings, ReachSettings
from pipeline.compute.fan_out import stream
from pipeline.compute.scratch import Memory
from pipeline.graph import DomainGraph, DomainNodes, IntArray, Mask, edges_of
from pipeline.pairs.domain_pair import (
    DomainPair,
    _larger_first,
    align_in_one_go,
)
from pipeline.pairs.domain_vectors import keep_side
from pipeline.reach.stage import _chunks
from pipeline.reach.vectors import Description, chosen_method
from pipeline.reach.walk_graph import Terrain
from pipeline.reach.walk_kernels import walk_paths

Places = tuple[npt.ArrayLike, npt.ArrayLike]
"""Positions in a source and in a target, of one length: those at one place are the same user or item."""

NOTHING: Places = ((), ())


def shared_places(source_ids: npt.ArrayLike, target_ids: npt.ArrayLike) -> Places:
    """Where equal ids are.

    Args:
        source_ids: [n], ids of the rows (or columns) of one matrix, of any type that can be sorted.
        target_ids: [m], of the other.

    Returns:
        int64 positions in each, aligned; both empty where no id is in both.

    Raises:
        ValueError: an id stands twice in one of them.
    """
    ids = np.asarray(source_ids), np.asarray(target_ids)
    for name, of_side in zip(("source_ids", "target_ids"), ids, strict=True):
        found, counts = np.unique(of_side, return_counts=True)
        for repeated in found[counts > 1][:1]:
            raise ValueError(f"{name}: {str(repeated)!r} stands there twice, ids must be distinct; merge its rows")
    _, *places = np.intersect1d(*ids, assume_unique=True, return_indices=True)
    return places[0], places[1]


def numbered_alike(matrices: tuple[sp.csr_array, sp.csr_array], users: Places, items: Places) -> list[DomainNodes]:
    """Two matrices' nodes, numbered so that what is shared has one number; it is an anchor with edges in both.

    Args:
        matrices: [users, items] each, an entry for each edge.
        users: shared rows.
        items: shared columns.

    Raises:
        ValueError: positions of unequal number, outside their matrix, or repeated.
    """
    parts = []
    for axis, (kind, places) in enumerate(zip(KINDS, (users, items), strict=True)):
        degrees = tuple(np.asarray(matrix.sum(axis=1 - axis, dtype=np.int64)) for matrix in matrices)
        positions = _checked(f"shared_{kind}s", places, (degrees[0].size, degrees[1].size))
        parts.append(_of_kind(degrees, positions))
    return [
        DomainNodes(name, matrices[side].shape[0], *(np.concatenate([part[side][i] for part in parts]) for i in (0, 1)))
        for side, name in enumerate(("source", "target"))
    ]


def _of_kind(degrees: tuple[npt.NDArray[np.int64], ...], places: list[IntArray]) -> list[tuple[IntArray, Mask]]:
    """Numbers and anchors of each side."""
    entities = [np.arange(of_side.size, dtype=np.int32) for of_side in degrees]
    entities[1] += np.int32(degrees[0].size)
    entities[1][places[1]] = places[0]
    lives = np.logical_and(*(of_side[where] > 0 for of_side, where in zip(degrees, places, strict=True)))
    return [(own, np.isin(np.arange(own.size), where[lives])) for own, where in zip(entities, places, strict=True)]


def _checked(name: str, places: Places, sizes: tuple[int, int]) -> list[IntArray]:
    positions: list[npt.NDArray[Any]] = [np.asarray(part) for part in places]
    if positions[0].shape != positions[1].shape:
        raise ValueError(f"{name}: {positions[0].size} and {positions[1].size} positions, must be as many of each side")
    for side, part, size in zip(("source", "target"), positions, sizes, strict=True):
        for wrong in part[(part < 0) | (part >= size)][:1]:
            raise ValueError(f"{name}: {wrong} of the {side}, must be ≥ 0 and < {size}, the matrix's size")
        if np.unique(part).size < part.size:
            raise ValueError(f"{name}: a position of the {side} stands there twice, each must stand there once")
    return [part.astype(np.int32) for part in positions]


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


def reach_vectors(
    interactions: sp.csr_array | sp.csr_matrix,
    is_anchor: npt.NDArray[np.bool_] | None = None,
    settings: ReachSettings = ReachSettings(),
    compute: ComputeSettings = ComputeSettings(),
    domain: str = "",
) -> sp.csr_array:
    """How likely a random walk from each user and item of a matrix ends at each anchor; no files are made.

    Nodes are rows, then columns: user u is node u, item i is node users + i.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        is_anchor: bool [users + items], where walks may end; everywhere by default.
        settings: method, lengths of the walks, how many anchors are kept.
        compute: threads and memory; the result does not depend on them.
        domain: a name that walks are drawn by, should the method be `walk`.

    Returns:
        float32 [users + items, users + items], columns ascending within a row: the sum over `settings.steps` of the
        chances to end at each anchor after so many steps. Rows of nodes that reach no anchor are empty.

    Raises:
        ValueError: `is_anchor` has not one element for each node.
    """
    graph = DomainGraph.of(domain, edges_of(interactions))
    anchors = np.ones(graph.nodes, np.bool_) if is_anchor is None else np.asarray(is_anchor, np.bool_)
    if anchors.shape != (graph.nodes,):
        raise ValueError(f"is_anchor: shape is {anchors.shape}, must be ({graph.nodes},), one for each row and column")
    terrain = Terrain(graph, anchors, settings.steps)
    description = Description.of(terrain, chosen_method(terrain, settings).method, settings, Memory(), compute)
    chunks = [np.arange(nodes.start, nodes.stop) for nodes in _chunks(description, compute)]
    empty = sp.csr_array((0, graph.nodes), dtype=np.float32)
    return sp.csr_array(sp.vstack([empty, *stream(description.rows, chunks, compute)]))


class AlignedPairs(NamedTuple):
    """Pairs of nodes, sorted by source node and rank; a node is a row or, after all rows, a column of its matrix.

    Attributes:
        source: int32 [n], nodes of the source: user u is node u, item i is node users + i.
        target: int32 [n], nodes of the target, counted likewise.
        similarity: float32 [n], cosine of the two reach vectors over shared anchors, > 0 and ≤ 1.
        rank: int32 [n], 1 = most similar; 0 = the same user or item, similarity 1.
    """

    source: IntArray
    target: IntArray
    similarity: npt.NDArray[np.float32]
    rank: IntArray


def align_domains(
    source: sp.csr_array | sp.csr_matrix,
    target: sp.csr_array | sp.csr_matrix,
    shared_users: Places = NOTHING,
    shared_items: Places = NOTHING,
    settings: PairsSettings = PairsSettings(),
    reach: ReachSettings = ReachSettings(),
    compute: ComputeSettings = ComputeSettings(),
) -> AlignedPairs:
    """For each user and item of one matrix the most similar ones of another; no files are made.

    As the stages `walk` and `align` do it for a run of these two domains. In a run of more, anchors are what any two
    of them share, which matters only where a vector has more than `reach.anchors_kept` weights.

    Args:
        source: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        target: likewise, of the other domain.
        shared_users: rows of the source and rows of the target, aligned, that are the same user; see
            `pipeline.in_memory.shared_places` for ids.
        shared_items: columns, likewise. Shared users and items with interactions in both domains are the anchors.
        settings: partners per node and their kinds, identity pairs, when to compare exactly.
        reach: how nodes are described.
        compute: threads and memory; the result does not depend on them.

    Returns:
        Pairs from the source to the target, up to `settings.k` and an identity pair for each node; of equal
        similarity the smaller target. No pair where nodes reach no shared anchor; none at all where nothing is shared.

    Raises:
        ValueError: shared positions of unequal number, outside their matrix, or repeated.
    """
    matrices, memory = (edges_of(source), edges_of(target)), Memory()
    nodes = numbered_alike(matrices, shared_users, shared_items)
    for matrix, of_side in zip(matrices, nodes, strict=True):
        vectors = reach_vectors(matrix, of_side.is_anchor, reach, compute, of_side.domain)
        keep_side(memory / of_side.domain, of_side, [vectors])
    ends = sorted(nodes, key=_larger_first)
    pair = DomainPair(
        domains=(ends[0].domain, ends[1].domain),
        sides=(memory / ends[0].domain, memory / ends[1].domain),
        nodes=sum(end.entity.size for end in ends),
        folder=memory / "pair",
        settings=settings,
        checked_share=0.0,
    )
    table, _ = align_in_one_go(pair, partial(stream, compute=compute))[pair.domains.index(nodes[0].domain)]
    return AlignedPairs(*(table[name].to_numpy() for name in ("source_node", "target_node", "similarity", "rank")))
