"""A report's section on experiments with the run: each question, a plot of the effects, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

from data_contracts.contracts import ALL
from data_contracts.statistics import ExperimentStatistics
from data_contracts.store.artifact import Artifact
from flows.compare.effect_tables import MARKS, experiment_tables
from flows.compare.effects import Contrast, Interval, contrasts
from flows.compare.experiments import cases_of, experiments_of, values_by_case
from flows.output.plots import Spread, intervals
from flows.report.blocks import Block, Collapsed, Note, Plots, Section
from flows.runner.lookup import RunView

_MOST_EFFECTS = 40
"""Most effects of a plot."""


def experiments_section(view: RunView) -> Section:
    """What experiments with this run came to; empty if there is none."""
    blocks: list[Block] = []
    names = []
    for results in experiments_of(view):
        design = results.statistics_as(ExperimentStatistics)
        names.append(str(results.manifest.settings["experiment"]))
        first, *others = experiment_tables(results, design)
        plots = list(_plots(results, design))
        blocks += [Note(f"{names[-1]}: {design['question']}"), *([Plots(plots)] if plots else []), first]
        blocks.append(Collapsed(f"All tables of {names[-1]}", others))
    if blocks:
        blocks.append(Note(f"{MARKS}."))
    listed = ", ".join(names)
    return Section("Experiments", blocks, f"Questions that were answered by variants of this run: {listed}.")


def _plots(results: Artifact, design: ExperimentStatistics) -> Iterator[str]:
    """Effects on the first measure with their intervals, for each factor that is compared; the line is no effect."""
    measure, cases = design["measures"][0], cases_of(results)
    values = values_by_case(results, measure).get(ALL, {})
    for factor, reference in design["compared"]:
        pairs = [pair for pair in contrasts(cases, factor, reference) if pair.effect(values)]
        effects = [effect for pair in pairs if (effect := pair.effect(values))]
        if 0 < len(effects) <= _MOST_EFFECTS:
            title = f"{measure}: {factor}, less {reference}"
            yield intervals(title, list(_short_labels(pairs)), [_spread(effects)], marked=0.0)


def _short_labels(pairs: list[Contrast]) -> Iterator[str]:
    """The levels of each effect that are not the same in all of them."""
    varied = {name for pair in pairs for name, level in pair.others.items() if level != pairs[0].others.get(name)}
    for pair in pairs:
        others = "; ".join(f"{name} = {level}" for name, level in pair.others.items() if name in varied)
        yield f"{pair.level} ({others})" if others else pair.level


def _spread(effects: list[Interval]) -> Spread:
    """Means and intervals; the interval of a single seed is its value."""
    low, high = (
        [getattr(effect, end) if not math.isnan(getattr(effect, end)) else effect.mean for effect in effects]
        for end in ("low", "high")
    )
    return Spread([effect.mean for effect in effects], low, high)
