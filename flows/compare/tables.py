"""Tables of a comparison: one for each domain, small domains first, then costs and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.contracts import (
    ALL,
    BEYOND_ACCURACY,
    COVERAGE,
    HISTORY_STRATA,
    ITEM_STRATA,
    MACRO,
    SHARE,
    STRATA,
    USER_STRATA,
)
from flows.compare.runs import cautions, changes, cost, difference
from flows.compare.significance import Significance
from flows.output.tables import (
    LISTS,
    WHERE_FROM,
    Table,
    domain_sizes,
    format_list_measures,
    format_shares,
    metric_names,
    ordered_domains,
    share_names,
    stratified_metrics,
)
from flows.runner.lookup import RunView

SIGNIFICANT = 0.05
"""Differences with a smaller corrected p are marked."""

_HIDDEN = ("full_mrr",)
"""Metrics that are only in the JSON, not in the tables."""


def comparison_tables(runs: Sequence[RunView], not_made: Mapping[str, str] | None = None) -> list[Table]:
    """Accuracy by domain and by stratum, then what is recommended, where scores come from, costs and settings.

    Args:
        runs: the first is the one that others are compared with.
        not_made: name of a run that could not be made → why.

    Raises:
        ValueError: two runs have the same name.
    """
    significance = Significance.build(runs)
    return [
        *domain_tables(runs, significance),
        *strata_tables(runs, significance),
        *lists_tables(runs),
        *shares_tables(runs),
        _cost_table(runs),
        settings_table(runs, not_made),
    ]


def domain_tables(runs: Sequence[RunView], significance: Significance) -> list[Table]:
    """Accuracy: a table for each domain, small ones first, then one for their mean."""
    return [_domain_table(domain, runs, significance) for domain in small_first(runs[0])]


def _domain_table(domain: str, runs: Sequence[RunView], significance: Significance) -> Table:
    first = runs[0]
    names = [name for name in metric_names(first.values) if name not in _HIDDEN and (domain, name) in first.values]
    rows = [
        (
            run.name,
            *(cell for name in names for cell in format_cells(run, first, (ALL, domain, name), significance)),
        )
        for run in runs
    ]
    header = ("run", *(text for name in names for text in (name, "Δ  ")))
    return Table(_domain_title(domain, first, names), header, tuple(rows), together=2)


def _domain_title(domain: str, first: RunView, names: Sequence[str]) -> str:
    sizes = domain_sizes(first.artifacts)
    rows = int(first.values[domain, names[0]]["rows"]) if names else 0
    subject = f"{domain}: {sizes.get(domain, 0):,} interactions, {rows:,} of them for test"
    if domain == MACRO:
        subject = f"{MACRO}, the mean over domains: {rows:,} rows for test"
    seeds = len(first.checkpoints)
    over = "over held-out rows" if seeds < 2 else f"over {seeds} seeds"
    by_seed = "" if seeds < 2 else " * paired by seed,"
    marks = f"where Holm's p < {SIGNIFICANT}:{by_seed} † by a paired bootstrap over users"
    return f"{subject}; ± 95 % {over}; Δ to {first.name} ({marks})"


def format_cells(
    run: RunView, first: RunView, measure: tuple[str, str, str], significance: Significance
) -> tuple[str, str]:
    """The value of a (stratum, domain, metric) with its interval, and the difference with marks of significance."""
    stratum, domain, metric = measure
    estimate = run.values_by_stratum.get(stratum, {}).get((domain, metric))
    if estimate is None:
        return "–", ""
    value = f"{estimate['value']:.4f} ±{(estimate['high'] - estimate['low']) / 2:.4f}"
    delta = None if run is first else difference(run, first, (domain, metric), stratum)
    if delta is None:
        return value, ""
    tests = (("*", significance.by_seed), ("†", significance.over_users))
    p_values = ((mark, p_of.get((run.name, *measure))) for mark, p_of in tests)
    marks = "".join(mark for mark, p in p_values if p and p.corrected < SIGNIFICANT)
    return value, f"{delta}{marks:<2}"


def strata_tables(runs: Sequence[RunView], significance: Significance) -> list[Table]:
    """NDCG of full rankings by stratum, as means over domains: by history, then by overlap; only strata with rows."""
    metric = next((name for name in stratified_metrics(runs[0].values) if name.startswith("full_ndcg@")), None)
    if metric is None:
        return []
    by_seed = f" (* where Holm's p < {SIGNIFICANT}, paired by seed)" if len(runs[0].checkpoints) > 1 else ""
    tables = []
    for subject, group in (
        ("the user's train rows in all domains", HISTORY_STRATA),
        ("the number of domains that user and item live in", (*USER_STRATA, *ITEM_STRATA)),
    ):
        strata = [name for name in group if any((MACRO, metric) in run.values_by_stratum.get(name, {}) for run in runs)]
        title = f"{metric} by {subject}, macro over the domains that have such rows; Δ to {runs[0].name}{by_seed}"
        header = ("run", *(text for name in strata for text in (name, "Δ  ")))
        rows = tuple(
            (
                run.name,
                *(cell for name in strata for cell in format_cells(run, runs[0], (name, MACRO, metric), significance)),
            )
            for run in runs
        )
        tables += [Table(title, header, rows, together=2)] if strata else []
    return tables


def lists_tables(runs: Sequence[RunView]) -> list[Table]:
    """What is recommended, as means over domains; empty if no run has measured it."""
    if not any((MACRO, COVERAGE) in run.values for run in runs):
        return []
    rows = tuple((run.name, *format_list_measures(run.values, MACRO)) for run in runs)
    return [Table(f"{LISTS}, {MACRO}", ("run", *BEYOND_ACCURACY), rows)]


def shares_tables(runs: Sequence[RunView]) -> list[Table]:
    """Where scores come from, as means over domains; empty if no run has measured it."""
    names = list(dict.fromkeys(name for run in runs for name in share_names(run.values)))
    rows = tuple((run.name, *format_shares(run.values, MACRO, names)) for run in runs)
    header = ("run", *(name.removeprefix(SHARE) for name in names))
    return [Table(f"{WHERE_FROM}, {MACRO}", header, rows)] if names else []


def _cost_table(runs: Sequence[RunView]) -> Table:
    rows = tuple((run.name, *(_number(value) for value in cost(run).values())) for run in runs)
    header = ("run", "seeds", "best epoch", "epochs", "seconds", "s/epoch", "memory MiB", "checkpoint MiB")
    return Table("Training, mean over seeds; memory: the process's, at its largest while training", header, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def settings_table(runs: Sequence[RunView], not_made: Mapping[str, str] | None = None) -> Table:
    """Settings that differ from the first run's; of runs that could not be made, the reason."""
    rows = []
    for run in runs[1:]:
        settings = "  ".join(f"{key}={value}" for key, value in changes(run, runs[0]).items())
        rows.append((run.name, settings or "nothing"))
    rows += [(name, f"not made: {reason}") for name, reason in (not_made or {}).items()]
    return Table(f"What differs from {runs[0].name}", ("run", "settings"), tuple(rows), left=True)


