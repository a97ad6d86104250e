"""Threads: how many torch and our own compiled loops may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import torch

_WORTH_SHARING = 1 << 22
"""Operations below which starting threads costs more than they gain."""


@contextmanager
def torch_threads(threads: int, processes: int = 1) -> Iterator[None]:
    """Set torch's number of threads until the block ends; 0: an equal share of the CPUs for each of `processes`."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_rows(rows: int, operations: int, work: Callable[[int, int], None]) -> None:
    """Split rows among as many threads as torch may use: `work(first, last)` does rows first … last - 1.

    `work` must release the interpreter's lock, and rows must not depend on each other.
    """
    threads = torch.get_num_threads() if operations >= _WORTH_SHARING else 1
    bounds = [rows * thread // threads for thread in range(threads + 1)]
    if threads == 1:
        work(0, rows)
        return
    list(_pool(os.getpid(), threads).map(work, bounds[:-1], bounds[1:]))


@lru_cache(maxsize=1)
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: starting them costs up to a millisecond, many times a step. A fork starts its own."""
    return ThreadPoolExecutor(threads)
