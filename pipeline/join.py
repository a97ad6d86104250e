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
from pipeline.join_kernels import join_dense, join_sparse, spread_partners
from pipeline.ragged import distinct_rows

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
Triple = tuple[npt.NDArray[np.int64], IntArray, FloatArray]
"""Compressed rows: indptr, indices, weights."""

_SCATTER_COST, _MULTIPLY_COST, _SCAN_COST = 0.7, 0.03, 0.5
"""Nanoseconds of one scattered addition (of those that bounds do not save), one addition of a matrix product, one
scanned product."""

_DENSE_MARGIN = 1e-5
"""More than the float32 product of two unit rows is off."""

_DENSE_ROWS = 256
_SPARSE_ROWS = 1024


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


@dataclass(frozen=True)
class Groups:
    """Nodes by their row: equal rows are joined once.

    Attributes:
        rows: float32 [groups, columns] the non-zero distinct rows, in the order of their first node.
        group_of: int32 [nodes], each node's group; -1 for zero rows.
    """

    rows: sp.csr_array
    group_of: IntArray

    @classmethod
    def of(cls, rows: sp.csr_array, row_of: npt.NDArray[np.int64] | None = None) -> Groups:
        """Group nodes by equal rows.

        Args:
            rows: float32 [n, columns], indices sorted.
            row_of: int64 [nodes], each node's row; by default node i has row i.
        """
        row_of = np.arange(rows.shape[0]) if row_of is None else row_of
        used, first = np.unique(row_of, return_index=True)
        ordered = used[np.argsort(first)]
        filled = ordered[np.diff(rows.indptr)[ordered] > 0]
        representatives, place = distinct_rows(rows[filled])
        group_of_row = np.full(rows.shape[0], -1, np.int32)
        group_of_row[filled] = place
        return cls(rows[filled[representatives]], group_of_row[row_of])

    def members(self) -> tuple[npt.NDArray[np.int64], IntArray]:
        """(indptr, nodes) of the groups, nodes ascending."""
        grouped = np.flatnonzero(self.group_of >= 0).astype(np.int32)
        sizes = np.bincount(self.group_of[grouped], minlength=self.rows.shape[0])
        by_group = grouped[np.argsort(self.group_of[grouped], kind="stable")]
        return np.concatenate([[0], np.cumsum(sizes)]), by_group


def nearest_nodes(queries: Groups, targets: Groups, skip: IntArray, k: int, compute: ComputeSettings) -> Partners:
    """The k target nodes most similar to each query node; nodes of zero similarity are never among them.

    Args:
        queries: the query nodes' rows, of length 1.
        targets: the target nodes' rows, of length 1.
        skip: int32 [query nodes], a target node that is left out for this query; -1 for none.
        k: partners per query.
        compute: threads.

    Returns:
        Partners of every query node; equal for every number of threads and for both ways of multiplying.
    """
    partners = _empty(queries.group_of.size, k)
    if queries.rows.shape[0] and targets.rows.shape[0]:
        of_groups = _join(queries.rows, targets.rows, k + 1, compute)
        spread_partners(queries.group_of, tuple(of_groups), targets.members(), skip, *partners)
    return partners


def _join(queries: sp.csr_array, targets: sp.csr_array, k: int, compute: ComputeSettings) -> Partners:
    sparse = _sparse_is_cheaper(queries, targets)
    join: Callable[[range], Partners] = (SparseJoin if sparse else DenseJoin).of(queries, targets, k)
    chunks = ranges(queries.shape[0], _SPARSE_ROWS if sparse else _DENSE_ROWS)
    parts = list(stream(join, chunks, compute))
    return Partners(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _sparse_is_cheaper(queries: sp.csr_array, targets: sp.csr_array) -> bool:
    columns = queries.shape[1]
    products = np.bincount(queries.indices, minlength=columns) @ np.bincount(targets.indices, minlength=columns)
    blocks = queries.shape[0] * targets.shape[0] * (columns * _MULTIPLY_COST + _SCAN_COST)
    return bool(products * _SCATTER_COST < blocks)


def _empty(rows: int, k: int) -> Partners:
    return Partners(np.zeros((rows, k), np.int32), np.zeros((rows, k), np.float32), np.zeros(rows, np.int32))


def _triple(rows: sp.csr_array) -> Triple:
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data


@dataclass(frozen=True)
class SparseJoin:
    """Products through an inverted index over the target rows: cheap where rows share few columns."""

    queries: Triple
    postings: Triple
    targets: Triple
    k: int

    @classmethod
    def of(cls, queries: sp.csr_array, targets: sp.csr_array, k: int) -> SparseJoin:
        """Prepare a join of the rows of two matrices."""
        return cls(_triple(queries), _triple(sp.csr_array(targets.T)), _triple(targets), k)

    def __call__(self, chunk: range) -> Partners:
        """Partners of the chunk's query rows."""
        partners = _empty(len(chunk), self.k)
        rows, columns = self.targets[0].size - 1, self.postings[0].size - 1
        scratch = np.zeros(rows, np.float64), np.zeros(columns, np.float64), np.empty(rows, np.int32)
        join_sparse(self.queries, self.postings, self.targets, chunk.start, scratch, *partners)
        return partners


@dataclass(frozen=True)
class DenseJoin:
    """Products as blocks of a dense matrix product: cheap where rows are full; contenders are recomputed exactly."""

    rows: sp.csr_array
    queries: Triple
    targets: Triple
    dense_targets: FloatArray
    k: int

    @classmethod
    def of(cls, queries: sp.csr_array, targets: sp.csr_array, k: int) -> DenseJoin:
        """Prepare a join of the rows of two matrices."""
        dense = np.ascontiguousarray(targets.toarray().T)
        return cls(queries, _triple(queries), _triple(targets), dense, k)

    def __call__(self, chunk: range) -> Partners:
        """Partners of the chunk's query rows."""
        products = self.rows[chunk.start : chunk.stop].toarray() @ self.dense_targets
        partners = _empty(len(chunk), self.k)
        join_dense(products, np.float32(_DENSE_MARGIN), self.queries, self.targets, chunk.start, *partners)
        return partners
