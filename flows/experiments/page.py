"""The page of an experiment and its plot."""

from __future__ import annotations

import math
from io import BytesIO

from data_contracts.contracts import ALL
from data_contracts.statistics import ExperimentStatistics
from data_contracts.store.artifact import Artifact
from flows.compare.effect_tables import MARKS, experiment_tables
from flows.compare.effects import Interval, parse_label
from flows.compare.experiments import cases_of, level_order, values_by_case


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
    """A PNG: the first measure along a factor, a line for each combination of the others, bars for 95 % intervals.

    It is empty if no case has the measure, as where a shrunk domain has no test row left.
    """
    from matplotlib.figure import Figure

    cases, along, measure = cases_of(results), design["along"], design["measures"][0]
    values = values_by_case(results, measure).get(ALL, {})
    lines: dict[str, dict[str, Interval]] = {}
    for case in cases:
        levels = parse_label(case)
        level = levels.pop(along, "")
        label = "; ".join(f"{factor} = {level}" for factor, level in levels.items())
        if case in values:
            lines.setdefault(label or measure, {})[level] = Interval.over(list(values[case].values()))
    ticks = sorted({level for line in lines.values() for level in line}, key=level_order)
    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, (label, line) in enumerate(lines.items()):
        x = [ticks.index(level) + (number - (len(lines) - 1) / 2) * 0.04 for level in line]
        means = [interval.mean for interval in line.values()]
        errors = [0.0 if math.isnan(interval.high) else interval.high - interval.mean for interval in line.values()]
        axes.errorbar(x, means, yerr=errors, fmt="o-", markersize=4, linewidth=1.2, capsize=2, label=label)
    is_long = max(map(len, ticks), default=0) > 12
    axes.set_xticks(range(len(ticks)), ticks, rotation=20 if is_long else 0, ha="right" if is_long else "center")
    axes.set(xlabel=along, ylabel=f"test {measure}")
    axes.set_title(design["question"], fontsize=10)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
