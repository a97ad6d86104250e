"""A report's section on accuracy: metrics by domain with intervals, compared with other runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc

from data_contracts.contracts import COVERAGE, INTERACTIONS, ITEM, MACRO, METRICS, NODES, POPULARITY, RANKS
from data_contracts.store.artifact import Artifact
from data_contracts.store.manifest import MANIFEST
from flows.compare.reference import find_popularity, ranks_by_popularity, with_reference
from flows.compare.runs import cautions, evaluated_run
from flows.compare.significance import Significance
from flows.compare.tables import domain_tables, lists_tables, settings_table, shares_tables
from flows.output.plots import COLOURS, Spread, intervals
from flows.output.tables import (
    NOTHING_MEASURED,
    Table,
    format_interval,
    format_list_measures,
    lists_table,
    metric_names,
    metrics_table,
)
from flows.report.blocks import Block, Collapsed, Note, Plots, Section
from flows.report.strata import strata_section
from flows.runner.lookup import RunView

log = logging.getLogger(__name__)

_OPEN = 3
"""Number of domains, the smallest ones, whose comparison is not collapsed."""

_PLOTTED_DOMAINS = 30

_NO_REFERENCE = (
    "The store has no run by popularity alone to read these numbers against; `edda compare RUN.toml --baselines "
    "popularity` makes one."
)

_BEST_FIRST = ("full_ndcg@20", "auc")
"""Mean over domains by which other runs are ordered; the first that was measured."""


def accuracy_sections(view: RunView, against: Sequence[str] | None = None) -> list[Section]:
    """Test metrics by domain and by stratum, compared with other runs on the same interactions.

    Args:
        view: the run.
        against: names of the others; by default all of the store.

    Raises:
        FileNotFoundError: one of the names is no run in the store.
    """
    if METRICS.name not in view.artifacts:
        return [Section("Accuracy", [])]
    if not view.values:
        return [Section("Accuracy", [Note(NOTHING_MEASURED)])]
    for name in against or ():
        view.store.run(name)
    names = view.store.run_names() if against is None else dict.fromkeys(against)
    others, left_out = _find_comparable_runs(view, list(names))
    popularity = find_popularity(others) or _find_reference(view)
    significance = Significance.build([view, *others])
    accuracy = _accuracy_section(view, others, significance, popularity)
    accuracy = replace(accuracy, blocks=[*accuracy.blocks, *left_out])
    return [accuracy, strata_section(view, others, significance, popularity)]


def _find_reference(view: RunView) -> RunView | None:
    """The store's popularity run on the same interactions; None if there is none, or the run is one itself."""
    if ranks_by_popularity(view.config):
        return None
    for name in view.store.run_names():
        try:
            if ranks_by_popularity(view.store.run(name).config or {}) and (run := _find_comparable(view, name)):
                return run
        except (OSError, ValueError) as error:
            log.warning("report of run %r: run %s is no reference: %s", view.name, name, error)
    return None


def _accuracy_section(
    view: RunView, others: Sequence[RunView], significance: Significance, popularity: RunView | None
) -> Section:
    """Metrics of all test rows by domain, small ones first, then what is recommended, then other runs."""
    metrics = metrics_table(view.artifacts, "Test metrics by domain, small ones first (95 % interval)")
    *domains, (_, *means) = metrics.rows
    table = Table(metrics.title, metrics.header, (*reversed(domains), (MACRO, *means)))
    if popularity:
        estimates = [popularity.values.get((MACRO, metric)) for metric in metrics.header[2:]]
        table = with_reference(table, ["", *map(format_interval, estimates)])
    blocks: list[Block] = [table]
    shown = [view, *others[: COLOURS - 1]]
    if popularity and popularity in others and popularity not in shown:
        shown[-1] = popularity
    colours = {run.name: number for number, run in enumerate(shown)}
    blocks.append(Plots([_intervals_plot(view, shown, metric) for metric in _plotted_metrics(view)], colours))
    if lists := lists_table(view.artifacts):
        if popularity:
            lists = with_reference(lists, format_list_measures(popularity.values, MACRO))
        blocks += [lists, Note(_describe_lists(view))]
    if others:
        runs = [view, *others]
        *tables, over_domains = domain_tables(runs, significance)
        blocks += [*tables[:_OPEN], over_domains]
        blocks += [Collapsed("Larger domains", tables[_OPEN:])] if tables[_OPEN:] else []
        blocks += [*lists_tables(runs), *shares_tables(runs), settings_table(runs)]
        blocks += [Note(f"Caution: {caution}.") for caution in cautions(runs)]
    else:
        blocks.append(Note("The store has no other evaluated run of the same interactions to compare with."))
    if popularity is None and not ranks_by_popularity(view.config):
        blocks.append(Note(_NO_REFERENCE))
    return Section("Accuracy", blocks, _summarise(view, popularity))


