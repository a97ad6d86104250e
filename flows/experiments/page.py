"""The page of an experiment and its plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

from data_contracts.contracts import ALL
from data_contracts.statistics import ExperimentStatistics
from data_contracts.store.artifact import Artifact
from flows.compare.effect_tables import MARKS, experiment_tables
from flows.compare.effects import Interval, contrasts, number_of, parse_label
from flows.compare.experiments import cases_of, level_order, values_by_case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Lines = Mapping[str, dict[str, Interval]]
"""Label → level of the factor along x → what is drawn there."""


def experiment_page(results: Artifact, design: ExperimentStatistics, picture: str) -> str:
    """The experiment as Markdown.

    Args:
        results: an `experiment` artifact.
        design: what is compared.
        picture: address of its plot.
    """
    name = results.manifest.settings["experiment"]
    tables = (table.markdown() for table in experiment_tables(results, design))
    return "\n\n".join([f"# {name}", design["question"], f"![{name}]({picture})", *tables, f"{MARKS}."]) + "\n"


def experiment_plot(results: Artifact, design: ExperimentStatistics) -> bytes:
    """A PNG: the first measure along a factor, a line for each combination of the others; below it the effects.

    Bars are 95 % intervals over seeds; levels without a number are not joined by lines. It is empty if no case has the
    measure, as where a shrunk domain has no test row left.
    """
    from matplotlib.figure import Figure

    cases, along, measure = cases_of(results), design["along"], design["measures"][0]
    values = values_by_case(results, measure).get(ALL, {})
    means: dict[str, dict[str, Interval]] = {}
    for case in (case for case in cases if case in values):
        levels = parse_label(case)
        level = levels.pop(along, "")
        label = "; ".join(f"{factor} = {level}" for factor, level in levels.items())
        means.setdefault(label or measure, {})[level] = Interval.over(list(values[case].values()))
    effects: dict[str, dict[str, Interval]] = {}
    first = dict(reversed(design["compared"]))  # reference of each factor
    for pair in (pair for factor, reference in first.items() for pair in contrasts(cases, factor, reference)):
        if effect := pair.effect(values):
            others = {factor: level for factor, level in pair.others.items() if factor != along}
            line = replace(pair, level="…" if pair.factor == along else pair.level, others=others)
            effects.setdefault(line.label, {})[parse_label(pair.case).get(along, "")] = effect
    ticks = sorted({level for line in means.values() for level in line}, key=level_order)
    figure = Figure(figsize=(9, 8), dpi=110, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    _draw_lines(upper, means, ticks)
    _draw_lines(lower, effects, ticks)
    lower.axhline(0, color="black", linewidth=0.8, zorder=0)
    is_long = max(map(len, ticks), default=0) > 12
    lower.set_xticks(range(len(ticks)), ticks, rotation=90 if is_long else 0)
    lower.set(xlabel=along, ylabel=f"effect on {measure}")
    upper.set(ylabel=f"test {measure}")
    upper.set_title(design["question"], fontsize=10)
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw_lines(axes: Axes, lines: _Lines, ticks: Sequence[str]) -> None:
    """Draw means with their intervals, side by side where lines share a level."""
    from matplotlib import colormaps

    colors = colormaps["tab10" if len(lines) <= 10 else "tab20"](range(max(len(lines), 1)))
    style = "o-" if any(number_of(tick) is not None for tick in ticks) else "o"
    for number, (label, line) in enumerate(lines.items()):
        x = [ticks.index(level) + (number - (len(lines) - 1) / 2) * min(0.04, 0.6 / len(lines)) for level in line]
        means = [interval.mean for interval in line.values()]
        errors = [0.0 if math.isnan(interval.high) else interval.high - interval.mean for interval in line.values()]
        look = {"fmt": style, "color": colors[number], "markersize": 4, "linewidth": 1.2, "capsize": 2}
        axes.errorbar(x, means, yerr=errors, label=label, **look)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
