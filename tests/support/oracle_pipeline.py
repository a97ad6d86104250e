"""Slow, obvious versions of reach, pairs and neighbours, which the fast code must equal."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import KINDS
from pipeline.graph import DomainGraph, DomainNodes
from pipeline.reach.walk_graph import WalkGraph


def transitions(graph: DomainGraph) -> sp.csr_array:
    """float32 [nodes, nodes], P = D^-1 A: row v holds the probabilities of one step from v; zero for isolated nodes."""
    probabilities = np.repeat(1.0 / np.maximum(graph.degrees, 1), graph.degrees).astype(np.float32)
    return sp.csr_array((probabilities, graph.indices, graph.indptr), shape=(graph.nodes, graph.nodes))


def dense_reach(graph: DomainGraph, is_anchor: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """float64 [nodes, nodes]: the sum over steps of P^step, anchor columns only."""
    adjacency = np.zeros((graph.nodes, graph.nodes))
    for node in range(graph.nodes):
        adjacency[node, graph.indices[graph.indptr[node] : graph.indptr[node + 1]]] = 1.0
    degrees = adjacency.sum(axis=1, keepdims=True)
    probabilities = np.divide(adjacency, degrees, out=np.zeros_like(adjacency), where=degrees > 0)
    return sum(np.linalg.matrix_power(probabilities, step) for step in steps) * is_anchor


def pruned_reach(walk_graph: WalkGraph, kept: int, *, every_step: bool) -> tuple[np.ndarray, np.ndarray]:
    """As `dense_reach` by Horner's rule, rows cut to the `kept` largest weights after the last or after every step.

    Returns:
        float64 [nodes, nodes]; bool [nodes], true if rounding cannot have affected what was cut from a row or from the
        rows it is computed from.
    """
    adjacency = walk_graph.adjacency.toarray()
    anchors = np.diag(walk_graph.is_anchor).astype(float)
    visits, clear = anchors, np.ones(len(anchors), bool)
    for step in range(max(walk_graph.steps) - 1, -1, -1):
        visits = adjacency / np.maximum(walk_graph.graph.degrees, 1)[:, None] @ visits
        visits = visits + (anchors if step in walk_graph.steps else 0)
        clear = ~(adjacency @ ~clear > 0)
        if every_step or step == 0:
            clear &= np.array([_is_clear(row, kept) for row in visits])
            visits = np.array([_largest(row, kept) for row in visits])
    return visits, clear


def _largest(row: np.ndarray, kept: int) -> np.ndarray:
    return np.where(np.isin(np.arange(row.size), np.argsort(-row, kind="stable")[:kept]), row, 0.0)


def _is_clear(row: np.ndarray, kept: int) -> bool:
    descending = np.append(-np.sort(-row), 0.0)
    return kept >= row.size or descending[kept] == 0 or descending[kept - 1] - descending[kept] > 1e-6


def brute_pairs(
    source: tuple[DomainNodes, np.ndarray], target: tuple[DomainNodes, np.ndarray], k: int, kinds: str = "apart"
) -> list[tuple[int, int, str, float, int]]:
    """(source node, target node, kind, similarity, rank) of the k best partners, by comparing all pairs of nodes.

    The kind is the source node's; with `kinds` "mixed" nodes of different kinds are compared too.
    """
    shared = [
        (a, b)
        for a in np.flatnonzero(source[0].is_anchor)
        for b in np.flatnonzero(target[0].is_anchor)
        if identity_of(source[0], a) == identity_of(target[0], b)
    ]
    left, right = [a for a, _ in shared], [b for _, b in shared]
    pairs = []
    for node in range(source[0].entity.size):
        kind = kind_of(source[0], node)
        same, similar = [], []
        for other in range(target[0].entity.size):
            cosine = _cosine(source[1][node, left], target[1][other, right])
            if identity_of(source[0], node) == identity_of(target[0], other):
                same.append(other)
            elif cosine > 0 and (kinds == "mixed" or kind == kind_of(target[0], other)):
                similar.append((-np.float32(cosine), other))
        best = sorted(similar)[:k]
        pairs += [(node, other, kind, -negative, rank) for rank, (negative, other) in enumerate(best, start=1)]
        pairs += [(node, other, kind, 1.0, 0) for other in same]
    return sorted(pairs, key=lambda row: (row[0], row[4]))


def kind_of(nodes: DomainNodes, node: int) -> str:
    return KINDS[0] if node < nodes.users else KINDS[1]


def identity_of(nodes: DomainNodes, node: int) -> tuple[str, int]:
    return kind_of(nodes, node), int(nodes.entity[node])


def random_domain(seed: int, users: int, items: int, edges: int, world: int = 12) -> tuple[DomainGraph, DomainNodes]:
    """A random graph, isolated nodes included, whose entities are drawn from `world` users and `world` items."""
    draw = np.random.default_rng(seed)
    entity = [np.sort(draw.choice(world, size, replace=False)) for size in (users, items)]
    ends = draw.integers(0, users, edges), users + draw.integers(0, items, edges)
    both = np.concatenate(ends), np.concatenate(ends[::-1])
    adjacency = sp.csr_array((np.ones(2 * edges, np.int8), both), shape=(users + items, users + items))
    adjacency.sum_duplicates()
    nodes = DomainNodes(f"d{seed}", users, np.concatenate(entity).astype(np.int32), draw.random(users + items) < 0.5)
    return DomainGraph(f"d{seed}", users, adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)), nodes


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else 0.0


def item_products(
    matrix: sp.csr_array, alpha: float, beta: float, shrink: float = 0.0, power: float = 1.0
) -> np.ndarray:
    """float64 [items, items]: weights of walks between the items of a matrix, by SciPy's sparse product."""
    entries = sp.csr_array((matrix != 0).astype(np.float64))
    users, items = (np.maximum(entries.sum(axis=axis), 1.0) for axis in (1, 0))
    between = (entries.T @ sp.diags_array(users**-alpha) @ entries).toarray()
    np.fill_diagonal(between, 0.0)
    return (between / (np.outer(items, items) ** beta + shrink)) ** power


