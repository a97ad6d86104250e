"""Tables of a comparison: one for each domain, small domains first, then costs and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_contracts.contracts import MACRO, SHARE
from flows.compare.runs import cautions, changes, cost, difference
from flows.compare.significance import PValues, p_over_users
from flows.output.tables import (
    WHERE_FROM,
    Table,
    domain_sizes,
    format_shares,
    metric_names,
    ordered_domains,
    share_names,
)
from flows.runner.lookup import RunView

SIGNIFICANT = 0.05
"""Differences with a smaller p are marked."""

_HIDDEN = ("full_mrr",)
"""Metrics that are only in the JSON, not in the tables."""


def comparison_tables(runs: Sequence[RunView]) -> list[Table]:
    """Accuracy by domain, then where scores come from, costs and settings.

    Raises:
        ValueError: two runs have the same name.
    """
    return [*domain_tables(runs), *shares_tables(runs), _cost_table(runs), settings_table(runs)]


def domain_tables(runs: Sequence[RunView]) -> list[Table]:
    """Accuracy: a table for each domain, small ones first, then one for their mean.

    Raises:
        ValueError: two runs have the same name.
    """
    if repeated := [name for name, times in Counter(run.name for run in runs).items() if times > 1]:
        raise ValueError(f"two runs are called {repeated[0]!r}; names must differ: set `name` in one of them")
    p_values = p_over_users(runs)
    return [_domain_table(domain, runs, p_values) for domain in _small_first(runs[0])]


def _domain_table(domain: str, runs: Sequence[RunView], p_values: PValues) -> Table:
    first = runs[0]
    names = [name for name in metric_names(first.values) if name not in _HIDDEN and (domain, name) in first.values]
    rows = [
        (run.name, *(cell for name in names for cell in _cells(run, first, (domain, name), p_values))) for run in runs
    ]
    header = ("run", *(text for name in names for text in (name, "Δ  ")))
    return Table(_domain_title(domain, first, names), header, tuple(rows))


def _domain_title(domain: str, first: RunView, names: Sequence[str]) -> str:
    sizes = domain_sizes(first.artifacts)
    rows = int(first.values[domain, names[0]]["rows"]) if names else 0
    subject = "mean over domains" if domain == MACRO else f"{domain}: {sizes.get(domain, 0):,} interactions"
    seeds = len(first.checkpoints)
    over = "over held-out rows" if seeds < 2 else f"over {seeds} seeds"
    by_seed = "" if seeds < 2 else " * paired by seed,"
    marks = f"where p < {SIGNIFICANT}:{by_seed} † by a paired bootstrap over users"
    return f"{subject}, {rows:,} of them for test; ± 95 % {over}; Δ to {first.name} ({marks})"


def _cells(run: RunView, first: RunView, measure: tuple[str, str], p_values: PValues) -> tuple[str, str]:
    """A value with its interval, and the difference from the first run with marks of significance."""
    if measure not in run.values:
        return "–", ""
    estimate = run.values[measure]
    value = f"{estimate['value']:.4f} ±{(estimate['high'] - estimate['low']) / 2:.4f}"
    delta = None if run is first else difference(run, first, measure)
    if delta is None:
        return value, ""
    tests = (("*", delta.p), ("†", p_values.get((run.name, *measure))))
    marks = "".join(mark for mark, p in tests if p is not None and p < SIGNIFICANT)
    return value, f"{delta.value:+.4f}{marks:<2}"


def shares_tables(runs: Sequence[RunView]) -> list[Table]:
    """Where scores come from, as means over domains; empty if no run has measured it."""
    names = list(dict.fromkeys(name for run in runs for name in share_names(run.values)))
    rows = tuple((run.name, *format_shares(run.values, MACRO, names)) for run in runs)
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
    rows = []
    for run in runs[1:]:
        settings = "  ".join(f"{key}={value}" for key, value in changes(run, runs[0]).items())
        rows.append((run.name, settings or "nothing"))
    return Table(f"What differs from {runs[0].name}", ("run", "settings"), tuple(rows), left=True)


def _small_first(run: RunView) -> list[str]:
    domains = ordered_domains(run.values, domain_sizes(run.artifacts))  # empty if there was no test row
    return [*reversed(domains[:-1]), *domains[-1:]]


def as_json(runs: Sequence[RunView]) -> dict[str, Any]:
    """Everything that the tables show, and more, as plain values."""
    p_values = p_over_users(runs)
    return {"cautions": cautions(runs), "runs": [_describe_run(run, runs[0], p_values) for run in runs]}


def _describe_run(run: RunView, first: RunView, p_values: PValues) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, float]] = {}
    for (domain, metric), estimate in run.values.items():
        if metric.startswith(SHARE):
            shares.setdefault(domain, {})[metric.removeprefix(SHARE)] = estimate["value"]
            continue
        delta = None if run is first else difference(run, first, (domain, metric))
        p = p_values.get((run.name, domain, metric))
        metrics.setdefault(domain, {})[metric] = {
            **estimate,
            "seeds": {str(seed): value for seed, value in run.by_seed[domain, metric].items()},
            "difference": None if delta is None else {**vars(delta), "p_over_users": p},
        }
    return {
        "name": run.name,
        "differs": changes(run, first),
        "training": cost(run),
        "metrics": metrics,
        "scores_come_from": shares,
    }
