"""Under torchrun: the first process runs the command, the others take part in its trainings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from model.compute.column_parallel import Columns

T = TypeVar("T")

columns: ContextVar[Columns | None] = ContextVar("columns", default=None)
"""The columns of this process, where there are several."""


def are_several(environment: Mapping[str, str]) -> bool:
    """Torchrun has started more processes than this one."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


def is_first(environment: Mapping[str, str]) -> bool:
    """This process is the one that runs the command, writes and tells."""
    return not are_several(environment) or environment["RANK"] == "0"


def in_ranks(lead: Callable[[], T]) -> T | None:
    """Run a command in the first process, with the others at hand; None in the others."""
    if not are_several(os.environ):
        return lead()
    from model.compute.column_parallel import grouped
    from model.training.stage import take_part
    from model.training.workers import dismiss, follow

    # By SIGTERM torchrun ends what is left of a job: as an interruption it is told, not the end at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with grouped(os.environ) as own:
        if own.rank:
            follow(own, take_part)
            return None
        token = columns.set(own)
        try:
            result = lead()
        finally:
            columns.reset(token)
        dismiss(own)
        return result
