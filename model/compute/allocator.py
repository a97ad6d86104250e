"""Allocators of large arrays: RAM, or unlinked memory-mapped files that the kernel may page out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Allocator:
    """Allocates arrays in RAM."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array."""
        return np.empty(shape, dtype)

    def concatenate(self, arrays: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """One-dimensional arrays joined end to end; of length 0 if there are none."""
        return np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype)


class MappedAllocator(Allocator):
    """Allocates arrays in files without a name: the file goes with its array, even if the process is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array.

        Raises:
            OSError: the disk is full. Space is reserved here because writing to an array without it is a bus error.
        """
        with TemporaryFile(dir=self._folder) as file:
            size = prod(shape) * np.dtype(dtype).itemsize
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return _map_file(file, shape, dtype)

    def concatenate(self, arrays: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """One-dimensional arrays joined end to end; of length 0 if there are none."""
        with TemporaryFile(dir=self._folder) as file:
            for array in arrays:
                file.write(np.ascontiguousarray(array, dtype).data)
            return _map_file(file, (file.tell() // np.dtype(dtype).itemsize,), dtype)


def _map_file(file: IO[bytes], shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    file.flush()
    return np.empty(shape, dtype) if 0 in shape else np.asarray(np.memmap(file, dtype, "r+", shape=shape))


IN_MEMORY = Allocator()
