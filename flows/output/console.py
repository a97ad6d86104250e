"""What a person sees: bars on a terminal while a run works, a plain line every few seconds elsewhere; answers."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from data_contracts.progress import Progress, Unit

log = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[Progress]]
"""From a role that is about to be made to whoever is told how far it is."""

PACKAGES = ("data_contracts", "pipeline", "model", "flows")
SECONDS_BETWEEN_LINES = 5.0


_SHORTEST_MEASURED = 1.0
"""Seconds that a speed is measured over, at least."""

_WIDEST_BAR = 40


class Pace:
    """How far work is, how fast it goes and how long it will take, in words.

    Speed is that of the second half of the time since the first call, so it follows the work, and what an earlier
    attempt had finished and this one only counts is soon forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counted: tuple[object, ...] = ()
        self._calls: deque[tuple[float, int]] = deque()
        self._first = self._last = clock()

    def told(self, done: int, total: int, unit: str, note: str = "") -> str:
        """`12,000 of 96,510 nodes, 35.1 k nodes/s, 3 s left`, the note before the speed; without what is not known."""
        words = [f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}", *([note] if note else [])]
        speed = self._speed(done, total, unit)
        if speed:
            parts, part = (unit.parts, unit.part) if isinstance(unit, Unit) else (1, unit)
            words.append(_shown_speed(speed * parts, part))
        if speed and done < total:
            words.append(f"{_shown_time((total - done) / speed)} left")
        return ", ".join(words)

    def _speed(self, done: int, total: int, unit: str) -> float | None:
        """Units per second, None where nothing was done for long enough to know."""
        now, calls = self._clock(), self._calls
        counted = (str(unit), total, *((unit.parts, unit.part) if isinstance(unit, Unit) else ()))
        if counted != self._counted or done < calls[-1][1]:
            # The first of anything began when what was told before it ended; of more, some may be an earlier attempt's.
            calls.clear()
            calls.append((self._last, 0) if done == 1 else (now, done))
            self._counted, self._first = counted, calls[0][0]
        calls.append((now, done))
        self._last = now
        while len(calls) > 1 and calls[1][0] <= (self._first + now) / 2:
            calls.popleft()
        seconds, units = now - calls[0][0], done - calls[0][1]
        return units / seconds if units and seconds >= _SHORTEST_MEASURED else None


def _shown_speed(speed: float, unit: str) -> str:
    """Per second, or per the shortest longer time in which one is done: `35.1 k nodes/s`, `20 epochs/min`."""
    seconds, name = next((item for item in ((1, "s"), (60, "min")) if speed * item[0] >= 0.9995), (3600, "h"))
    number = speed * seconds
    prefixes = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
    scale, prefix = next((item for item in prefixes if number >= 0.9995 * item[0]), (1.0, ""))
    return f"{number / scale:.3g}{prefix} {unit}/{name}"


def _shown_time(seconds: float) -> str:
    """Whole seconds, from 100 s on minutes, from 100 min on hours."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 99.5 * 60 else f"{round(seconds / 3600)} h"


def log_lines(tell: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> Watch:
    """Watch work by log lines: nothing before the first few seconds, then one line every few seconds.

    Args:
        tell: takes a line, e.g. a logger's `info`.
        clock: seconds.
    """

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        pace, last = Pace(clock), clock()

        def progress(done: int, total: int, unit: str, note: str = "") -> None:
            nonlocal last
            told = pace.told(done, total, unit, note)
            if clock() - last >= SECONDS_BETWEEN_LINES:
                last = clock()
                tell(f"{role}: {told}")

        yield progress

    return watch


def bars(console: Console) -> Watch:
    """Watch work by a progress bar that leaves nothing behind; the log line of each artifact stays."""

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        bar = BarColumn(None, table_column=Column(max_width=_WIDEST_BAR))
        columns = (TextColumn("{task.description}"), bar, TextColumn("{task.fields[told]}"), TimeElapsedColumn())
        pace = Pace()
        with RichProgress(*columns, console=console, transient=True) as display:
            task = display.add_task(role, total=None, told="")

            def progress(done: int, total: int, unit: str, note: str = "") -> None:
                display.update(task, completed=done, total=total or None, told=pace.told(done, total, unit, note))

            yield progress

    return watch


def watcher() -> Watch:
    """Bars where standard error is a terminal, log lines elsewhere."""
    console = Console(stderr=True)
    return bars(console) if console.is_terminal else log_lines(log.info)


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


def answer(text: str) -> None:
    """Print what a command was asked for."""
    print(text)


def tell(text: str) -> None:
    """Print what a person wants to know beside the answer."""
    print(text, file=sys.stderr)
