"""The pipeline on matrices in memory, without files: shared ids, random walks, reach vectors, aligned pairs."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from data_contracts.seeding import name_seed
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import PairsSettings, ReachSettings
from pipeline.compute.array_folder import MemoryArrays
from pipeline.compute.dtypes import Array, Floats32, Ints, Longs, Mask
from pipeline.compute.fan_out import stream
from pipeline.graph import DomainGraph, DomainNodes, build_edges
from pipeline.pairs.domain_pair import DomainPair, align_domain_pair, larger_first
from pipeline.pairs.domain_vectors import write_vectors
from pipeline.reach.vectors import ReachComputation, choose_method
from pipeline.reach.walk_graph import WalkGraph
from pipeline.reach.walk_kernels import walk_paths

SharedPositions = tuple[npt.ArrayLike, npt.ArrayLike]
"""Positions in a source and in a target, equally many: those at the same index are the same user or item."""

NOTHING: SharedPositions = ((), ())


def shared_places(source_ids: npt.ArrayLike, target_ids: npt.ArrayLike) -> SharedPositions:
    """Positions of the ids that two matrices share.

    Args:
        source_ids: [n], ids of the rows (or columns) of one matrix, of any type that can be sorted.
        target_ids: [m], of the other.

    Returns:
        int64 positions in each, aligned; both empty where no id is in both.

    Raises:
        ValueError: an id occurs twice in one of them.
    """
    ids = np.asarray(source_ids), np.asarray(target_ids)
    for name, all_ids in zip(("source_ids", "target_ids"), ids, strict=True):
        distinct, counts = np.unique(all_ids, return_counts=True)
        repeated = distinct[counts > 1]
        if repeated.size:
            raise ValueError(f"{name}: {str(repeated[0])!r} occurs twice, ids must be distinct; merge its rows")
    _, *positions = np.intersect1d(*ids, assume_unique=True, return_indices=True)
    return positions[0], positions[1]


def number_alike(
    matrices: tuple[sp.csr_array, sp.csr_array], users: SharedPositions, items: SharedPositions
) -> list[DomainNodes]:
    """Number the nodes of two matrices so that shared ones have one number; with edges in both they are anchors.

    Args:
        matrices: [users, items] each, an entry for each edge.
        users: shared rows.
        items: shared columns.

    Raises:
        ValueError: positions of unequal number, outside their matrix, or repeated.
    """
    by_kind = []
    for axis, (kind, shared) in enumerate(zip(KINDS, (users, items), strict=True)):
        degrees = tuple(np.asarray(matrix.sum(axis=1 - axis, dtype=np.int64)) for matrix in matrices)
        positions = _check_positions(f"shared_{kind}s", shared, (degrees[0].size, degrees[1].size))
        by_kind.append(_number_kind(degrees, positions))
    return [
        DomainNodes(
            domain=name,
            users=matrices[side].shape[0],
            entity=np.concatenate([sides[side][0] for sides in by_kind]),
            is_anchor=np.concatenate([sides[side][1] for sides in by_kind]),
        )
        for side, name in enumerate(("source", "target"))
    ]


def _number_kind(degrees: tuple[Longs, ...], positions: list[Ints]) -> list[tuple[Ints, Mask]]:
    """Entity numbers and anchors of each side."""
    entities = [np.arange(nodes.size, dtype=np.int32) for nodes in degrees]
    entities[1] += np.int32(degrees[0].size)
    entities[1][positions[1]] = positions[0]
    has_edges = np.logical_and(degrees[0][positions[0]] > 0, degrees[1][positions[1]] > 0)
    anchors = (np.isin(np.arange(entities[side].size), positions[side][has_edges]) for side in (0, 1))
    return list(zip(entities, anchors, strict=True))


def _check_positions(name: str, shared: SharedPositions, sizes: tuple[int, int]) -> list[Ints]:
    positions: list[Array] = [_as_integers(name, given) for given in shared]
    if positions[0].shape != positions[1].shape:
        raise ValueError(f"{name}: {positions[0].size} and {positions[1].size} positions, must be as many of each side")
    for side, given, size in zip(("source", "target"), positions, sizes, strict=True):
        wrong = given[(given < 0) | (given >= size)]
        if wrong.size:
            raise ValueError(f"{name}: {wrong[0]} of the {side}, must be ≥ 0 and < {size}, the matrix's size")
        if np.unique(given).size < given.size:
            raise ValueError(f"{name}: a position of the {side} occurs twice, must occur once")
    return [given.astype(np.int32) for given in positions]


def _as_integers(name: str, given: npt.ArrayLike) -> Array:
    """Numbers of rows, columns or nodes; an empty list has no type of its own.

    Raises:
        ValueError: they are no integers.
    """
    numbers = np.asarray(given)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise ValueError(f"{name}: {numbers.dtype}, must be integers; numpy.flatnonzero makes them of a mask")
    return numbers


def random_walks(
    interactions: sp.csr_array | sp.csr_matrix,
    starts: npt.ArrayLike,
    length: int,
    walks: int = 1,
    seed: int = 0,
    domain: str = "",
) -> Ints:
    """Uniform random walks between the users and items of a matrix, node by node, as the method `walk` of reach.

    Nodes are rows, then columns: user u is node u, item i is node users + i. A step is drawn by (seed, domain, start,
    walk, step), so a walk does not depend on the other starts, the number of walks, or their length.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        starts: int [n], nodes to walk from.
        length: steps of each walk.
        walks: walks from each start.
        seed: of the draws.
        domain: a name that the draws depend on.

    Returns:
        int32 [n, walks, length + 1], the nodes of each walk, its start first; -1 after a start that has no neighbour.

    Raises:
        ValueError: a start is no node, or the matrix has NaN.
    """
    graph, sources = DomainGraph.from_matrix(domain, build_edges(interactions)), _as_integers("starts", starts)
    wrong = sources[(sources < 0) | (sources >= graph.nodes)]
    if wrong.size:
        raise ValueError(f"starts: found {wrong[0]}, must be ≥ 0 and < {graph.nodes}, the number of rows and columns")
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
    """The probability that a random walk from each user and item of a matrix ends at each anchor; no files are made.

    Nodes are rows, then columns: user u is node u, item i is node users + i.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        is_anchor: bool [users + items], where walks may end; everywhere by default.
        settings: method, lengths of the walks, how many anchors are kept.
        compute: threads and memory; the result does not depend on them.
        domain: a name that the draws of the method `walk` depend on.

    Returns:
        float32 [users + items, users + items], columns ascending within a row: the sum over `settings.steps` of the
        probabilities to end at each anchor after so many steps. Rows of nodes that reach no anchor are empty.

    Raises:
        ValueError: `is_anchor` does not have one bool for each node, or the matrix has NaN.
    """
    graph = DomainGraph.from_matrix(domain, build_edges(interactions))
    anchors = np.ones(graph.nodes, np.bool_) if is_anchor is None else np.asarray(is_anchor)
    if anchors.size and anchors.dtype != np.bool_:
        raise ValueError(f"is_anchor: {anchors.dtype}, must be bool, one for each row and column")
    if anchors.shape != (graph.nodes,):
        raise ValueError(f"is_anchor: shape is {anchors.shape}, must be ({graph.nodes},), one for each row and column")
    walk_graph = WalkGraph(graph, anchors, settings.steps)
    method = choose_method(walk_graph, settings).method
    computation = ReachComputation.build(walk_graph, method, settings, MemoryArrays(), compute)
    chunks = [np.arange(nodes.start, nodes.stop) for nodes in computation.chunk_ranges(compute)]
    empty = sp.csr_array((0, graph.nodes), dtype=np.float32)
    return sp.csr_array(sp.vstack([empty, *stream(computation.rows, chunks, compute)]))


class PairTable(NamedTuple):
    """Aligned pairs of nodes, sorted by source node and rank; a node is a row or, after all rows, a column of a matrix.

    Attributes:
        source: int32 [n], nodes of the source: user u is node u, item i is node users + i.
        target: int32 [n], nodes of the target, counted likewise.
        similarity: float32 [n], cosine of the two reach vectors over shared anchors, > 0 and ≤ 1.
        rank: int32 [n], 1 = most similar; 0 = the same user or item, similarity 1.
    """

    source: Ints
    target: Ints
    similarity: Floats32
    rank: Ints


def align_domains(
    source: sp.csr_array | sp.csr_matrix,
    target: sp.csr_array | sp.csr_matrix,
    shared_users: SharedPositions = NOTHING,
    shared_items: SharedPositions = NOTHING,
    settings: PairsSettings = PairsSettings(),
    reach: ReachSettings = ReachSettings(),
    compute: ComputeSettings = ComputeSettings(),
) -> PairTable:
    """For each user and item of one matrix the most similar ones of another; no files are made.

    The result is that of the stages `walk` and `align` for these two domains. In a run of more domains the anchors are
    what any two of them share, which matters only where a vector has more than `reach.anchors_kept` weights.

    Args:
        source: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        target: likewise, of the other domain.
        shared_users: rows of the source and rows of the target, aligned, that are the same user; see
            `pipeline.in_memory.shared_places` for ids.
        shared_items: columns, likewise. Shared users and items with interactions in both domains are the anchors.
        settings: partners per node and their kinds, identity pairs, when to compare exactly.
        reach: how reach vectors are computed.
        compute: threads and memory; the result does not depend on them.

    Returns:
        Pairs from the source to the target, up to `settings.k` and an identity pair for each node; of equal
        similarity the smaller target. No pair where nodes reach no shared anchor; none at all where nothing is shared.

    Raises:
        ValueError: shared positions of unequal number, outside their matrix, or repeated, or a matrix with NaN.
    """
    matrices, memory = (build_edges(source), build_edges(target)), MemoryArrays()
    nodes = number_alike(matrices, shared_users, shared_items)
    for matrix, numbered in zip(matrices, nodes, strict=True):
        vectors = reach_vectors(matrix, numbered.is_anchor, reach, compute, numbered.domain)
        write_vectors(memory / numbered.domain, numbered, [vectors])
    first, second = sorted(nodes, key=larger_first)
    pair = DomainPair(
        domains=(first.domain, second.domain),
        vectors=(memory / first.domain, memory / second.domain),
        nodes=first.entity.size + second.entity.size,
        folder=memory / "pair",
        settings=settings,
        checked_share=0.0,
    )
    table, _ = align_domain_pair(pair, partial(stream, compute=compute))[pair.domains.index(nodes[0].domain)]
    return PairTable(*(table[name].to_numpy() for name in ("source_node", "target_node", "similarity", "rank")))
