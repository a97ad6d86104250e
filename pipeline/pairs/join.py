"""Join: the k rows of one matrix with the largest dot product with each row of another, both ways at once.

    left rows ─┐                         ┌ sparse: inverted index ┐  best right rows of each left row
    right rows ┴ in files, by chunk   →  └ dense: matrix blocks   ┘→ best left rows of each right row

Where the exact join would cost too much, candidates found over part of the columns are compared in full instead, once
for the left rows and once for the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from data_contracts.settings import PairsSettings
from pipeline.compute.fan_out import ranges
from pipeline.compute.rows import Rows, compressed, scipy_rows, spill_rows, spilled_rows
from pipeline.compute.scratch import Folder, spill_arrays, spilled_arrays
from pipeline.pairs.join_kernels import join_candidates, join_dense, join_sparse, merge_best

_SCATTER_COST, _MULTIPLY_COST = 1.3, 0.04
"""Nanoseconds of one scattered addition and of one addition of a matrix product, measured on one core."""

_DENSE_MARGIN = 1e-5
"""More than the float32 product of two unit rows is off."""

_DENSE_BYTES = 1 << 30
"""Largest dense matrix of right rows."""

_TARGETS_AT_ONCE = 32_768
"""Sums of so many rows stay in a core's cache."""

_ROWS_PER_CHUNK = 8192
_ROWS_PER_BLOCK = 256
_CHECKED_AT_ONCE = 64


class Best(NamedTuple):
    """The best partners of each row of a matrix.

    Attributes:
        ids: int32 [n, k], rows of the other matrix, most similar first, ties in ascending order.
        similarities: float32 [n, k]; 0 where there is no partner.
    """

    ids: npt.NDArray[np.int32]
    similarities: npt.NDArray[np.float32]

    @classmethod
    def none(cls, rows: int, k: int) -> Best:
        """No partners."""
        return cls(np.zeros((rows, k), np.int32), np.zeros((rows, k), np.float32))