def _summarise(view: RunView, popularity: RunView | None) -> str:
    """One sentence: how good the lists are, beside popular items."""
    metric = next((name for name in metric_names(view.values) if name.startswith("full_recall@")), None)
    if metric is None or (MACRO, metric) not in view.values:
        return ""
    most = metric.partition("@")[2]
    sentence = (
        f"Of what test users chose afterwards, {view.values[MACRO, metric]['value']:.0%} (macro) is among the first "
        f"{most} of all items of the domain"
    )
    if popularity and (MACRO, metric) in popularity.values:
        sentence += f"; the most popular items would get {popularity.values[MACRO, metric]['value']:.0%}"
    return sentence + "."


def _describe_lists(view: RunView) -> str:
    """List coverage and popularity bias of the lists, by mean and extremes over domains."""
    covered = {
        domain: view.values[domain, COVERAGE]["value"] for domain in view.sizes if (domain, COVERAGE) in view.values
    }
    bias = {}
    for domain in covered if NODES.name in view.artifacts else ():
        nodes = view.artifacts[NODES.name].read(["kind", "train_degree"], domain=domain)
        degrees = nodes.filter(pc.equal(nodes["kind"], ITEM))["train_degree"].to_numpy().astype(np.float64)
        if degrees.any() and (domain, POPULARITY) in view.values:
            chosen = float(degrees @ degrees / degrees.sum())
            bias[domain] = view.values[domain, POPULARITY]["value"] / chosen
    text = f"List coverage: test users together are shown {_mean_and_ends(covered, '.0%')} of the items."
    if bias:
        text += (
            f" Popularity bias: what they are shown is {_mean_and_ends(bias, '.2f')} times as popular as what users "
            "chose themselves in train; 1 is no bias, above 1 the lists favour popular items."
        )
    return text


def _mean_and_ends(values: Mapping[str, float], digits: str) -> str:
    """The mean over domains, and the least and the largest value with their domains."""
    mean = format(sum(values.values()) / len(values), digits)
    if len(values) == 1:
        return mean
    least, largest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"{mean} ({format(values[least], digits)} in {least} to {format(values[largest], digits)} in {largest})"


def _find_comparable_runs(view: RunView, names: Sequence[str]) -> tuple[list[RunView], list[Note]]:
    """Runs of these names that were evaluated on the same interactions, the best first, and notes on damaged ones."""
    runs, notes = [], []
    for name in names:
        try:
            if name != view.name and (run := _find_comparable(view, name)):
                runs.append(run)
        except (OSError, ValueError) as error:  # another damaged run must not prevent this run's report
            note = f"Run {name} is left out: {'; '.join(str(error).splitlines())}"
            log.warning("report of run %r: %s", view.name, note)
            notes.append(Note(note))
    return sorted(runs, key=_mean_score, reverse=True), notes


def _mean_score(run: RunView) -> float:
    measured = (run.values[MACRO, metric]["value"] for metric in _BEST_FIRST if (MACRO, metric) in run.values)
    return next(measured, 0.0)


def _find_comparable(view: RunView, name: str) -> RunView | None:
    """Look up a run by its name; None unless it was evaluated on the same interactions and is readable.

    Raises:
        OSError, ValueError: it is damaged.
    """
    artifacts, interactions = view.store.recorded(view.store.run(name)), view.artifacts.get(INTERACTIONS.name)
    if interactions is None or artifacts.get(INTERACTIONS.name) != interactions or METRICS.name not in artifacts:
        return None
    run = evaluated_run(name, view.store)
    if not all(_is_readable(artifact) for artifact in run.artifacts.values()):
        return None
    for artifact in (run.artifacts[role] for role in (METRICS.name, RANKS.name) if role in run.artifacts):
        if problems := artifact.verify():
            raise _damage_error(artifact, problems[0])
    return run


def _is_readable(artifact: Artifact) -> bool:
    try:
        return artifact.is_readable
    except ValueError as error:
        raise _damage_error(artifact, f"{MANIFEST} cannot be read") from error


def _damage_error(artifact: Artifact, problem: object) -> OSError:
    return OSError(f"{artifact.address} is damaged: {problem}; delete it and run the run's file again")


def _plotted_metrics(run: RunView) -> list[str]:
    """One metric among candidates, one among all items."""
    names = metric_names(run.values)
    return [name for name in names if name == "auc" or name.startswith("full_recall")][:2]


def _intervals_plot(view: RunView, runs: Sequence[RunView], metric: str) -> str:
    domains = [domain for domain in reversed(view.sizes) if (domain, metric) in runs[0].values][:_PLOTTED_DOMAINS]
    missing: Mapping[str, float] = dict.fromkeys(("value", "low", "high"), np.nan)
    spreads = []
    for run in runs:
        estimates = [run.values.get((domain, metric), missing) for domain in [*domains, MACRO]]
        values, low, high = ([estimate[end] for estimate in estimates] for end in ("value", "low", "high"))
        spreads.append(Spread(values, low, high))
    return intervals(f"Test {metric}, 95 % interval", [*domains, MACRO], spreads)
