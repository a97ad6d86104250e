"""Building blocks of the HTML report: sections, heat maps, plots, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flows.output.plots import COLOURS
from flows.output.tables import Table
from flows.runner.lookup import RunView

_MOST_DOMAINS = 64
"""Most domains of a heat map."""


@dataclass(frozen=True)
class Heatmap:
    """A heat map: a share of one domain and another.

    Attributes:
        title: shown above.
        domains: of the rows, and of the columns.
        shares: float64 [domains, domains] from 0 to 1, NaN for an empty cell.
    """

    title: str
    domains: Sequence[str]
    shares: NDArray[np.float64]

    @property
    def cells(self) -> list[tuple[str, list[tuple[str, float | None, str]]]]:
        """Rows: a domain, and for each column its domain, the percentage and the percentage's text."""
        return [
            (row_domain, [(domain, *_percent(share)) for domain, share in zip(self.domains, row, strict=True)])
            for row_domain, row in zip(self.domains, self.shares.tolist(), strict=True)
        ]


def build_heatmap(view: RunView, title: str, shares: NDArray[np.float64]) -> Heatmap:
    """Build the heat map of the largest domains; `shares` are of all domains, from the largest to the smallest."""
    shown = list(view.sizes)[:_MOST_DOMAINS]
    limit = f"; the {_MOST_DOMAINS} largest domains" if len(shown) < len(view.sizes) else ""
    return Heatmap(title + limit, shown, shares[: len(shown), : len(shown)])


@dataclass(frozen=True)
class Plots:
    """Plots side by side, each an `<svg>`, above a legend of names and numbers of colours."""

    svgs: Sequence[str]
    legend: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Source:
    """Text of a file, shown as it is."""

    text: str


@dataclass(frozen=True)
class Collapsed:
    """Blocks that are hidden until the reader opens them."""

    title: str
    blocks: Sequence[Block]


Block = Table | Heatmap | Plots | Note | Source | Collapsed


@dataclass(frozen=True)
class Section:
    """A heading, a sentence in plain words that says what follows or how it came out, and blocks."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


def domain_colours(view: RunView) -> dict[str, int]:
    """Numbers of the colours of all domains, or of the largest if there are more domains than colours."""
    domains = list(view.sizes) if len(view.sizes) <= COLOURS else list(view.sizes)[: COLOURS - 1]
    return {domain: number for number, domain in enumerate(domains)}


def legend(view: RunView) -> dict[str, int | None]:
    """The colours of domains, and how many domains have no colour of their own."""
    colours = domain_colours(view)
    others = len(view.sizes) - len(colours)
    return {**colours, **({f"{others} smaller domains": None} if others else {})}


def number(value: float | None, digits: int = 0) -> str:
    """A count or measure with separators, or a dash if it is unknown."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(share: float) -> tuple[float | None, str]:
    if np.isnan(share):
        return None, ""
    percent = 100 * share
    return round(percent, 1), "0" if percent == 0 else "<1" if percent < 0.5 else f"{percent:.0f}"
