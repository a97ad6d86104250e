"""How long work tells how far it is, without knowing who listens."""

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


class Part(str):
    """A note that names a part of the work, a domain or two, that is finished now."""


class Progress(Protocol):
    """Called with the units done so far and in all, and what else there is to say of them."""

    def __call__(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Tell; a `Unit` also says what speed is measured in, a note what is at hand or, a `Part`, finished."""


def silent(done: int, total: int, unit: str, note: str = "") -> None:
    """Nobody listens."""


def after(progress: Progress, before: int, of_all: int) -> Progress:
    """Progress of one part of the work, after `before` units of `of_all`."""

    def told(done: int, total: int, unit: str, note: str = "") -> None:  # noqa: ARG001 - the part's own total
        progress(before + done, of_all, unit, note)

    return told
