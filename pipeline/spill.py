"""Spill: arrays in files, mapped back when needed: memory holds what is in use, and a restart finds them again.

Where arrays come in and arrays go out, a `Memory` takes a folder's place, and there are no files.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from pipeline.scratch import made

Array = npt.NDArray[Any]

_SMALL = 1000

_LOADING = threading.Lock()


def is_small(nodes: int) -> bool:
    """Of one or two domains with so many nodes keeping arrays in files would take longer than the work on them."""
    return nodes <= _SMALL


class Memory:
    """Stands in for a folder: arrays by name, in this process alone."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._inner: dict[str, Memory] = {}

    def __truediv__(self, name: str) -> Memory:
        return self._inner.setdefault(name, Memory())

    def exists(self) -> bool:
        """Arrays were put here."""
        return bool(self.arrays)


Folder = Path | Memory
"""Where arrays are kept."""


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


def load_array(path: Path, mode: Literal["r", "c"] | None = None) -> Array:
    """As `np.load`, one thread at a time; `mode` maps the file.

    Two threads that parse headers at once may fail in CPython before 3.11.8 (its issue 106905).
    """
    with _LOADING:
        array: Array = np.load(path, mmap_mode=mode)
    return array


def spill_arrays(folder: Folder, **arrays: Array) -> None:
    """Write arrays to a folder, all of them or none; a folder that exists is left as it is."""
    if isinstance(folder, Memory):
        folder.arrays = arrays
        return

    def write(folder: Path) -> None:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    made(folder, write)


def spilled_arrays(folder: Folder) -> dict[str, Array]:
    """The arrays of a folder by name, mapped into memory; what is written to them does not reach the files."""
    if isinstance(folder, Memory):
        return folder.arrays
    return {path.stem: np.asarray(load_array(path, mode="c")) for path in sorted(folder.glob("*.npy"))}


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


def dropped(folder: Folder) -> None:
    """Remove a folder's arrays."""
    if isinstance(folder, Memory):
        folder.arrays = {}
    else:
        shutil.rmtree(folder)


def compressed(rows: sp.csr_array) -> Rows:
    """A scipy matrix as compressed rows."""
    return Rows(rows.indptr.astype(np.int64), rows.indices.astype(np.int32, copy=False), rows.data)


def scipy_rows(rows: Rows, columns: int) -> sp.csr_array:
    """Compressed rows as a scipy matrix."""
    return sp.csr_array((rows.weights, rows.indices, rows.indptr), shape=(rows.indptr.size - 1, columns))