def cosine_weights(matrix: sp.csr_array, shrink: float) -> np.ndarray:
    """float64 [items, items]: numbers of common users over the roots of both items' numbers of users, plus shrink."""
    x = (matrix.toarray() != 0).astype(float)
    users = np.maximum(x.sum(axis=0), 1.0)
    return _without_diagonal((x.T @ x) / (np.sqrt(np.outer(users, users)) + shrink))


def rp3beta_weights(matrix: sp.csr_array, alpha: float, beta: float) -> np.ndarray:
    """float64 [items, items]: transition probabilities to the power alpha, twice, over users of the second^beta."""
    x = (matrix.toarray() != 0).astype(float)
    to_user, to_item = (part / np.maximum(part.sum(axis=1, keepdims=True), 1.0) for part in (x.T, x))
    return _without_diagonal(
        (to_user**alpha * (x.T > 0)) @ (to_item**alpha * x) / np.maximum(x.sum(axis=0), 1.0) ** beta
    )


def ease_weights(matrix: sp.csr_array, l2: float) -> np.ndarray:
    """float64 [items, items]: every item's ridge regression on the others, solved for itself; negative weights too."""
    x = (matrix.toarray() != 0).astype(float)
    gram, items = x.T @ x, x.shape[1]
    weights = np.zeros((items, items))
    for item in range(items):
        others = np.delete(np.arange(items), item)
        penalised = gram[np.ix_(others, others)] + l2 * np.eye(items - 1)
        weights[others, item] = np.linalg.solve(penalised, gram[others, item])
    return weights


def _without_diagonal(weights: np.ndarray) -> np.ndarray:
    np.fill_diagonal(weights, 0.0)
    return weights


def cut_rows(rows: np.ndarray, kept: int) -> np.ndarray:
    """Each row cut to its `kept` largest values; of equal values those of the smaller columns stay."""
    return np.array([_largest(row, kept) for row in rows])
