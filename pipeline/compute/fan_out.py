"""Fan-out: one function over many arguments, on this process's threads or on a Dask cluster."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.progress import Part, Progress, silent
from data_contracts.settings import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def threads(compute: ComputeSettings) -> int:
    """Threads to use: those asked for, or every CPU that the process may use."""
    return compute.threads or len(os.sched_getaffinity(0))


def fan_out(
    function: Callable[[T], R],
    arguments: Sequence[T],
    compute: ComputeSettings,
    progress: Progress = silent,
    unit: str = "tasks",
    sizes: Sequence[int] | None = None,
    parts: Sequence[str] | None = None,
) -> list[R]:
    """`[function(a) for a in arguments]`, in parallel.

    Args:
        function: picklable where a Dask scheduler is configured; its result may not depend on order or turn, and
            what it writes is whole or absent, because a lost worker's task runs again elsewhere.
        arguments: one per task.
        compute: how many threads, or which Dask scheduler.
        progress: told after each finished task and, where tasks stand for many units, before the first.
        unit: what progress counts.
        sizes: how many units each task stands for; by default one.
        parts: the part of the work, e.g. a domain, that each task belongs to: progress is told when it is finished.

    Returns:
        Results in the order of `arguments`; an empty list for no arguments. On a cluster they travel through the
        scheduler, so large ones belong in files.

    Raises:
        ConnectionError: no scheduler answers, or it was lost.
        OSError: one task killed every worker that it was tried on; other lost workers' tasks just run again.
        Exception: a task's own error, as soon as it is known; tasks that have not begun are given up.
    """
    if not arguments:
        return []
    if sizes:
        # It may take long until the first of such tasks is finished, and speed is measured from here.
        progress(0, sum(sizes), unit)
    counted = _Counted(progress, sizes or [1] * len(arguments), unit, parts or [""] * len(arguments))
    if compute.dask_scheduler is not None:
        return _on_cluster(function, arguments, compute.dask_scheduler, counted)
    from dask.base import compute as run  # noqa: PLC0415 - slow to import, and finding finished artifacts needs none
    from dask.delayed import delayed  # noqa: PLC0415

    def told(index: int) -> R:
        result = function(arguments[index])
        counted.finished(index)
        return result

    tasks = [delayed(told, pure=False)(index) for index in range(len(arguments))]
    return list(run(*tasks, scheduler="threads", num_workers=threads(compute)))


class _Counted:
    """Progress in units of tasks that finish in any order, on any thread."""

    def __init__(self, progress: Progress, sizes: Sequence[int], unit: str, parts: Sequence[str]) -> None:
        self._progress, self._sizes, self._unit, self._parts = progress, sizes, unit, parts
        self._total, self._done, self._left, self._lock = sum(sizes), 0, Counter(parts), Lock()

    def finished(self, index: int) -> None:
        with self._lock:
            part = self._parts[index]
            self._done += self._sizes[index]
            self._left[part] -= 1
            note = [Part(part)] if part and not self._left[part] else []
            self._progress(self._done, self._total, self._unit, *note)


def _on_cluster(function: Callable[[T], R], arguments: Sequence[T], address: str, counted: _Counted) -> list[R]:
    """As `fan_out`. Leaving the client, for whatever reason, cancels what has not begun."""
    from distributed import as_completed  # noqa: PLC0415 - slow to import, rarely needed

    results: dict[int, R] = {}
    with _connected(address) as client:
        futures = client.map(function, arguments, pure=False)
        index_of = {future.key: index for index, future in enumerate(futures)}
        for finished in as_completed(futures, loop=client.loop).batches():
            for future, result in zip(finished, client.gather(finished), strict=True):
                index = index_of[future.key]
                results[index] = result
                counted.finished(index)
                future.release()
    return [results[index] for index in range(len(arguments))]


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """A client of the scheduler; what goes wrong with the cluster, and not with a task, is told with its remedy."""
    from distributed import KilledWorker  # noqa: PLC0415

    where = f"the Dask scheduler at {address} (compute.dask_scheduler)"
    with _client(address, where) as client:
        if not client.nthreads():
            log.warning("%s has no workers; waiting for some", where)
        try:
            yield client
        except CancelledError as error:
            raise ConnectionError(f"{where} was lost; run again, finished chunks are kept") from error
        except KilledWorker as error:
            remedy = "where memory ran out, lower compute.memory_mib or give workers more; finished chunks are kept"
            raise OSError(f"{where} lost {error.allowed_failures + 1} workers to one task; {remedy}") from error


def _client(address: str, where: str) -> Client:
    from distributed import Client  # noqa: PLC0415
    from distributed.comm.addressing import get_address_host_port, normalize_address  # noqa: PLC0415

    try:
        get_address_host_port(normalize_address(address), strict=True)
    except ValueError as error:
        raise ValueError(f"compute.dask_scheduler is {address!r}, must be like tcp://host:8786: {error}") from error
    try:
        return Client(address, set_as_default=False)
    except OSError as error:
        remedy = "start one there, correct the address, or remove it to use this machine's threads"
        raise ConnectionError(f"{where} does not answer: {error}; {remedy}") from error


def stream(function: Callable[[T], R], arguments: Sequence[T], compute: ComputeSettings) -> Iterator[R]:
    """Results in the order of `arguments`, computed on this process's threads only a little ahead of the consumer.

    At most twice as many results as threads wait at a time, so memory stays bounded however long the list is.
    """
    count, waiting = threads(compute), iter(arguments)
    with ThreadPoolExecutor(count) as pool:
        pending = [pool.submit(function, argument) for argument in islice(waiting, 2 * count)]
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(function, argument) for argument in islice(waiting, 1)]


def ranges(total: int, size: int) -> list[range]:
    """Consecutive ranges of at most `size` numbers that cover 0 … total - 1; none where total is 0."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def bounded_ranges(sizes: npt.NDArray[np.int64], most: int) -> list[range]:
    """Consecutive ranges over `sizes` whose sums are at most `most`; a larger one stands alone."""
    until = np.concatenate([[0], np.cumsum(sizes)])
    found, start = [], 0
    while start < sizes.size:
        stop = int(np.searchsorted(until, until[start] + most, side="right")) - 1
        found.append(range(start, max(stop, start + 1)))
        start = found[-1].stop
    return found
