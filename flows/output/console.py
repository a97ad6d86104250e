"""Console output: progress bars on a terminal, otherwise a plain line every few seconds; results and messages."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime

from rich.console import Console

from data_contracts.progress import Logged, Progress, Unit, format_seconds, silent
from flows.output.characters import escape

log = logging.getLogger(__name__)

STDERR = Console(stderr=True)
"""The console of all log lines, progress bars and errors: only one can keep lines and bars apart on a terminal."""

Watch = Callable[[str], AbstractContextManager[Progress]]
"""Takes the role of an artifact that is about to be made; the progress of making it is reported to the context."""

_LAYOUT = "\n\t"
"""Control characters that results and messages are laid out with."""

NOTES = logging.getLogger("edda")
"""What commands tell people beside their results."""

PACKAGES = ("data_contracts", "pipeline", "model", "flows")
SECONDS_BETWEEN_LINES = 5.0

_SHORTEST_MEASURED = 1.0
"""Least seconds that a speed is measured over."""

_PAUSE_SECONDS, _PAUSE_FACTOR, _PAUSE_CALLS = 30.0, 10, 3
"""A gap between calls of more than these seconds, and so many times as long as the longest of at least so many others,
is a pause: the process was stopped, or the machine slept."""

_WIDEST_BAR = 40


class Pace:
    """Progress, speed and remaining time of some work, as text.

    Speed is measured over the second half of the time since the first call. So it follows changes, and units that an
    earlier attempt had finished and this one only counts soon have no effect on it. Nor does a pause of the process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paused = 0.0
        self._gaps: deque[float] = deque(maxlen=100)
        self._counted: tuple[object, ...] = ()
        self._calls: deque[tuple[float, int]] = deque()
        self._first = self._last = clock()

    def summary(self, done: int, total: int, unit: str, note: str = "") -> str:
        """Progress as `12,000 of 96,510 nodes, the note, 35.1 k nodes/s, 3 s left`, without what is unknown."""
        phrases = [f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}", *([note] if note else [])]
        speed = self._speed(done, total, unit)
        if speed:
            steps, step_name = (unit.steps, unit.step_name) if isinstance(unit, Unit) else (1, unit)
            phrases.append(_format_speed(speed * steps, step_name))
        if speed and done < total:
            phrases.append(f"{format_seconds((total - done) / speed)} left")
        return escape(", ".join(phrases))

    def _speed(self, done: int, total: int, unit: str) -> float | None:
        """Units per second; None if nothing was finished or too little time has passed."""
        now, calls = self._time_at_work(), self._calls
        counted = (str(unit), total, *((unit.steps, unit.step_name) if isinstance(unit, Unit) else ()))
        if counted != self._counted or done < calls[-1][1]:
            # A first unit started when the report before it ended; more units may partly be an earlier attempt's.
            calls.clear()
            calls.append((self._last, 0) if done == 1 else (now, done))
            self._counted, self._first = counted, calls[0][0]
        calls.append((now, done))
        self._last = now
        while len(calls) > 1 and calls[1][0] <= (self._first + now) / 2:
            calls.popleft()
        seconds, units = now - calls[0][0], done - calls[0][1]
        return units / seconds if units and seconds >= _SHORTEST_MEASURED else None

    def _time_at_work(self) -> float:
        """The clock without pauses, which count as long as the longest other gap between two calls."""
        now = self._clock() - self._paused
        gap, longest = now - self._last, max(self._gaps, default=0.0)
        self._gaps.append(gap)
        if len(self._gaps) > _PAUSE_CALLS and gap > max(_PAUSE_SECONDS, _PAUSE_FACTOR * longest):
            self._paused += gap - longest
        return self._clock() - self._paused


