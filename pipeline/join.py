"""Join: the k rows of one matrix with the largest dot product with each row of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.settings import ComputeSettings
from pipeline.fanout import ranges, stream
from pipeline.kernels import hash_rows, join_dense, join_sparse, spread_partners

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

_SCATTER_COST, _MULTIPLY_COST, _SCAN_COST = 1.5, 0.03, 0.5
"""Nanoseconds of one scattered addition, one addition of a matrix product, one scanned product: see `benchmarks/`."""

_DENSE_MARGIN = 1e-5
"""More than any error of a float32 product of two unit rows summed over at most a few thousand columns at a time."""

_DENSE_ROWS = 256
_SPARSE_ROWS = 2048


class Partners(NamedTuple):
    """The nearest rows of each query row.

    Attributes:
        targets: int32 [queries, k], rows of the target matrix, nearest first; ties in ascending order.
        similarities: float32 [queries, k].
        sizes: int32 [queries], how many entries of each row are valid.
    """

    targets: IntArray
    similarities: FloatArray
    sizes: IntArray


class Groups(NamedTuple):
    """Rows that are equal, found once.

    Attributes:
        distinct: [groups, columns] the non-zero distinct rows, in the order of their first member.
        group_of: int32 [rows], each row's group; -1 for zero rows.
        members: (indptr, rows) of the groups, rows ascending.
    """

    distinct: sp.csr_array
    group_of: IntArray
    members: tuple[npt.NDArray[np.int64], IntArray]


def nearest_rows(
    queries: sp.csr_array, targets: sp.csr_array, skip: IntArray, k: int, compute: ComputeSettings
) -> Partners:
    """The k target rows most similar to each query row; rows of zero similarity are never among them.

    Args:
        queries: float32 [n, columns], rows of length 1 or 0, indices sorted.
        targets: float32 [m, columns], likewise.
        skip: int32 [n], a target row that is left out for this query; -1 for none.
        k: partners per query.
        compute: threads.

    Returns:
        Partners; equal for every number of threads and for both ways of multiplying.
    """
    sources, found = equal_rows(queries), equal_rows(targets)
    partners = _empty(queries.shape[0], k)
    if found.distinct.shape[0] and sources.distinct.shape[0]:
        of_groups = _join(sources.distinct, found.distinct, k + 1, compute)
        spread_partners(sources.group_of, tuple(of_groups), found.members, skip, *partners)
    return partners


def equal_rows(rows: sp.csr_array) -> Groups:
    """Group equal rows. Equality is judged by two independent 64-bit hashes."""
    hashes = np.empty((2, rows.shape[0]), np.uint64)
    bits = rows.data.view(np.uint32)
    for seed in range(2):
        hash_rows(rows.indptr, rows.indices, bits, np.uint64(seed + 1), hashes[seed])
    filled = np.flatnonzero(np.diff(rows.indptr))
    _, first, inverse = np.unique(hashes[:, filled], axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(order.size)
    group_of = np.full(rows.shape[0], -1, np.int32)
    group_of[filled] = number[inverse.ravel()]
    by_group = filled[np.argsort(group_of[filled], kind="stable")].astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(group_of[filled], minlength=order.size))])
    return Groups(rows[filled[first[order]]], group_of, (indptr, by_group))


def _join(queries: sp.csr_array, targets: sp.csr_array, k: int, compute: ComputeSettings) -> Partners:
    sparse = _sparse_is_cheaper(queries, targets)
    joiner: Callable[[range], Partners] = (
        SparseJoin.of(queries, targets, k) if sparse else DenseJoin.of(queries, targets, k)
    )
    chunks = ranges(queries.shape[0], _SPARSE_ROWS if sparse else _DENSE_ROWS)
    parts = list(stream(joiner, chunks, compute))
    return Partners(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _sparse_is_cheaper(queries: sp.csr_array, targets: sp.csr_array) -> bool:
    columns = queries.shape[1]
    products = np.bincount(queries.indices, minlength=columns) @ np.bincount(targets.indices, minlength=columns)
    blocks = queries.shape[0] * targets.shape[0] * (columns * _MULTIPLY_COST + _SCAN_COST)
    return bool(products * _SCATTER_COST < blocks)


def _empty(rows: int, k: int) -> Partners:
    return Partners(np.zeros((rows, k), np.int32), np.zeros((rows, k), np.float32), np.zeros(rows, np.int32))


def _triple(rows: sp.csr_array) -> tuple[npt.NDArray[np.int64], IntArray, FloatArray]:
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data


@dataclass(frozen=True)
class SparseJoin:
    """Products through an inverted index over the target rows: cheap where rows share few columns."""

    queries: tuple[npt.NDArray[np.int64], IntArray, FloatArray]
    postings: tuple[npt.NDArray[np.int64], IntArray, FloatArray]
    targets: int
    k: int

    @classmethod
    def of(cls, queries: sp.csr_array, targets: sp.csr_array, k: int) -> SparseJoin:
        """Prepare a join of the rows of two matrices."""
        return cls(_triple(queries), _triple(sp.csr_array(targets.T)), targets.shape[0], k)

    def __call__(self, chunk: range) -> Partners:
        """Partners of the chunk's query rows."""
        partners = _empty(len(chunk), self.k)
        scores, touched = np.zeros(self.targets, np.float64), np.empty(self.targets, np.int32)
        join_sparse(self.queries, self.postings, chunk.start, scores, touched, *partners)
        return partners


@dataclass(frozen=True)
class DenseJoin:
    """Products as blocks of a dense matrix product: cheap where rows are full; contenders are recomputed exactly."""

    queries: sp.csr_array
    targets: sp.csr_array
    dense_targets: FloatArray
    k: int

    @classmethod
    def of(cls, queries: sp.csr_array, targets: sp.csr_array, k: int) -> DenseJoin:
        """Prepare a join of the rows of two matrices."""
        return cls(queries, targets, np.ascontiguousarray(targets.toarray().T), k)

    def __call__(self, chunk: range) -> Partners:
        """Partners of the chunk's query rows."""
        products = self.queries[chunk.start : chunk.stop].toarray() @ self.dense_targets
        partners = _empty(len(chunk), self.k)
        margin = np.float32(_DENSE_MARGIN)
        join_dense(products, margin, _triple(self.queries), _triple(self.targets), chunk.start, *partners)
        return partners
