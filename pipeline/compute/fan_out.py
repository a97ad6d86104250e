"""Fan-out: one function over many arguments, on this process's threads or on a Dask cluster."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.progress import FinishedPart, Progress, silent
from data_contracts.settings.machine import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def thread_count(compute: ComputeSettings) -> int:
    """Threads to use: the number in the settings, or every CPU that the process may use."""
    return compute.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class TaskProgress:
    """How the progress of a list of tasks is reported.

    Attributes:
        progress: called after each finished task and, where tasks have sizes, before the first.
        unit: what it counts.
        sizes: how many units each task stands for; one by default.
        parts: the part of the work, e.g. a domain, that each task belongs to, reported when its last task is finished.
    """

    progress: Progress = silent
    unit: str = "tasks"
    sizes: Sequence[int] | None = None
    parts: Sequence[str] | None = None


_NO_REPORT = TaskProgress()


def fan_out(
    function: Callable[[T], R], arguments: Sequence[T], compute: ComputeSettings, report: TaskProgress = _NO_REPORT
) -> list[R]:
    """`[function(a) for a in arguments]`, in parallel.

    Args:
        function: picklable where a Dask scheduler is configured; its result may not depend on the order of tasks, and
            what it writes is complete or absent, because a lost worker's task runs again elsewhere.
        arguments: one per task.
        compute: how many threads, or which Dask scheduler.
        report: whom to report progress to, and in which units.

    Returns:
        Results in the order of `arguments`; an empty list for no arguments. On a cluster they travel through the
        scheduler, so large ones belong in files.

    Raises:
        ConnectionError: no scheduler answers, or it was lost.
        OSError: one task killed every worker that tried it; tasks of other lost workers run again.
        Exception: a task's own error, as soon as it is known; tasks that have not started are cancelled.
    """
    if not arguments:
        return []
    counter = _ProgressCounter(report, len(arguments))
    if compute.dask_scheduler is not None:
        return _on_cluster(function, arguments, compute.dask_scheduler, counter)
    from dask.base import compute as run  # noqa: PLC0415 - slow to import, and finding finished artifacts needs none
    from dask.delayed import delayed  # noqa: PLC0415

    def run_task(index: int) -> R:
        result = function(arguments[index])
        counter.finished(index)
        return result

    tasks = [delayed(run_task, pure=False)(index) for index in range(len(arguments))]
    return list(run(*tasks, scheduler="threads", num_workers=thread_count(compute)))


class _ProgressCounter:
    """Adds up the units of tasks that finish in any order, on any thread."""

    def __init__(self, report: TaskProgress, tasks: int) -> None:
        self._progress, self._unit = report.progress, report.unit
        self._sizes, self._parts = report.sizes or [1] * tasks, report.parts or [""] * tasks
        self._total, self._done, self._tasks_left, self._lock = sum(self._sizes), 0, Counter(self._parts), Lock()
        if report.sizes:
            # The first of such tasks may take long, and speed is measured from now on.
            self._progress(0, self._total, self._unit)

    def finished(self, index: int) -> None:
        with self._lock:
            part = self._parts[index]
            self._done += self._sizes[index]
            self._tasks_left[part] -= 1
            notes = [FinishedPart(part)] if part and not self._tasks_left[part] else []
            self._progress(self._done, self._total, self._unit, *notes)


def _on_cluster(function: Callable[[T], R], arguments: Sequence[T], address: str, counter: _ProgressCounter) -> list[R]:
    """`fan_out` on a Dask cluster. Leaving the client, for whatever reason, cancels tasks that have not started."""
    from distributed import as_completed  # noqa: PLC0415 - slow to import, rarely needed

    results: dict[int, R] = {}
    with _connected(address) as client:
        futures = client.map(function, arguments, pure=False)
        index_of = {future.key: index for index, future in enumerate(futures)}
        for finished in as_completed(futures, loop=client.loop).batches():
            for future, result in zip(finished, client.gather(finished), strict=True):
                index = index_of[future.key]
                results[index] = result
                counter.finished(index)
                future.release()
    return [results[index] for index in range(len(arguments))]


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """A client of the scheduler; failures of the cluster, not of a task, become errors that name a remedy."""
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
    if not log.isEnabledFor(logging.DEBUG):  # our error names a lost scheduler, so the client's traceback adds nothing
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return Client(address, set_as_default=False)
    except OSError as error:
        remedy = "start one there, correct the address, or remove it to use this machine's threads"
        raise ConnectionError(f"{where} does not answer: {error}; {remedy}") from error


def stream(function: Callable[[T], R], arguments: Sequence[T], compute: ComputeSettings) -> Iterator[R]:
    """Results in the order of `arguments`, computed on this process's threads just ahead of the consumer.

    At most twice as many results as threads are buffered, so memory stays bounded however long the list is.
    """
    count, remaining = thread_count(compute), iter(arguments)
    with ThreadPoolExecutor(count) as pool:
        pending = [pool.submit(function, argument) for argument in islice(remaining, 2 * count)]
        while pending:
            yield pending.pop(0).result()
            pending += [pool.submit(function, argument) for argument in islice(remaining, 1)]


def ranges(total: int, size: int) -> list[range]:
    """Consecutive ranges of at most `size` numbers that cover 0 … total - 1; none where total is 0."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def bounded_ranges(sizes: npt.NDArray[np.integer], most: int) -> list[range]:
    """Consecutive ranges over `sizes` whose sums are at most `most`; a larger size has a range of its own."""
    until = np.concatenate([[0], np.cumsum(sizes)])
    blocks: list[range] = []
    start = 0
    while start < sizes.size:
        stop = int(np.searchsorted(until, until[start] + most, side="right")) - 1
        blocks.append(range(start, max(stop, start + 1)))
        start = blocks[-1].stop
    return blocks