def _format_speed(speed: float, unit: str) -> str:
    """Speed per second, minute or hour, the shortest in which one unit is done: `35.1 k nodes/s`, `20 epochs/min`."""
    seconds, name = next((item for item in ((1, "s"), (60, "min")) if speed * item[0] >= 0.9995), (3600, "h"))
    number = speed * seconds
    prefixes = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
    scale, prefix = next((item for item in prefixes if number >= 0.9995 * item[0]), (1.0, ""))
    return f"{number / scale:.3g}{prefix} {unit}/{name}"


def log_lines(
    write_line: Callable[[str], object], clock: Callable[[], float] = time.monotonic, *, with_logged: bool = False
) -> Watch:
    """Show progress as log lines: nothing in the first few seconds, then one line every few seconds.

    Args:
        write_line: takes a line, e.g. a logger's `info`.
        clock: returns seconds.
        with_logged: also of units that have had a log line of their own.
    """

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        pace, last = Pace(clock), clock()

        def progress(done: int, total: int, unit: str, note: str = "") -> None:
            nonlocal last
            summary = pace.summary(done, total, unit, note)
            if clock() - last >= SECONDS_BETWEEN_LINES and (with_logged or not isinstance(note, Logged)):
                last = clock()
                write_line(f"{role}: {summary}")

        yield progress

    return watch


def bars() -> Watch:
    """Show progress as a bar that disappears when the work is done."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    @contextmanager
    def watch(role: str) -> Iterator[Progress]:
        bar = BarColumn(None, table_column=Column(max_width=_WIDEST_BAR))
        description, summary = (
            TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[summary]}")
        )
        columns = (description, bar, summary, TimeElapsedColumn())
        pace = Pace()
        with RichProgress(*columns, console=STDERR, transient=True) as display:
            task = display.add_task(role, total=None, summary="")

            def progress(done: int, total: int, unit: str, note: str = "") -> None:
                summary = pace.summary(done, total, unit, note)
                display.update(task, completed=done, total=total or None, summary=summary)

            yield progress

    return watch


def watcher() -> Watch:
    """Progress bars if standard error is a terminal, otherwise log lines; nothing where such lines are not shown."""
    if not log.isEnabledFor(logging.INFO):
        return lambda _role: nullcontext(silent)
    return bars() if STDERR.is_terminal and not _writes_json() else log_lines(log.info)


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {"time": time, "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**values, "message": record.getMessage()}, ensure_ascii=False)


class ConsoleLines(logging.Handler):
    """Prints log records as lines above the progress bars, unwrapped: where they are no terminal's, one a record."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, without interpreting its text as markup."""
        STDERR.print(escape(self.format(record), _LAYOUT), markup=False, highlight=False, soft_wrap=True)


def _writes_json() -> bool:
    return any(isinstance(handler.formatter, JsonLines) for handler in NOTES.handlers)


def show_logs(level: int = logging.INFO, *, as_json: bool = False) -> None:
    """Print the log records of the project's packages, and messages of commands, in place of earlier handlers.

    Args:
        level: lowest that is printed; for DEBUG with the name of each record's logger.
        as_json: as JSON, one record a line.
    """
    name = "%(name)s: " if level <= logging.DEBUG else ""
    with_time = logging.Formatter(f"%(asctime)s {name}%(message)s", "%H:%M:%S")
    for logger in (*map(logging.getLogger, PACKAGES), NOTES):
        handler = ConsoleLines()
        handler.setFormatter(JsonLines() if as_json else logging.Formatter() if logger is NOTES else with_time)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None if it is a pipe or a file, where lines may be long."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_result(text: str) -> None:
    """Print the result of a command to standard output; control characters of ids are escaped."""
    print(escape(text, _LAYOUT))


def inform(text: str, level: int = logging.INFO) -> None:
    """Print a message for people to standard error, as a log record without time; control characters are escaped."""
    if any(isinstance(handler, ConsoleLines) for handler in NOTES.handlers):
        NOTES.log(level, "%s", text)
    else:  # no command of ours runs
        print(escape(text, _LAYOUT), file=sys.stderr)
