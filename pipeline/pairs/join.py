"""Top-k join: for each row of two matrices the k rows of the other with the largest dot products.

    left rows ─┐                         ┌ sparse: inverted index ┐  best right rows of each left row
    right rows ┴ in files, by chunk   →  └ dense: matrix blocks   ┘→ best left rows of each right row

Where the exact join would cost too much, candidates from part of the columns are compared in full instead, once for the
left rows and once for the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from data_contracts.settings.preparation import PairsSettings
from pipeline.compute.array_folder import ArrayFolder
from pipeline.compute.dtypes import Floats32, Ints
from pipeline.compute.fan_out import ranges
from pipeline.compute.rows import CsrRows
from pipeline.pairs.join_kernels import join_candidates, join_dense, join_sparse, merge_top_k

_SCATTER_COST, _MULTIPLY_COST = 1.3, 0.04
"""Nanoseconds of one scattered addition and of one addition of a matrix product, measured on one core."""

_DENSE_MARGIN = 1e-5
"""Larger than the error of the float32 product of two unit rows."""

_DENSE_BYTES = 1 << 30
"""Largest dense matrix of right rows."""

_TARGETS_AT_ONCE = 32_768
"""The sums of so many rows fit into a core's cache."""

_ROWS_PER_CHUNK = 8192
_ROWS_PER_BLOCK = 256
_CHECKED_AT_ONCE = 64


class TopK(NamedTuple):
    """The k best partners of each row of a matrix.

    Attributes:
        ids: int32 [n, k], rows of the other matrix, most similar first, ties in ascending order.
        similarities: float32 [n, k]; 0 where there is no partner.
    """

    ids: Ints
    similarities: Floats32

    @classmethod
    def build_empty(cls, rows: int, k: int) -> TopK:
        """No partners yet."""
        return cls(np.zeros((rows, k), np.int32), np.zeros((rows, k), np.float32))


@dataclass(frozen=True)
class Join:
    """Two matrices in a folder, to be joined chunk by chunk by any process that sees it.

    Attributes:
        folder: `left`, `right`, and their postings: of blocks of `right`, or for candidates of both; results by chunk.
        rows: numbers of left and right rows.
        columns: of both.
        k: partners of each row.
        candidates: rows compared in full with each row; 0 for the exact join.
        products_per_row: multiply-adds that the search for candidates may cost for each row.
    """

    folder: ArrayFolder
    rows: tuple[int, int]
    columns: int
    k: int
    candidates: int
    products_per_row: int

    @classmethod
    def build(cls, folder: ArrayFolder, left: sp.csr_array, right: sp.csr_array, settings: PairsSettings) -> Join:
        """Prepare the join of unit rows; files that an earlier attempt finished are kept."""
        is_exact = count_products(left, right) <= settings.most_products
        postings = {"left_postings": left, "right_postings": right}
        if is_exact:
            blocks = ranges(right.shape[0], _TARGETS_AT_ONCE)
            postings = {_postings_name(block): right[block.start : block.stop] for block in blocks}
        matrices = {"left": left, "right": right} | {name: rows.T for name, rows in postings.items()}
        for name, matrix in matrices.items():
            if not (folder / name).exists():
                (folder / name).write_rows([CsrRows.from_scipy(sp.csr_array(matrix))])
        (folder / "columns").write_arrays(lengths=np.bincount(right.indices, minlength=right.shape[1]))
        sizes = left.shape[0], right.shape[0]
        candidates = 0 if is_exact else settings.candidates
        return cls(folder, sizes, left.shape[1], settings.k + 1, candidates, settings.products_per_row)

    def chunks(self) -> list[JoinChunk]:
        """The rows to be joined, in chunks of thousands."""
        return [
            JoinChunk(self, side, number, rows)
            for side in ((0, 1) if self.candidates else (0,))
            for number, rows in enumerate(ranges(self.rows[side], _ROWS_PER_CHUNK))
        ]

    def best(self) -> tuple[TopK, TopK]:
        """The partners of all left and of all right rows, once every chunk is joined."""
        best = TopK.build_empty(self.rows[0], self.k), TopK.build_empty(self.rows[1], self.k)
        for chunk in self.chunks():
            result = chunk.folder.arrays()
            best[chunk.side].ids[chunk.rows.start : chunk.rows.stop] = result["ids"]
            best[chunk.side].similarities[chunk.rows.start : chunk.rows.stop] = result["similarities"]
            if not self.candidates:
                merge_top_k((result["column_ids"], result["column_similarities"]), tuple(best[1]))
        return best

    def largest_products(self, side: int, rows: Ints) -> Floats32:
        """float32 [n], the largest product of each of some rows of one side with any row of the other; 0 for none."""
        queries, targets = ((self.folder / name).rows().to_scipy(self.columns) for name in _side_and_other(side))
        blocks = [rows[block.start : block.stop] for block in ranges(rows.size, _CHECKED_AT_ONCE)]
        largest = [(targets @ queries[block].T.toarray()).max(axis=0, initial=0.0) for block in blocks]
        return np.concatenate([np.empty(0, np.float32), *largest])