@dataclass(frozen=True)
class Join:
    """Two matrices in files, ready to be joined chunk by chunk by any process that sees them.

    Attributes:
        folder: `left`, `right`, and postings: of parts of `right`, or for candidates of both; results by chunk.
        rows: how many left and right rows there are.
        columns: of both.
        k: partners of each row.
        candidates: compared in full for each row; 0 for the exact join.
        products_per_row: multiply-adds that finding candidates may cost for each row.
    """

    folder: Folder
    rows: tuple[int, int]
    columns: int
    k: int
    candidates: int
    products_per_row: int

    @classmethod
    def of(cls, folder: Folder, left: sp.csr_array, right: sp.csr_array, settings: PairsSettings) -> Join:
        """Prepare the join of unit rows; files that an earlier attempt finished are kept."""
        is_exact = products(left, right) <= settings.most_products
        postings = {"left_postings": left, "right_postings": right}
        if is_exact:
            parts = ranges(right.shape[0], _TARGETS_AT_ONCE)
            postings = {_postings_of(part): right[part.start : part.stop] for part in parts}
        matrices = {"left": left, "right": right} | {name: rows.T for name, rows in postings.items()}
        for name, matrix in matrices.items():
            if not (folder / name).exists():
                spill_rows(folder / name, [compressed(sp.csr_array(matrix))])
        spill_arrays(folder / "columns", lengths=np.bincount(right.indices, minlength=right.shape[1]))
        sizes = left.shape[0], right.shape[0]
        candidates = 0 if is_exact else settings.candidates
        return cls(folder, sizes, left.shape[1], settings.k + 1, candidates, settings.products_per_row)

    def chunks(self) -> list[JoinChunk]:
        """The work, in parts of thousands of rows."""
        return [
            JoinChunk(self, side, number, rows)
            for side in ((0, 1) if self.candidates else (0,))
            for number, rows in enumerate(ranges(self.rows[side], _ROWS_PER_CHUNK))
        ]

    def best(self) -> tuple[Best, Best]:
        """The partners of all left and of all right rows, once every chunk is joined."""
        found = Best.none(self.rows[0], self.k), Best.none(self.rows[1], self.k)
        for chunk in self.chunks():
            part = spilled_arrays(chunk.folder)
            own = found[chunk.side]
            own.ids[chunk.rows.start : chunk.rows.stop] = part["ids"]
            own.similarities[chunk.rows.start : chunk.rows.stop] = part["similarities"]
            if not self.candidates:
                merge_best((part["column_ids"], part["column_similarities"]), tuple(found[1]))
        return found

    def largest_products(self, side: int, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """float32 [n], the largest product of each of some rows of one side with any row of the other; 0 for none."""
        own, other = (scipy_rows(spilled_rows(self.folder / name), self.columns) for name in _both(side))
        parts = [rows[part.start : part.stop] for part in ranges(rows.size, _CHECKED_AT_ONCE)]
        largest = [(other @ own[part].T.toarray()).max(axis=0, initial=0.0) for part in parts]
        return np.concatenate([np.empty(0, np.float32), *largest])


def _postings_of(part: range) -> str:
    return f"right_postings-{part.start}"


def _both(side: int) -> tuple[str, str]:
    return ("left", "right") if side == 0 else ("right", "left")


@dataclass(frozen=True)
class JoinChunk:
    """Consecutive rows of one side of a join, 0 left, 1 right."""

    join: Join
    side: int
    number: int
    rows: range

    @property
    def folder(self) -> Folder:
        """Where the result goes."""
        return self.join.folder / f"{_both(self.side)[0]}-{self.number:06d}"


def join_chunk(chunk: JoinChunk) -> None:
    """Join a chunk; one that an earlier attempt finished is left as it is."""
    if chunk.folder.exists():
        return
    if chunk.join.candidates:
        best = _joined_with_candidates(chunk)
        spill_arrays(chunk.folder, ids=best.ids, similarities=best.similarities)
        return
    rows, columns = _joined(chunk)
    spill_arrays(
        chunk.folder,
        ids=rows.ids,
        similarities=rows.similarities,
        column_ids=columns.ids,
        column_similarities=columns.similarities,
    )


def products(left: sp.csr_array, right: sp.csr_array) -> int:
    """Multiply-adds of the sparse product of all rows."""
    columns = left.shape[1]
    return int(np.bincount(left.indices, minlength=columns) @ np.bincount(right.indices, minlength=columns))


def _joined(chunk: JoinChunk) -> tuple[Best, Best]:
    """The best right rows of the chunk's left rows, and the best of these of all right rows; the cheaper way."""
    join = chunk.join
    left = spilled_rows(join.folder / "left")
    rows, columns = Best.none(len(chunk.rows), join.k), Best.none(join.rows[1], join.k)
    entries = left.indices[left.indptr[chunk.rows.start] : left.indptr[chunk.rows.stop]]
    scattered = int(spilled_arrays(join.folder / "columns")["lengths"][entries].sum())
    multiplied = len(chunk.rows) * join.rows[1] * join.columns
    fits = 4 * join.rows[1] * join.columns <= _DENSE_BYTES
    if fits and multiplied * _MULTIPLY_COST < scattered * _SCATTER_COST:
        _join_blocks(chunk, left, rows, columns)
    else:
        _join_postings(chunk, left, rows, columns)
    return rows, columns


def _join_postings(chunk: JoinChunk, left: Rows, rows: Best, columns: Best) -> None:
    for part in ranges(chunk.join.rows[1], _TARGETS_AT_ONCE):
        postings = spilled_rows(chunk.join.folder / _postings_of(part))
        of_part = tuple(array[part.start : part.stop] for array in columns)
        sums = np.zeros(len(part), np.float64)
        join_sparse(tuple(left), tuple(postings), chunk.rows.start, part.start, sums, tuple(rows), of_part)


def _join_blocks(chunk: JoinChunk, left: Rows, rows: Best, columns: Best) -> None:
    width, right = chunk.join.columns, spilled_rows(chunk.join.folder / "right")
    across = np.ascontiguousarray(scipy_rows(right, width).toarray().T)
    for part in ranges(len(chunk.rows), _ROWS_PER_BLOCK):
        first = chunk.rows.start + part.start
        low, high = left.indptr[first], left.indptr[first + len(part)]
        indptr = left.indptr[first : first + len(part) + 1] - low
        block = scipy_rows(Rows(indptr, left.indices[low:high], left.weights[low:high]), width).toarray()
        of_part = tuple(array[part.start : part.stop] for array in rows)
        join_dense(block @ across, block, tuple(right), _DENSE_MARGIN, first, of_part, tuple(columns))


def _joined_with_candidates(chunk: JoinChunk) -> Best:
    join, (side, other) = chunk.join, _both(chunk.side)
    queries, targets = spilled_rows(join.folder / side), spilled_rows(join.folder / other)
    postings = spilled_rows(join.folder / f"{other}_postings")
    rows = Best.none(len(chunk.rows), join.k)
    sums = np.zeros(targets.indptr.size - 1, np.float64), np.zeros(join.columns, np.float64)
    candidates = np.zeros(join.candidates, np.int32), np.zeros(join.candidates, np.float32)
    join_candidates(
        *(tuple(queries), tuple(postings), tuple(targets), chunk.rows.start, join.products_per_row),
        *(sums, candidates, tuple(rows)),
    )
    return rows
