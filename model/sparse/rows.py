"""Compressed rows (indptr, values): pick some, split them into blocks, join blocks; and names for array types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.compute.allocator import Allocator

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats32 = NDArray[np.float32]

_BLOCK_BYTES = 32 * 2**20
"""Size of the scores in memory at once; evidence takes as much again."""


def pick_rows(indptr: NDArray[np.int64], values: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The chosen rows of a compressed array, one after another, as (indptr, values); repeated rows are repeated."""
    first = indptr[rows]
    lengths = indptr[rows.astype(np.int64) + 1] - first
    picked = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return picked, values[np.arange(picked[-1]) + np.repeat(first - picked[:-1], lengths)]


def row_blocks(indptr: NDArray[np.integer], entries: int = 1 << 20, rows: int = 1 << 16) -> Iterator[tuple[int, int]]:
    """Ranges (first, last) of rows, limited in entries and in rows; a row with more entries is alone in its range."""
    first, end = 0, indptr.size - 1
    while first < end:
        last = int(np.searchsorted(indptr, indptr[first] + entries, side="right")) - 1
        last = min(max(last, first + 1), first + rows, end)
        yield first, last
        first = last


def concat_rows(
    blocks: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]], allocator: Allocator
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Blocks of compressed rows joined end to end, as (indptr, values).

    Args:
        blocks: the lengths of a block's rows, and their values.
        allocator: of the values.
    """
    lengths = [np.zeros(1, np.int64)]

    def values() -> Iterator[NDArray[np.integer]]:
        for block_lengths, block in blocks:
            lengths.append(block_lengths.astype(np.int64))
            yield block

    joined = allocator.concatenate(values(), np.int32)  # reads all blocks, and with them the lengths
    return np.cumsum(np.concatenate(lengths)), joined


def block_height(items: int) -> int:
    """How many users to score at once, so that the scores of all items fit in memory."""
    return max(1, _BLOCK_BYTES // (4 * max(items, 1)))
