"""A report's section on who gains: accuracy by the length of users' histories and by overlap of domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from data_contracts.contracts import ALL, HISTORY_STRATA, MACRO, STRATA
from flows.compare.reference import knows_each_domain_alone, with_reference
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


def strata_section(
    view: RunView, others: Sequence[RunView], significance: Significance, popularity: RunView | None
) -> Section:
    """Full rankings of the test split by stratum, and the same beside other runs.

    Args:
        view: an evaluated run; if it has no stratum, the section is empty.
        others: runs on the same interactions to compare with.
        popularity: the run by popularity alone, as a reference.
    """
    metrics = stratified_metrics(view.values)
    strata = [name for name in STRATA if name in view.values_by_stratum]
    if not strata:
        return Section("Who gains", [])
    ndcg = next((name for name in metrics if name.startswith("full_ndcg@")), metrics[0])
    blocks: list[Block] = [_means_table(view, strata, metrics, popularity), Note(_STRATA)]
    domains = _domains_table(view, strata, ndcg)
    if popularity:
        means = (popularity.values_by_stratum.get(stratum, {}).get((MACRO, ndcg)) for stratum in strata)
        domains = with_reference(domains, [number(mean["value"] if mean else None, 3) for mean in means])
    blocks += [_history_plot(view, strata, ndcg), domains]
    if others:
        blocks += strata_tables([view, *others], significance)
    return Section("Who gains", blocks, _summarise(view, others, ndcg))


def _summarise(view: RunView, others: Sequence[RunView], metric: str) -> str:
    """One sentence: who gains from other domains, beside a run that knows each domain alone."""
    alone = next((run for run in others if knows_each_domain_alone(run.config)), None)
    if len(view.sizes) < 2:
        return "With one domain there is nobody to gain from others."
    if alone is None or knows_each_domain_alone(view.config):
        return (
            'Who gains from the other domains shows beside a run that knows each domain alone: train.tables = "intra", '
            'train.alignment = 0 and neighbours.scope = "domain" under another name.'
        )
    domains = {domain: gain for domain in view.sizes if (gain := _gain(view, alone, ALL, domain, metric)) is not None}
    histories = {
        stratum: gain for stratum in HISTORY_STRATA if (gain := _gain(view, alone, stratum, MACRO, metric)) is not None
    }
    mean = _gain(view, alone, ALL, MACRO, metric)
    if mean is None or not domains:
        return ""
    most, least = max(domains, key=domains.__getitem__), min(domains, key=domains.__getitem__)
    sentence = (
        f"From the other domains {metric} gains {mean:+.3f} on average (beside {alone.name}, which knows each domain "
        f"alone): most in {most} ({domains[most]:+.3f}), least in {least} ({domains[least]:+.3f})"
    )
    if histories:
        best = max(histories, key=histories.__getitem__)
        rows = best.removeprefix("history ")
        sentence += f"; by history most where users have {rows} train rows ({histories[best]:+.3f})"
    return sentence + "."


def _gain(view: RunView, alone: RunView, stratum: str, domain: str, metric: str) -> float | None:
    """The metric's difference between two runs; None if one of them lacks it."""
    here, there = (run.values_by_stratum.get(stratum, {}).get((domain, metric)) for run in (view, alone))
    return here["value"] - there["value"] if here and there else None


def _means_table(view: RunView, strata: Sequence[str], metrics: Sequence[str], popularity: RunView | None) -> Table:
    rows = []
    for stratum in strata:
        values = view.values_by_stratum[stratum]
        estimates = [values.get((MACRO, metric)) for metric in metrics]
        counts = next(estimate for estimate in estimates if estimate is not None)
        references = []
        if popularity:
            reference_values = popularity.values_by_stratum.get(stratum, {})
            references = [reference_values.get((MACRO, metric)) for metric in metrics]
        cells = [*map(format_interval, estimates), *(number(one["value"] if one else None, 3) for one in references)]
        rows.append((stratum, number(counts["users"]), number(counts["rows"]), *cells))
    title = "By stratum: test metrics, macro over the domains that have such rows (95 % interval)"
    reference_header = [f"popularity: {metric}" for metric in metrics] if popularity else []
    return Table(title, ("stratum", "users", "rows", *metrics, *reference_header), tuple(rows))


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
