"""Array folders: named arrays or CSR rows, kept in memory or in files that every process can map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.compute.dtypes import Array
from pipeline.compute.rows import CsrRows
from pipeline.compute.scratch import ensure_folder, is_damaged, load_array, remove_folder

_SMALL = 1000


class ArrayFolder(ABC):
    """Keeps arrays by name, or consecutive CSR rows; what is written once is not written again."""

    is_shared: bool
    """Whether other processes see what this one writes."""

    @abstractmethod
    def __truediv__(self, name: str) -> ArrayFolder:
        """The folder of this name within the folder."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether something was written to it and is not damaged, so that it need not be written again."""

    @abstractmethod
    def is_damaged(self) -> bool:
        """Whether something was written to it and is not what was written any more."""

    @abstractmethod
    def write_arrays(self, **arrays: Array) -> None:
        """Write arrays, all of them or none; a folder that exists on disk is left unchanged."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """The arrays by name. Those on disk are mapped, and writing to them does not reach the files."""

    @abstractmethod
    def write_rows(self, blocks: Iterable[CsrRows]) -> None:
        """Write consecutive rows by blocks, all of them or none; a folder that exists on disk is left unchanged."""

    @abstractmethod
    def rows(self) -> CsrRows:
        """The rows; those on disk are mapped."""

    @abstractmethod
    def remove(self) -> None:
        """Delete what was written."""


class MemoryArrays(ArrayFolder):
    """Arrays in this process's memory; a pickled copy has its own."""

    is_shared = False

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._folders: dict[str, MemoryArrays] = {}

    def __truediv__(self, name: str) -> MemoryArrays:
        return self._folders.setdefault(name, MemoryArrays())

    def exists(self) -> bool:
        """Whether arrays were written here."""
        return bool(self._arrays)

    def is_damaged(self) -> bool:
        """Memory is not checked."""
        return False

    def write_arrays(self, **arrays: Array) -> None:
        """Keep references to the arrays, in place of earlier ones."""
        self._arrays = arrays

    def arrays(self) -> dict[str, Array]:
        """The arrays by name."""
        return self._arrays

    def write_rows(self, blocks: Iterable[CsrRows]) -> None:
        """Join the blocks and keep the result."""
        self._arrays = CsrRows.stack(list(blocks))._asdict()

    def rows(self) -> CsrRows:
        """The rows."""
        return CsrRows(**self._arrays)

    def remove(self) -> None:
        """Drop the references."""
        self._arrays = {}


@dataclass(frozen=True)
class DiskArrays(ArrayFolder):
    """Arrays as files of one folder on disk; can be pickled and used by any process that sees the folder."""

    path: Path
    is_shared = True

    def __truediv__(self, name: str) -> DiskArrays:
        return DiskArrays(self.path / name)

    def exists(self) -> bool:
        """Whether the folder is there, which means that it is complete, and has the files that were written."""
        return self.path.exists() and not is_damaged(self.path)

    def is_damaged(self) -> bool:
        """Whether the folder is there with other files than were written."""
        return is_damaged(self.path)

    def write_arrays(self, **arrays: Array) -> None:
        """Write a .npy file for each array."""

        def write(folder: Path) -> None:
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)

        ensure_folder(self.path, write)

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, mapped copy-on-write."""
        return {path.stem: np.asarray(load_array(path, mode="c")) for path in sorted(self.path.glob("*.npy"))}

    def write_rows(self, blocks: Iterable[CsrRows]) -> None:
        """Append the entries of each block to plain binary files; only one block is in memory at a time."""

        def write(folder: Path) -> None:
            lengths = [np.zeros(1, np.int64)]
            with (folder / "indices").open("wb") as indices, (folder / "weights").open("wb") as weights:
                for block in blocks:
                    lengths.append(np.diff(block.indptr))
                    block.indices.tofile(indices)
                    block.weights.tofile(weights)
            np.save(folder / "indptr.npy", np.cumsum(np.concatenate(lengths)))

        ensure_folder(self.path, write)

    def rows(self) -> CsrRows:
        """The rows, mapped copy-on-write."""
        indptr = load_array(self.path / "indptr.npy")
        return CsrRows(indptr, _map_file(self.path / "indices", np.int32), _map_file(self.path / "weights", np.float32))

    def remove(self) -> None:
        """Delete the folder."""
        remove_folder(self.path)


def _map_file(path: Path, dtype: type) -> Array:
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))


def is_small(nodes: int) -> bool:
    """Whether domains of so many nodes are done faster in memory than arrays could be written to files."""
    return nodes <= _SMALL


def arrays_for(nodes: int, path: Path) -> ArrayFolder:
    """Memory for the arrays of small domains, a folder on disk for those of others."""
    return MemoryArrays() if is_small(nodes) else DiskArrays(path)
