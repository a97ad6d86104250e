"""Ragged rows: compressed rows to and from Arrow lists, put together, cut short, and found equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from pipeline.compute.row_kernels import group_rows, keep_largest
from pipeline.compute.scratch import Array, Folder, Memory, load_array, made

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


class Rows(NamedTuple):
    """Compressed rows, as scipy's CSR.

    Attributes:
        indptr: int64 [rows + 1], where each row starts.
        indices: int32 [entries], columns, ascending within a row.
        weights: float32 [entries].
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def spill_rows(folder: Folder, parts: Iterable[Rows]) -> None:
    """Write consecutive rows to a folder as they come, all of them or none; a folder that exists is left as it is."""
    if isinstance(folder, Memory):
        folder.arrays = stacked(list(parts))._asdict()
        return

    def write(folder: Path) -> None:
        lengths = [np.zeros(1, np.int64)]
        with (folder / "indices").open("wb") as indices, (folder / "weights").open("wb") as weights:
            for part in parts:
                lengths.append(np.diff(part.indptr))
                part.indices.tofile(indices)
                part.weights.tofile(weights)
        np.save(folder / "indptr.npy", np.cumsum(np.concatenate(lengths)))

    made(folder, write)


def stacked(parts: Sequence[Rows]) -> Rows:
    """Consecutive rows as one; no parts are no rows."""
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.indptr) for part in parts)])
    indices = np.concatenate([np.empty(0, np.int32), *(part.indices for part in parts)])
    weights = np.concatenate([np.empty(0, np.float32), *(part.weights for part in parts)])
    return Rows(np.cumsum(lengths), indices, weights)


def spilled_rows(folder: Folder) -> Rows:
    """The rows of a folder, mapped into memory."""
    if isinstance(folder, Memory):
        return Rows(**folder.arrays)
    indptr = load_array(folder / "indptr.npy")
    return Rows(indptr, _mapped(folder / "indices", np.int32), _mapped(folder / "weights", np.float32))


def _mapped(path: Path, dtype: type) -> Array:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))


def compressed(rows: sp.csr_array) -> Rows:
    """A scipy matrix as compressed rows."""
    return Rows(rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)


def scipy_rows(rows: Rows, columns: int) -> sp.csr_array:
    """Compressed rows as a scipy matrix."""
    return sp.csr_array((rows.weights, rows.indices, rows.indptr), shape=(rows.indptr.size - 1, columns))
