"""What a person sees while a run works: bars on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from data_contracts.progress import Progress

Watch = Callable[[str], AbstractContextManager[Progress]]
"""From a role that is about to be made to whoever is told how far it is."""

PACKAGES = ("data_contracts", "pipeline", "model", "flows")
SECONDS_BETWEEN_LINES = 5.0


def log_lines(tell: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> Watch:
    """Watch work by log lines: nothing before the first few seconds, then one line every few seconds.

    Args:
        tell: takes a line, e.g. a logger's `info`.
        clock: seconds.
    """

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        told = clock()

        def progress(done: int, total: int, unit: str) -> None:
            nonlocal told
            if clock() - told >= SECONDS_BETWEEN_LINES:
                told = clock()
                tell(f"{role}: {done:,} of {total:,} {unit}" if total else f"{role}: {done:,} {unit}")

        yield progress

    return watch


def bars(console: Console) -> Watch:
    """Watch work by a progress bar that leaves nothing behind; the log line of each artifact stays."""

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=console, transient=True) as display:
            task = display.add_task(role, total=None, unit="")

            def progress(done: int, total: int, unit: str) -> None:
                display.update(task, completed=done, total=total or None, unit=unit)

            yield progress

    return watch


class ConsoleLines(logging.Handler):
    """Log records as lines of a console, above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; its text is no markup."""
        self.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def show_logs(console: Console, level: int = logging.INFO) -> None:
    """Send what the project's packages log to a console, once."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [ConsoleLines(console)]
        logger.propagate = False
