"""Memory that work takes."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def resident_memory(interval_seconds: float = 0.05) -> Iterator[Callable[[], int]]:
    """Watch the process's resident size until the block ends; call what is yielded for the largest seen, in MiB.

    Other than `peak_memory_mib` it forgets what the process did before.
    """
    process, ended = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not ended.wait(interval_seconds):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: seen[0] // 2**20
    finally:
        ended.set()
        watcher.join()


def peak_memory_mib() -> int:
    """Largest resident size the process ever had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)
