"""Threads: how many torch and our own loops may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import torch

_WORTH_SHARING = 1 << 22
"""Operations from which threads gain more than starting them costs."""


@contextmanager
def torch_threads(threads: int, beside: int = 1) -> Iterator[None]:
    """Let torch use so many threads until the block ends; 0: this process's share of those that `beside` may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // beside))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_rows(rows: int, operations: int, work: Callable[[int, int], None]) -> None:
    """Share rows out among as many threads as torch may use: `work(first, last)` does rows first … last - 1.

    It must let go of the interpreter's lock, and rows must not depend on each other.
    """
    parts = torch.get_num_threads() if operations >= _WORTH_SHARING else 1
    bounds = [rows * part // parts for part in range(parts + 1)]
    if parts == 1:
        work(0, rows)
        return
    list(_pool(os.getpid(), parts).map(work, bounds[:-1], bounds[1:]))


@lru_cache(maxsize=1)
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay: starting them costs up to a millisecond, many times a step. A fork starts its own."""
    return ThreadPoolExecutor(threads)
