"""Room for large arrays: memory, or files whose pages the kernel may take back and read again when they are touched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Room:
    """Room in memory."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array to be filled."""
        return np.empty(shape, dtype)

    def joined(self, parts: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """One-dimensional arrays, one after another; empty where there is none."""
        return np.concatenate([np.empty(0, dtype), *parts], dtype=dtype)


class FileRoom(Room):
    """Room in files without names: an array's file goes with the array, even if the process is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array to be filled.

        Raises:
            OSError: the disk is full; without asking first, writing to the array would end the process.
        """
        with TemporaryFile(dir=self._folder) as file:
            size = prod(shape) * np.dtype(dtype).itemsize
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return _mapped(file, shape, dtype)

    def joined(self, parts: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
        """One-dimensional arrays, one after another; empty where there is none."""
        with TemporaryFile(dir=self._folder) as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype).data)
            return _mapped(file, (file.tell() // np.dtype(dtype).itemsize,), dtype)


def _mapped(file: IO[bytes], shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    file.flush()
    return np.empty(shape, dtype) if 0 in shape else np.asarray(np.memmap(file, dtype, "r+", shape=shape))


MEMORY = Room()
