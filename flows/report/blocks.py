"""What a report is made of: the run it tells of, and the blocks of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flows.output.plots import COLOURS
from flows.output.tables import Table
from flows.runner.lookup import RunView

_IN_SQUARE = 64
"""Domains that a square shows, at most."""


@dataclass(frozen=True)
class Heat:
    """A square of shares, from 0 to 1, of one domain and another, or NaN where there is nothing to say."""

    title: str
    domains: Sequence[str]
    shares: NDArray[np.float64]

    @property
    def cells(self) -> list[tuple[str, list[tuple[str, float | None, str]]]]:
        """Rows: a domain, and for each other domain its name, the percentage and its text."""
        return [
            (here, [(there, *_percent(share)) for there, share in zip(self.domains, row, strict=True)])
            for here, row in zip(self.domains, self.shares.tolist(), strict=True)
        ]


def heat(view: RunView, title: str, shares: NDArray[np.float64]) -> Heat:
    """The square of the largest domains; `shares` are of all of them, in the order of their sizes."""
    shown = list(view.sizes)[:_IN_SQUARE]
    left_out = f"; the {_IN_SQUARE} largest domains" if len(shown) < len(view.sizes) else ""
    return Heat(title + left_out, shown, shares[: len(shown), : len(shown)])


@dataclass(frozen=True)
class Plots:
    """Plots side by side, each an `<svg>`; a legend below, from names to numbers of colours."""

    svgs: Sequence[str]
    legend: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Source:
    """Text as it stands in a file."""

    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader may open."""

    title: str
    blocks: Sequence[Block]


Block = Table | Heat | Plots | Note | Source | Folded


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


def colours_of(view: RunView) -> dict[str, int]:
    """The domains that plots tell apart, all or the largest, and the numbers of their colours."""
    domains = list(view.sizes) if len(view.sizes) <= COLOURS else list(view.sizes)[: COLOURS - 1]
    return {domain: number for number, domain in enumerate(domains)}


def legend(view: RunView) -> dict[str, int | None]:
    """The colours of domains, and how many share the last."""
    colours = colours_of(view)
    rest = len(view.sizes) - len(colours)
    return {**colours, **({f"{rest} smaller domains": None} if rest else {})}


def number(value: float | None, digits: int = 0) -> str:
    """A count or measure with separators, a dash where it is unknown."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(share: float) -> tuple[float | None, str]:
    if np.isnan(share):
        return None, ""
    percent = 100 * share
    return round(percent, 1), "0" if percent == 0 else "<1" if percent < 0.5 else f"{percent:.0f}"