def _postings_name(block: range) -> str:
    return f"right_postings-{block.start}"


def _side_and_other(side: int) -> tuple[str, str]:
    return ("left", "right") if side == 0 else ("right", "left")


@dataclass(frozen=True)
class JoinChunk:
    """Consecutive rows of one side of a join, 0 left, 1 right."""

    join: Join
    side: int
    number: int
    rows: range

    @property
    def folder(self) -> ArrayFolder:
        """For the result."""
        return self.join.folder / f"{_side_and_other(self.side)[0]}-{self.number:06d}"


def join_chunk(chunk: JoinChunk) -> None:
    """Join a chunk, unless an earlier attempt finished it."""
    if chunk.folder.exists():
        return
    if chunk.join.candidates:
        best = _join_with_candidates(chunk)
        chunk.folder.write_arrays(ids=best.ids, similarities=best.similarities)
        return
    rows, columns = _join_exactly(chunk)
    chunk.folder.write_arrays(
        ids=rows.ids,
        similarities=rows.similarities,
        column_ids=columns.ids,
        column_similarities=columns.similarities,
    )


def count_products(left: sp.csr_array, right: sp.csr_array) -> int:
    """Multiply-adds of the sparse product of all rows."""
    columns = left.shape[1]
    return int(np.bincount(left.indices, minlength=columns) @ np.bincount(right.indices, minlength=columns))


def _join_exactly(chunk: JoinChunk) -> tuple[TopK, TopK]:
    """The best right rows of the chunk's left rows, and the best of these for all right rows, by the cheaper method."""
    join = chunk.join
    left = (join.folder / "left").rows()
    rows, columns = TopK.build_empty(len(chunk.rows), join.k), TopK.build_empty(join.rows[1], join.k)
    scattered = int((join.folder / "columns").arrays()["lengths"][left.select(chunk.rows).indices].sum())
    multiplied = len(chunk.rows) * join.rows[1] * join.columns
    fits = 4 * join.rows[1] * join.columns <= _DENSE_BYTES
    if fits and multiplied * _MULTIPLY_COST < scattered * _SCATTER_COST:
        _join_blocks(chunk, left, rows, columns)
    else:
        _join_postings(chunk, left, rows, columns)
    return rows, columns


def _join_postings(chunk: JoinChunk, left: CsrRows, rows: TopK, columns: TopK) -> None:
    for block in ranges(chunk.join.rows[1], _TARGETS_AT_ONCE):
        postings = (chunk.join.folder / _postings_name(block)).rows()
        columns_of_block = tuple(array[block.start : block.stop] for array in columns)
        sums = np.zeros(len(block), np.float64)
        join_sparse(tuple(left), tuple(postings), chunk.rows.start, block.start, sums, tuple(rows), columns_of_block)


def _join_blocks(chunk: JoinChunk, left: CsrRows, rows: TopK, columns: TopK) -> None:
    width, right = chunk.join.columns, (chunk.join.folder / "right").rows()
    transposed = np.ascontiguousarray(right.to_scipy(width).toarray().T)
    for block in ranges(len(chunk.rows), _ROWS_PER_BLOCK):
        first = chunk.rows.start + block.start
        queries = left.select(range(first, first + len(block))).to_scipy(width).toarray()
        rows_of_block = tuple(array[block.start : block.stop] for array in rows)
        products = queries @ transposed
        join_dense(products, queries, tuple(right), _DENSE_MARGIN, first, rows_of_block, tuple(columns))


def _join_with_candidates(chunk: JoinChunk) -> TopK:
    join, (side, other) = chunk.join, _side_and_other(chunk.side)
    queries, targets = (join.folder / side).rows(), (join.folder / other).rows()
    postings = (join.folder / f"{other}_postings").rows()
    rows = TopK.build_empty(len(chunk.rows), join.k)
    sums = np.zeros(targets.size, np.float64), np.zeros(join.columns, np.float64)
    candidates = np.zeros(join.candidates, np.int32), np.zeros(join.candidates, np.float32)
    first, most_products = chunk.rows.start, join.products_per_row
    join_candidates(
        tuple(queries), tuple(postings), tuple(targets), first, most_products, sums, candidates, tuple(rows)
    )
    return rows
