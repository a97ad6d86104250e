"""What a report is made of: the run it tells of, and the blocks of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT
from data_contracts.remote_store import open_store
from data_contracts.store import Store
from flows.config import load_config, store_override, store_place
from flows.figures import COLOURS
from flows.plan import make_plan
from flows.running import Cost, Outcome, costs_before
from flows.summary import Table, domain_sizes
from flows.unfinished import run_by_name

_IN_SQUARE = 64
"""Domains that a square shows, at most."""


@dataclass(frozen=True)
class Told:
    """A run that a report tells of, finished or not."""

    name: str
    store: Store
    config: Mapping[str, Any]
    """Its settings as JSON."""
    artifacts: Mapping[str, Artifact]
    """What exists of it, by role."""
    costs: Mapping[str, Cost]
    """By stage, where they are known."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Interactions by domain, the largest first."""
        sizes = domain_sizes(self.artifacts)
        return {domain: sizes[domain] for domain in sorted(sizes, key=lambda domain: (-sizes[domain], domain))}

    @cached_property
    def checkpoints(self) -> list[Artifact]:
        """One for each seed."""
        return [found for found in self.artifacts.values() if found.contract is CHECKPOINT]

    @cached_property
    def colours(self) -> dict[str, int]:
        """The domains that plots tell apart, all or the largest, and their colours."""
        told = list(self.sizes) if len(self.sizes) <= COLOURS else list(self.sizes)[: COLOURS - 1]
        return {domain: number for number, domain in enumerate(told)}


def told_of(outcome: Outcome) -> Told:
    """A run that was just brought up to date."""
    config = outcome.config
    return Told(config.name, outcome.plan.store, config.model_dump(mode="json"), outcome.artifacts, outcome.costs)


def told_run(run: str, store: str | None = None) -> Told:
    """A run from its TOML file, finished or not, or from its name in the store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    if run.endswith(".toml"):
        plan = make_plan(load_config(Path(run), store_override(store)))
        return told_of(Outcome(plan, plan.found(), [], costs_before(plan, plan.found())))
    return told_recorded(run, open_store(store or store_place()))


def told_recorded(name: str, store: Store) -> Told:
    """A run by its record in a store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    artifacts, record = run_by_name(name, store)
    costs = {stage: Cost(**cost) for stage, cost in record.get("costs", {}).items()}
    return Told(name, store, record["config"], artifacts, costs)


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


def heat(told: Told, title: str, shares: NDArray[np.float64]) -> Heat:
    """The square of the largest domains; `shares` are of all of them, in the order of their sizes."""
    shown = list(told.sizes)[:_IN_SQUARE]
    left_out = f"; the {_IN_SQUARE} largest domains" if len(shown) < len(told.sizes) else ""
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


def legend(told: Told) -> dict[str, int | None]:
    """The colours of domains, and how many share the last."""
    rest = len(told.sizes) - len(told.colours)
    return {**told.colours, **({f"{rest} smaller domains": None} if rest else {})}


def number(value: float | None, digits: int = 0) -> str:
    """A count or measure with separators, a dash where it is unknown."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(share: float) -> tuple[float | None, str]:
    if np.isnan(share):
        return None, ""
    percent = 100 * share
    return round(percent, 1), "0" if percent == 0 else "<1" if percent < 0.5 else f"{percent:.0f}"
