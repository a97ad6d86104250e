"""How long-running work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Unit(str):
    """A unit that consists of many equal steps, such as a node of 2,000 walk steps; speed is shown in steps."""

    steps: int
    """Steps in one unit."""
    step_name: str
    """What steps are called."""

    def __new__(cls, name: str, steps: int, step_name: str) -> Unit:
        """Create a unit; see the attributes."""
        unit = super().__new__(cls, name)
        unit.steps, unit.step_name = steps, step_name
        return unit


class FinishedPart(str):
    """A note that names a part of the work that has just been finished: a domain, or a pair of domains."""


class Logged(str):
    """A note on a unit that has had a log line of its own, so that a log needs no other line about it."""


class Progress(Protocol):
    """A function to call with the units done so far, their total, and an optional note."""

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Report progress.

        Args:
            done: units finished so far.
            total: all units; 0 if unknown.
            unit: what is counted; a `Unit` if speed is shown in steps.
            note: what is in progress or, if it is a `FinishedPart` or `Logged`, what is done.
        """


def silent(done: int, total: int, unit: str, note: str = "") -> None:
    """Report nothing."""


def offset_progress(progress: Progress, done_before: int, grand_total: int) -> Progress:
    """Progress of one part of the work, which starts after `done_before` units of `grand_total`."""

    def report(done: int, total: int, unit: str, note: str = "") -> None:  # noqa: ARG001 - the part's own total
        progress(done_before + done, grand_total, unit, note)

    return report


def format_seconds(seconds: float) -> str:
    """A time in whole seconds, from 100 s in minutes, from 100 min in hours."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 99.5 * 60 else f"{round(seconds / 3600)} h"
