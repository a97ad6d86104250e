"""Ragged arrays: rows of different length as (indptr, values), to and from Arrow lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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
