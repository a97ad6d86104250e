"""A comparison as tables: one for each domain, small domains first, then costs and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_contracts.contracts import MACRO, SHARE
from flows.compare.runs import cautions, changes, cost, difference
from flows.compare.significance import PValues, p_over_users
from flows.output.tables import (
    WHERE_FROM,
    Table,
    domain_sizes,
    metric_names,
    ordered_domains,
    share_names,
    shares_of,
)
from flows.runner.lookup import RunView

SIGNIFICANT = 0.05
"""Differences with a smaller p are marked."""

_HIDDEN = ("full_mrr",)
"""Metrics that the tables leave out; JSON has them."""


def comparison_tables(runs: Sequence[RunView]) -> list[Table]:
    """Accuracy by domain, then where scores come from, costs and settings.

    Raises:
        ValueError: two runs have one name.
    """
    return [*domain_tables(runs), *shares_tables(runs), _cost_table(runs), settings_table(runs)]


def domain_tables(runs: Sequence[RunView]) -> list[Table]:
    """Accuracy: a table for each domain, small ones first, then for their mean.

    Raises:
        ValueError: two runs have one name.
    """
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two runs are called {name!r}; names must differ: set `name` in one of them")
    by_users = p_over_users(runs)
    return [_domain_table(domain, runs, by_users) for domain in _small_first(runs[0])]


def _domain_table(domain: str, runs: Sequence[RunView], by_users: PValues) -> Table:
    first = runs[0]
    names = [name for name in metric_names(first.values) if name not in _HIDDEN and (domain, name) in first.values]
    rows = [
        (run.name, *(cell for name in names for cell in _cells(run, first, (domain, name), by_users))) for run in runs
    ]
    header = ("run", *(text for name in names for text in (name, "Δ  ")))
    return Table(_domain_title(domain, first, names), header, tuple(rows))


def _domain_title(domain: str, first: RunView, names: Sequence[str]) -> str:
    sizes = domain_sizes(first.artifacts)
    rows = int(first.values[domain, names[0]]["rows"]) if names else 0
    of = "mean over domains" if domain == MACRO else f"{domain}: {sizes.get(domain, 0):,} interactions"
    seeds = len(first.checkpoints)
    over = "over held-out rows" if seeds < 2 else f"over {seeds} seeds"
    by_seed = "" if seeds < 2 else " * paired by seed,"
    told = f"where p < {SIGNIFICANT}:{by_seed} † by a paired bootstrap over users"
    return f"{of}, {rows:,} of them for test; ± 95 % {over}; Δ to {first.name} ({told})"


def _cells(run: RunView, first: RunView, place: tuple[str, str], by_users: PValues) -> tuple[str, str]:
    if place not in run.values:
        return "–", ""
    found = run.values[place]
    value = f"{found['value']:.4f} ±{(found['high'] - found['low']) / 2:.4f}"
    against = None if run is first else difference(run, first, place)
    if against is None:
        return value, ""
    tests = (("*", against.p), ("†", by_users.get((run.name, *place))))
    marks = "".join(mark for mark, p in tests if p is not None and p < SIGNIFICANT)
    return value, f"{against.value:+.4f}{marks:<2}"


def shares_tables(runs: Sequence[RunView]) -> list[Table]:
    """Where scores come from, the mean over domains; none where no run has that."""
    names = list(dict.fromkeys(name for run in runs for name in share_names(run.values)))
    rows = tuple((run.name, *shares_of(run.values, MACRO, names)) for run in runs)
    header = ("run", *(name.removeprefix(SHARE) for name in names))
    return [Table(f"{WHERE_FROM} and domains", header, rows)] if names else []


def _cost_table(runs: Sequence[RunView]) -> Table:
    rows = tuple((run.name, *(_number(value) for value in cost(run).values())) for run in runs)
    header = ("run", "seeds", "best epoch", "epochs", "seconds", "s/epoch", "memory MiB", "checkpoint MiB")
    return Table("Training, mean over seeds; memory: the process's, at its largest while training", header, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def settings_table(runs: Sequence[RunView]) -> Table:
    """Settings that differ from the first run's."""
    differing = [changes(run, runs[0]) for run in runs[1:]]
    texts = ("  ".join(f"{key}={value}" for key, value in of.items()) or "nothing" for of in differing)
    rows = tuple(zip((run.name for run in runs[1:]), texts, strict=True))
    return Table(f"What differs from {runs[0].name}", ("run", "settings"), rows, left=True)


def _small_first(run: RunView) -> list[str]:
    domains = ordered_domains(run.values, domain_sizes(run.artifacts))  # none where there was no test row
    return [*reversed(domains[:-1]), *domains[-1:]]


def as_json(runs: Sequence[RunView]) -> dict[str, Any]:
    """Everything the tables show and more, for programs."""
    by_users = p_over_users(runs)
    return {"cautions": cautions(runs), "runs": [_described(run, runs[0], by_users) for run in runs]}


def _described(run: RunView, first: RunView, by_users: PValues) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, float]] = {}
    for place, value in run.values.items():
        if place[1].startswith(SHARE):
            shares.setdefault(place[0], {})[place[1].removeprefix(SHARE)] = value["value"]
            continue
        found = None if run is first else difference(run, first, place)
        seeds = {str(seed): own for seed, own in run.by_seed[place].items()}
        metrics.setdefault(place[0], {})[place[1]] = {
            **value, "seeds": seeds,
            "difference": None if found is None else {**vars(found), "p_over_users": by_users.get((run.name, *place))},
        }  # fmt: skip
    return {
        "name": run.name, "differs": changes(run, first), "training": cost(run), "metrics": metrics,
        "scores_come_from": shares,
    }  # fmt: skip
