"""The machine a stage runs on: its device and, for as long as the stage runs, its threads."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import psutil

if TYPE_CHECKING:
    import torch


def device_of(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device a setting names; auto takes CUDA where there is one.

    Raises:
        RuntimeError: CUDA is asked for and not there.
    """
    import torch  # noqa: PLC0415 - whoever only watches memory shall not carry torch in it

    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("device 'cuda': no CUDA device is available to this torch; set device to 'auto' or 'cpu'")
    chosen = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(chosen, torch.cuda.current_device()) if chosen == "cuda" else torch.device(chosen)


@contextmanager
def torch_threads(threads: int, beside: int = 1) -> Iterator[None]:
    """Let torch use so many threads until the block ends; 0: this process's share of those that `beside` may use."""
    import torch  # noqa: PLC0415 - as above

    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // beside))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
