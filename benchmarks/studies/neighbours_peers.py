"""Peers of `neighbours.py`: weights between items by other libraries, and by independent walks."""

# mypy: ignore-errors
from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from numba import njit
from runs import ONE_THREAD

from data_contracts.settings.preparation import NeighboursSettings
from pipeline.compute.fan_out import ranges
from pipeline.compute.rows import CsrRows
from pipeline.neighbours.item_weights import ItemWeights
from pipeline.neighbours.stage import item_neighbours
from pipeline.reach.walk_kernels import walk_paths

ROWS_AT_ONCE = 2_000


def scipy_product(matrix: sp.csr_array, settings: NeighboursSettings) -> sp.csr_array:
    """SciPy's product of sparse matrices by blocks of rows, then the largest weights of rows that have too many."""
    users, items = degrees(matrix)
    left, norms = sp.csr_array(matrix.T @ sp.diags_array(users**-settings.alpha)), items**settings.beta
    parts = []
    for part in ranges(items.size, ROWS_AT_ONCE):
        rows = without_diagonal(left[part.start : part.stop] @ matrix, part.start)
        rows.data /= (
            np.repeat(norms[part.start : part.stop], np.diff(rows.indptr)) * norms[rows.indices] + settings.shrink
        )
        parts.append(powered(cut(rows, settings.top), settings.power))
    return sp.csr_array(sp.vstack(parts))


def implicit(matrix: sp.csr_array, settings: NeighboursSettings) -> sp.csr_array:
    """implicit's all_pairs_knn, which multiplies a matrix with itself; scaling it before allows no shrinkage."""
    from implicit.nearest_neighbours import all_pairs_knn

    users, items = degrees(matrix)
    assert settings.shrink == 0
    scaled = sp.diags_array(users ** (-settings.alpha / 2)) @ matrix @ sp.diags_array(items**-settings.beta)
    scaled = sp.csr_matrix(scaled)
    scaled.indptr, scaled.indices = scaled.indptr.astype(np.int32), scaled.indices.astype(np.int32)
    products = all_pairs_knn(scaled, settings.top + 1, show_progress=False, num_threads=1)
    return powered(cut(without_diagonal(sp.csr_array(products), 0), settings.top), settings.power)


def edda(matrix: sp.csr_array, settings: NeighboursSettings) -> sp.csr_array:
    """EDDA's own, without files."""
    return item_neighbours(matrix, settings, ONE_THREAD)


PEERS: dict[str, Callable[[sp.csr_array, NeighboursSettings], sp.csr_array]] = {
    "scipy": scipy_product,
    "edda": edda,
    "implicit": implicit,
}


def installed_peers(how: str) -> dict[str, Callable[[sp.csr_array, NeighboursSettings], sp.csr_array]]:
    """Those that can make the weights, `plain` or by the `defaults`, and are installed; says where implicit is not."""
    if how == "plain" and importlib.util.find_spec("implicit") is None:
        print("implicit is not installed and is left out", file=sys.stderr)
    is_left_out = how != "plain" or importlib.util.find_spec("implicit") is None
    return {name: peer for name, peer in PEERS.items() if name != "implicit" or not is_left_out}


def degrees(matrix: sp.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """float64 [users] and [items], at least 1."""
    return np.maximum(matrix.sum(axis=1), 1.0), np.maximum(matrix.sum(axis=0), 1.0)


def powered(rows: sp.csr_array, power: float) -> sp.csr_array:
    """float32, every weight to a power."""
    return sp.csr_array(((rows.data**power).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)


def without_diagonal(rows: sp.csr_array, first: int) -> sp.csr_array:
    """Rows without their diagonal entries; row 0 has its diagonal entry in column `first`."""
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    other = rows.indices != owner + first
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner[other], minlength=rows.shape[0]))])
    return sp.csr_array((rows.data[other], rows.indices[other], indptr), shape=rows.shape)


def cut(rows: sp.csr_array, top: int) -> sp.csr_array:
    """Each row cut to its largest weights, columns ascending."""
    kept = np.ones(rows.nnz, bool)
    for row in np.flatnonzero(np.diff(rows.indptr) > top):
        entries = slice(rows.indptr[row], rows.indptr[row + 1])
        kept[entries] = False
        kept[entries.start + np.argpartition(rows.data[entries], -top)[-top:]] = True
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    largest = sp.csr_array((rows.data[kept], rows.indices[kept], indptr), shape=rows.shape)
    largest.sort_indices()
    return largest


def independent_walks(item_weights: ItemWeights, items: np.ndarray, walks: int) -> CsrRows:
    """Rows estimated from independent walks of two uniform steps, weighted by the degree of the user in between."""
    graph = item_weights.graph
    settings = item_weights.settings
    paths, sums = np.empty((1, walks, 3), np.int32), np.zeros(item_weights.norms.size)
    per_walk = item_weights.user_weights * graph.degrees[: graph.users] / walks
    rows = []
    for item in items:
        node = item + graph.users
        paths[0, :, 0] = node
        walk_paths(graph.indptr, graph.indices, np.uint64(settings.seed), paths)
        add_walks(paths[0], per_walk, graph.users, sums)
        quotients = sums * graph.degrees[node] / (item_weights.norms * item_weights.norms[item] + settings.shrink)
        weights = (quotients**settings.power).astype(np.float32)
        weights[item] = 0.0
        sums[:] = 0.0
        best = np.argpartition(-weights, min(settings.top, weights.size - 1))[: settings.top]
        best = np.sort(best[weights[best] > 0])
        rows.append((best.astype(np.int32), weights[best]))
    indptr = np.concatenate([[0], np.cumsum([columns.size for columns, _ in rows])])
    return CsrRows(indptr, *(np.concatenate([row[part] for row in rows]) for part in (0, 1)))


@njit(cache=True)
def add_walks(paths, per_walk, users, sums):
    """Add the weight of each walk to the item that it ends on."""
    for walk in range(paths.shape[0]):
        sums[paths[walk, 2] - users] += per_walk[paths[walk, 1]]
