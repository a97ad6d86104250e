"""How long-running work reports its progress, whoever listens."""

from __future__ import annotations

from typing import Protocol


class Unit(str):
    """What is counted, where each is many equal parts of work: nodes of 2,000 steps."""

    parts: int
    """Parts of work in each."""
    part: str
    """What the parts are called."""

    def __new__(cls, name: str, parts: int, part: str) -> Unit:
        """Name, and what each is made of."""
        unit = super().__new__(cls, name)
        unit.parts, unit.part = parts, part
        return unit


class FinishedPart(str):
    """A note that names a part of the work, a domain or two, that has just been finished."""


class Progress(Protocol):
    """Called with the units done so far and in all, and what else there is to say of them."""

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Report; `Unit` has the unit of speed. A note says what is in progress or, a `FinishedPart`, done."""


def silent(done: int, total: int, unit: str, note: str = "") -> None:
    """Reports to nobody."""


def after(progress: Progress, before: int, of_all: int) -> Progress:
    """Progress of one part of the work, after `before` units of `of_all`."""

    def report(done: int, total: int, unit: str, note: str = "") -> None:  # noqa: ARG001 - the part's own total
        progress(before + done, of_all, unit, note)

    return report
