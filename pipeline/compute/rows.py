"""CSR rows: to and from Arrow lists and SciPy, joined, cut to their largest weights, and grouped where equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from pipeline.compute.dtypes import Array, Ints, Longs
from pipeline.compute.fan_out import bounded_ranges
from pipeline.compute.row_kernels import group_rows, keep_largest

_ELEMENTS_PER_FILE = 1 << 27
"""Arrow's list offsets are int32, and a file is read at once: half a gibibyte of int32."""


class CsrRows(NamedTuple):
    """Compressed sparse rows, as SciPy's CSR.

    Attributes:
        indptr: int64 [rows + 1], where each row starts.
        indices: int32 [entries], columns, ascending within a row.
        weights: float32 [entries].
    """

    indptr: Longs
    indices: Ints
    weights: npt.NDArray[np.float32]

    @classmethod
    def from_scipy(cls, matrix: sp.csr_array) -> Self:
        """The rows of a SciPy matrix."""
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False), matrix.data)

    @classmethod
    def build_empty(cls, rows: int, capacity: int) -> Self:
        """Uninitialised arrays for a kernel to fill, with space for `capacity` entries."""
        return cls(np.empty(rows + 1, np.int64), np.empty(capacity, np.int32), np.empty(capacity, np.float32))

    @classmethod
    def stack(cls, blocks: Sequence[CsrRows]) -> Self:
        """Blocks of consecutive rows as one; no blocks are no rows."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(block.indptr) for block in blocks)])
        indices = np.concatenate([np.empty(0, np.int32), *(block.indices for block in blocks)])
        weights = np.concatenate([np.empty(0, np.float32), *(block.weights for block in blocks)])
        return cls(np.cumsum(lengths), indices, weights)

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.indptr.size - 1

    def to_scipy(self, columns: int) -> sp.csr_array:
        """The same rows as a SciPy matrix of so many columns."""
        return sp.csr_array((self.weights, self.indices, self.indptr), shape=(self.size, columns))

    def trimmed(self) -> CsrRows:
        """Without the unused capacity behind the last entry."""
        entries = int(self.indptr[-1])
        return CsrRows(self.indptr, self.indices[:entries], self.weights[:entries])

    def select(self, rows: range) -> CsrRows:
        """Consecutive rows; their entries are views."""
        low, high = self.indptr[rows.start], self.indptr[rows.stop]
        return CsrRows(self.indptr[rows.start : rows.stop + 1] - low, self.indices[low:high], self.weights[low:high])


def ragged_tables(
    first_node: int, indptr: Array, columns: Mapping[str, Array], elements_per_file: int = _ELEMENTS_PER_FILE
) -> Iterator[pa.Table]:
    """Tables (node, one list column per array) that hold consecutive rows, none above `elements_per_file` elements.

    Args:
        first_node: number of the first row.
        indptr: int [rows + 1], where each row starts in the columns.
        columns: name → array [elements].
        elements_per_file: most list elements of one table; a longer row has a table of its own.

    Yields:
        At least one table, without rows where there are none.
    """
    for rows in bounded_ranges(np.diff(indptr), elements_per_file) or [range(0)]:
        low, high = int(indptr[rows.start]), int(indptr[rows.stop])
        offsets = pa.array((indptr[rows.start : rows.stop + 1] - low).astype(np.int32))
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(a[low:high])) for name, a in columns.items()}
        node = pa.array(np.arange(first_node + rows.start, first_node + rows.stop, dtype=np.int32))
        yield pa.table({"node": node, **lists})


def ragged_arrays(table: pa.Table, columns: list[str]) -> tuple[Longs, list[Array]]:
    """Inverse of `ragged_tables` for all rows of a table.

    Returns:
        indptr, int64 [rows + 1], and one array [elements] per column.
    """
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in table[columns[0]].chunks]
    indptr = np.zeros(table.num_rows + 1, np.int64)
    np.cumsum(np.concatenate([np.empty(0, np.int32), *lengths]), out=indptr[1:])
    return indptr, [_elements(table[name]) for name in columns]


def _elements(column: pa.ChunkedArray) -> Array:
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    empty = np.empty(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *chunks])


def scatter_indptr(lengths: Array, rows: Array, size: int) -> Longs:
    """Starts of `size` rows of which these ascending ones have these lengths and all others are empty."""
    indptr = np.zeros(size + 1, np.int64)
    indptr[rows + 1] = lengths
    return np.cumsum(indptr)


def keep_largest_weights(rows: sp.csr_array, limit: int) -> sp.csr_array:
    """Each row cut to its `limit` largest weights, ties to the smaller column."""
    lengths = np.diff(rows.indptr)
    if not lengths.size or lengths.max() <= limit:
        return rows
    kept = CsrRows.build_empty(lengths.size, int(np.minimum(lengths, limit).sum()))
    keep_largest(rows.indptr, rows.indices, rows.data, limit, kept.indptr, kept.indices, kept.weights)
    return kept.to_scipy(rows.shape[1])


def group_equal_rows(rows: sp.csr_array) -> tuple[Longs, Longs]:
    """Group equal rows.

    Returns:
        int64 [groups], the first row of each group, ascending; int64 [rows], the group of each row.
    """
    count = rows.shape[0]
    first, group_of = np.empty(count, np.int64), np.empty(count, np.int64)
    slots = np.full(1 << (2 * count + 1).bit_length(), -1, np.int64)
    groups = group_rows(rows.indptr, rows.indices, rows.data.view(np.uint32), slots, first, group_of)
    return first[:groups], group_of
