"""Memory use of this process."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class MemoryLimitError(ValueError):
    """Work would take more memory than is free, or than `compute.memory_mib` allows; nothing was begun."""


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, of its control group (a container), of its own limit."""
    import psutil  # noqa: PLC0415 - slow to import, and most commands need none

    free = [int(psutil.virtual_memory().available)]
    with suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup")
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        caches = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        if limit != "max":
            free.append(int(limit) - used + int(caches["inactive_file"]))
    own_limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if own_limit != resource.RLIM_INFINITY:
        free.append(own_limit - int(psutil.Process().memory_info().vms))
    return max(min(free), 0)


def require_memory(needed: int, work: str, remedy: str) -> None:
    """Refuse work that cannot fit, before the system kills the process for it.

    Args:
        needed: bytes that the work takes at least.
        work: what it is, with its sizes.
        remedy: what to do.

    Raises:
        MemoryLimitError: less memory is free.
    """
    free = free_memory()
    if needed > free:
        raise MemoryLimitError(
            f"{work}: takes at least {needed >> 20:,} MiB of memory, {free >> 20:,} are free; {remedy}"
        )


@contextmanager
def resident_memory(interval_seconds: float = 0.05) -> Iterator[Callable[[], int]]:
    """Watch the process's resident size until the block ends; the yielded function returns the largest seen, in MiB.

    Unlike `peak_memory_mib`, it ignores what the process used before.
    """
    import psutil  # noqa: PLC0415

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


def raise_open_files() -> None:
    """Let this process, and those that it starts, open as many files at once as thousands of domains need.

    A stage holds a file open for each bucket and domain; usual soft limits are 1,024 and, on macOS, 256.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for enough in _OPEN_FILES:
        wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


_OPEN_FILES = (65_536, 10_240)
"""Enough for thousands of domains, and what macOS allows where it says that there is no hard limit."""
