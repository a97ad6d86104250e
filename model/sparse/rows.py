"""Ragged rows: arrays of lists in compressed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.compute.allocator import Room


def pick_rows(indptr: NDArray[np.int64], values: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The chosen rows of a compressed array, one after another, as (indptr, values); repeated rows are repeated."""
    first = indptr[rows]
    lengths = indptr[rows.astype(np.int64) + 1] - first
    picked = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return picked, values[np.arange(picked[-1]) + np.repeat(first - picked[:-1], lengths)]


def row_blocks(indptr: NDArray[np.integer], entries: int = 1 << 20, rows: int = 1 << 16) -> Iterator[tuple[int, int]]:
    """Consecutive rows first … last - 1 with so many entries, and so many rows, at most; a longer row stands alone."""
    first, end = 0, indptr.size - 1
    while first < end:
        last = int(np.searchsorted(indptr, indptr[first] + entries, side="right")) - 1
        last = min(max(last, first + 1), first + rows, end)
        yield first, last
        first = last


def joined_rows(
    blocks: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], room: Room
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Compressed rows, one block after another, as (indptr, values).

    Args:
        blocks: the lengths of a block's rows, and their values.
        room: for the values.
    """
    lengths = [np.zeros(1, np.int64)]

    def values() -> Iterator[NDArray[np.integer]]:
        for block_lengths, block in blocks:
            lengths.append(block_lengths.astype(np.int64))
            yield block

    joined = room.joined(values(), np.int32)
    return np.cumsum(np.concatenate(lengths)), joined


Floats32 = NDArray[np.float32]

_BLOCK_BYTES = 32 * 2**20
"""Scores in memory at once; evidence takes as much again."""


def block_height(items: int) -> int:
    """Users whose scores of all items are in memory at once."""
    return max(1, _BLOCK_BYTES // (4 * max(items, 1)))


Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
