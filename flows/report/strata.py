"""A report's section on who gains: accuracy by the length of users' histories and by overlap of domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_contracts.contracts import HISTORY_STRATA, MACRO, STRATA
from flows.compare.significance import Significance
from flows.compare.tables import strata_tables
from flows.output.plots import COLOURS, Spread, intervals
from flows.output.tables import Table, format_interval, stratified_metrics
from flows.report.blocks import Block, Note, Plots, Section, number
from flows.runner.lookup import RunView

_STRATA = (
    "history: test rows of users with so many train rows in all domains together; user (item) in several domains: test "
    "rows whose user (item) lives in two or more domains. Each stratum is measured by its rows alone, so strata of "
    "different rows differ by how hard these are too; what somebody gains is the difference between runs."
)


def strata_section(view: RunView, others: Sequence[RunView], significance: Significance) -> Section:
    """Full rankings of the test split by stratum, and the same beside other runs.

    Args:
        view: an evaluated run; if it has no stratum, the section is empty.
        others: runs on the same interactions to compare with.
    """
    metrics = stratified_metrics(view.values)
    strata = [name for name in STRATA if name in view.values_by_stratum]
    if not strata:
        return Section("Who gains", [])
    ndcg = next((name for name in metrics if name.startswith("full_ndcg@")), metrics[0])
    blocks: list[Block] = [_means_table(view, strata, metrics), Note(_STRATA)]
    blocks += [_history_plot(view, strata, ndcg), _domains_table(view, strata, ndcg)]
    return Section("Who gains", [*blocks, *(strata_tables([view, *others], significance) if others else [])])


def _means_table(view: RunView, strata: Sequence[str], metrics: Sequence[str]) -> Table:
    rows = []
    for stratum in strata:
        values = view.values_by_stratum[stratum]
        estimates = [values.get((MACRO, metric)) for metric in metrics]
        counts = next(estimate for estimate in estimates if estimate is not None)
        cells = map(format_interval, estimates)
        rows.append((stratum, number(counts["users"]), number(counts["rows"]), *cells))
    title = "By stratum: test metrics, mean over the domains that have such rows (95 % interval)"
    return Table(title, ("stratum", "users", "rows", *metrics), tuple(rows))


def _domains_table(view: RunView, strata: Sequence[str], metric: str) -> Table:
    rows = []
    for domain in reversed(view.sizes):
        estimates = [view.values_by_stratum[stratum].get((domain, metric)) for stratum in strata]
        if any(estimates):
            values = (None if estimate is None else estimate["value"] for estimate in estimates)
            rows.append((domain, *(number(value, 3) for value in values)))
    return Table(f"By domain and stratum: test {metric}, small domains first", ("domain", *strata), tuple(rows))


def _history_plot(view: RunView, strata: Sequence[str], metric: str) -> Plots:
    """The metric by length of history: the mean, and the largest domains."""
    histories = [stratum for stratum in strata if stratum in HISTORY_STRATA]
    missing: Mapping[str, float] = dict.fromkeys(("value", "low", "high"), np.nan)
    shown = [MACRO, *list(view.sizes)[: COLOURS - 1]]
    spreads = []
    for domain in shown:
        estimates = [view.values_by_stratum[stratum].get((domain, metric), missing) for stratum in histories]
        values, low, high = ([estimate[end] for estimate in estimates] for end in ("value", "low", "high"))
        spreads.append(Spread(values, low, high))
    legend = {domain: place for place, domain in enumerate(shown)}
    return Plots([intervals(f"Test {metric}, 95 % interval", histories, spreads)], legend)