def small_first(run: RunView) -> list[str]:
    """The run's domains, the smallest first, then `macro`; empty if there was no test row."""
    domains = ordered_domains(run.values, domain_sizes(run.artifacts))
    return [*reversed(domains[:-1]), *domains[-1:]]


def as_json(runs: Sequence[RunView]) -> dict[str, Any]:
    """Everything that the tables show, and more, as plain values.

    Raises:
        ValueError: two runs have the same name.
    """
    significance = Significance.build(runs)
    return {"cautions": cautions(runs), "runs": [_describe_run(run, runs[0], significance) for run in runs]}


def _describe_run(run: RunView, first: RunView, significance: Significance) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {}
    beyond_accuracy: dict[str, dict[str, Any]] = {}
    shares: dict[str, dict[str, float]] = {}
    for (domain, metric), estimate in run.values.items():
        if metric.startswith(SHARE):
            shares.setdefault(domain, {})[metric.removeprefix(SHARE)] = estimate["value"]
            continue
        described = _describe_estimate(run, first, (ALL, domain, metric), significance)
        (beyond_accuracy if metric in BEYOND_ACCURACY else metrics).setdefault(domain, {})[metric] = described
    strata: dict[str, dict[str, dict[str, Any]]] = {}
    for stratum in (name for name in STRATA if name in run.values_by_stratum):
        for domain, metric in run.values_by_stratum[stratum]:
            described = _describe_estimate(run, first, (stratum, domain, metric), significance)
            strata.setdefault(stratum, {}).setdefault(domain, {})[metric] = described
    return {
        "name": run.name,
        "differs": changes(run, first),
        "training": cost(run),
        "metrics": metrics,
        "strata": strata,
        "beyond_accuracy": beyond_accuracy,
        "scores_come_from": shares,
    }


def _describe_estimate(
    run: RunView, first: RunView, measure: tuple[str, str, str], significance: Significance
) -> dict[str, Any]:
    stratum, domain, metric = measure
    seeds = run.seeds_by_stratum.get(stratum, {}).get((domain, metric), {})
    return {
        **run.values_by_stratum[stratum][domain, metric],
        "seeds": {str(seed): value for seed, value in seeds.items()},
        "difference": None if run is first else _describe_difference(run, first, measure, significance),
    }


def _describe_difference(
    run: RunView, first: RunView, measure: tuple[str, str, str], significance: Significance
) -> dict[str, Any] | None:
    stratum, domain, metric = measure
    delta = difference(run, first, (domain, metric), stratum)
    if delta is None:
        return None
    by_seed, over_users = (p_of.get((run.name, *measure)) for p_of in (significance.by_seed, significance.over_users))
    return {
        **vars(delta),
        "p_holm": by_seed and by_seed.corrected,
        "p_over_users": over_users and over_users.raw,
        "p_over_users_holm": over_users and over_users.corrected,
    }
