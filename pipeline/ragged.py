"""Ragged rows: compressed rows to and from Arrow lists, put together, cut short, and found equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from pipeline.row_kernels import group_rows, keep_largest

Array = npt.NDArray[Any]

_ELEMENTS_PER_FILE = 1 << 27
"""Arrow's list offsets are int32, and a file is read at once: half a gibibyte of int32."""


def ragged_tables(
    first_node: int, indptr: Array, columns: Mapping[str, Array], elements_per_file: int = _ELEMENTS_PER_FILE
) -> Iterator[pa.Table]:
    """Tables (node, one list column per array) that hold consecutive rows, none above `elements_per_file` elements.

    Args:
        first_node: number of the first row.
        indptr: int [rows + 1], where each row starts in the columns.
        columns: name → array [elements].
        elements_per_file: most list elements of one table; a longer row stands alone.

    Yields:
        At least one table; it has no rows where there are none.
    """
    rows = indptr.size - 1
    start = 0
    while True:
        stop = int(np.searchsorted(indptr, indptr[start] + elements_per_file, side="right")) - 1
        stop = min(rows, max(stop, start + 1))
        low, high = int(indptr[start]), int(indptr[stop])
        offsets = pa.array((indptr[start : stop + 1] - low).astype(np.int32))
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(a[low:high])) for name, a in columns.items()}
        node = pa.array(np.arange(first_node + start, first_node + stop, dtype=np.int32))
        yield pa.table({"node": node, **lists})
        if stop == rows:
            return
        start = stop


def ragged_arrays(table: pa.Table, columns: list[str]) -> tuple[npt.NDArray[np.int64], list[Array]]:
    """Inverse of `ragged_tables` for all rows of a table.

    Returns:
        indptr, int64 [rows + 1], and one array [elements] per column.
    """
    first = table[columns[0]]
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in first.chunks]
    indptr = np.zeros(table.num_rows + 1, np.int64)
    np.cumsum(np.concatenate([np.empty(0, np.int32), *lengths]), out=indptr[1:])
    return indptr, [_elements(table[name]) for name in columns]


def _elements(column: pa.ChunkedArray) -> Array:
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    empty = np.empty(0, column.type.value_type.to_pandas_dtype())
    return np.concatenate([empty, *chunks])


def spread_indptr(lengths: Array, places: Array, size: int) -> npt.NDArray[np.int64]:
    """Starts of `size` rows of which those at ascending places have these lengths and all others are empty."""
    indptr = np.zeros(size + 1, np.int64)
    indptr[places + 1] = lengths
    return np.cumsum(indptr)


def keep_largest_weights(rows: sp.csr_array, limit: int) -> sp.csr_array:
    """Each row cut to its `limit` largest weights, ties to the smaller column."""
    lengths = np.diff(rows.indptr)
    if not lengths.size or lengths.max() <= limit:
        return rows
    entries = int(np.minimum(lengths, limit).sum())
    indptr, indices = np.empty(lengths.size + 1, np.int64), np.empty(entries, np.int32)
    weights = np.empty(entries, np.float32)
    keep_largest(rows.indptr, rows.indices, rows.data, limit, indptr, indices, weights)
    return sp.csr_array((weights, indices, indptr), shape=rows.shape)


def distinct_rows(rows: sp.csr_array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Equal rows found once.

    Returns:
        int64 [distinct], the first row of each kind, ascending; int64 [rows], the place of each row's kind among them.
    """
    count = rows.shape[0]
    first, group_of = np.empty(count, np.int64), np.empty(count, np.int64)
    slots = np.full(1 << (2 * count + 1).bit_length(), -1, np.int64)
    groups = group_rows(rows.indptr, rows.indices, rows.data.view(np.uint32), slots, first, group_of)
    return first[:groups], group_of
