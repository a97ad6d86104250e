"""Memory use of this process."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


class MemoryLimitError(ValueError):
    """Work would take more memory than `compute.memory_mib` allows; nothing was begun."""


@contextmanager
def resident_memory(interval_seconds: float = 0.05) -> Iterator[Callable[[], int]]:
    """Watch the process's resident size until the block ends; the yielded function returns the largest seen, in MiB.

    Unlike `peak_memory_mib`, it ignores what the process used before.
    """
    process, ended = psutil.Process(), threading.Event()
    largest = process.memory_info().rss

    def watch() -> None:
        nonlocal largest
        while not ended.wait(interval_seconds):
            largest = max(largest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: largest // 2**20
    finally:
        ended.set()
        watcher.join()


def peak_memory_mib() -> int:
    """Largest resident size that the process has ever had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)
