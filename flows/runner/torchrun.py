"""Under torchrun the first process runs the command, and the others are workers of its trainings."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from model.compute.column_parallel import ColumnParallel

T = TypeVar("T")

group: ContextVar[ColumnParallel | None] = ContextVar("group", default=None)
"""The process group; None in a single process."""


def is_multi_process(environment: Mapping[str, str]) -> bool:
    """Torchrun has started several processes."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


def is_first(environment: Mapping[str, str]) -> bool:
    """This process runs the command and writes files and messages."""
    return not is_multi_process(environment) or environment["RANK"] == "0"


def record_error(problem: str, environment: Mapping[str, str]) -> None:
    """Write an error to the file in which torchrun looks for why a process ended, so that it shows this line."""
    if path := environment.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": problem, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": {"message": problem, "extraInfo": extra}}), encoding="utf-8")


def run_under_torchrun(command: Callable[[], T]) -> T | None:
    """Run a command in the first process, with the others as workers, which return None; or in the only process."""
    if not is_multi_process(os.environ):
        return command()
    from model.compute.column_parallel import process_group
    from model.training.stage import train_worker
    from model.training.workers import stop_workers, worker_loop

    # torchrun ends the remaining processes by SIGTERM: handled as an interruption, it is reported like one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with process_group(os.environ) as processes:
        if processes.rank:
            worker_loop(processes, train_worker)
            return None
        token = group.set(processes)
        try:
            result = command()
        finally:
            group.reset(token)
        stop_workers(processes)
        return result
