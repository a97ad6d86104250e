"""What came out of an experiment: effects by stratum and domain, trends, all cases, and a plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

from data_contracts.contracts import ALL, MACRO, STRATA
from data_contracts.store.artifact import Artifact
from flows.experiments.cases import parse_label
from flows.experiments.effects import Contrast, Interval, contrasts, number_of, trends
from flows.experiments.registry import EXPERIMENTS, Experiment
from flows.experiments.results import NDCG, domains_of, values_by_case
from flows.output.tables import Table

_Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Stratum → case → seed → value."""


def experiment_tables(results: Artifact) -> Iterator[Table]:
    """Effects by stratum, trends, effects by domain, and the values of all cases.

    Args:
        results: an `experiment` artifact.
    """
    experiment, cases = _experiment(results), _cases(results)
    for factor, reference in experiment.compared:
        pairs = list(contrasts(cases, factor, reference))
        for measure in experiment.measures:
            yield from _effects(pairs, measure, values_by_case(results, measure))
            yield from _trends(pairs, experiment.along, measure, values_by_case(results, measure).get(ALL, {}))
        for measure in experiment.by_domain:
            yield from _effects_by_domain(results, pairs, measure)
    yield _all_cases(results, cases, experiment.measures)


def _experiment(results: Artifact) -> Experiment:
    return EXPERIMENTS[results.manifest.settings["experiment"]]


def _cases(results: Artifact) -> list[str]:
    """Labels of the cases, their levels in the order of their numbers."""
    cases: set[str] = set(results.read(["case"])["case"].to_pylist())
    return sorted(cases, key=lambda case: [_order(level) for level in parse_label(case).values()])


def _order(level: str) -> tuple[float, str]:
    number = number_of(level)
    return (-math.inf if number is None else number), level


def _effects(pairs: Sequence[Contrast], measure: str, values: _Values) -> Iterator[Table]:
    strata = [stratum for stratum in (ALL, *STRATA) if stratum in values]
    rows = []
    for pair in pairs:
        effects = [pair.effect(values[stratum]) for stratum in strata]
        if any(effects):
            rows.append((pair.label, *(_cell(effect) for effect in effects)))
    if rows:
        seeds = max(len(of_case) for of_case in values[ALL].values())
        title = f"Effect on {MACRO} {measure}: difference with 95 % interval over {seeds} seeds"
        yield Table(title, ("effect", *strata), tuple(rows))


def _cell(effect: Interval | None) -> str:
    """The effect; ▲ or ▼ if its interval does not hold 0."""
    return "–" if effect is None else f"{effect}{('▼', '', '▲')[effect.sign + 1]}"


def _trends(
    pairs: Sequence[Contrast], doubled: str, measure: str, values: Mapping[str, Mapping[int, float]]
) -> Iterator[Table]:
    found = [(trend.label, _cell(trend.slope)) for trend in trends(pairs, doubled, values)]
    if found:
        title = f"How these effects on {measure} grow each time that {doubled!r} doubles: fitted line, 95 % interval"
        yield Table(title, ("effect", "by doubling"), tuple(found))


def _effects_by_domain(results: Artifact, pairs: Sequence[Contrast], measure: str) -> Iterator[Table]:
    domains = [domain for domain in domains_of(results) if domain != MACRO]
    by_domain = {domain: values_by_case(results, measure, domain).get(ALL, {}) for domain in domains}
    shown = [domain for domain in domains if by_domain[domain]]
    rows = []
    for pair in pairs:
        effects = [pair.effect(by_domain[domain]) for domain in shown]
        if any(effects):
            rows.append((pair.label, *(_cell(effect) for effect in effects)))
    if rows:
        yield Table(f"Effect on {measure} by domain", ("effect", *shown), tuple(rows))


def _all_cases(results: Artifact, cases: Sequence[str], measures: Sequence[str]) -> Table:
    wanted = list(dict.fromkeys([*measures, NDCG, "full_recall@20", "auc", "recall@1"]))
    values = {measure: values_by_case(results, measure).get(ALL, {}) for measure in wanted}
    shown = [measure for measure in wanted if values[measure]]
    rows = []
    for case in cases:
        means = [values[measure].get(case) for measure in shown]
        rows.append((case, *("–" if not of else f"{Interval.over(list(of.values())).mean:.4f}" for of in means)))
    return Table(f"All cases: {MACRO}, mean over seeds", ("case", *shown), tuple(rows))


def experiment_page(results: Artifact, picture: str) -> str:
    """The experiment as Markdown.

    Args:
        results: an `experiment` artifact.
        picture: address of its plot.
    """
    name = results.manifest.settings["experiment"]
    tables = (table.markdown() for table in experiment_tables(results))
    return "\n\n".join([f"# {name}", _experiment(results).question, f"![{name}]({picture})", *tables]) + "\n"


def experiment_plot(results: Artifact) -> bytes:
    """A PNG: the first measure along a factor, a line for each combination of the others, bars for 95 % intervals."""
    from matplotlib.figure import Figure

    experiment, cases = _experiment(results), _cases(results)
    measure = experiment.measures[0]
    values = values_by_case(results, measure).get(ALL, {})
    lines: dict[str, dict[str, Interval]] = {}
    for case in cases:
        levels = parse_label(case)
        along = levels.pop(experiment.along, "")
        label = "; ".join(f"{factor} = {level}" for factor, level in levels.items())
        if case in values:
            lines.setdefault(label or measure, {})[along] = Interval.over(list(values[case].values()))
    ticks = sorted({level for line in lines.values() for level in line}, key=_order)
    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, (label, line) in enumerate(lines.items()):
        x = [ticks.index(level) + (number - (len(lines) - 1) / 2) * 0.04 for level in line]
        means = [interval.mean for interval in line.values()]
        errors = [0.0 if math.isnan(interval.high) else interval.high - interval.mean for interval in line.values()]
        axes.errorbar(x, means, yerr=errors, fmt="o-", markersize=4, linewidth=1.2, capsize=2, label=label)
    axes.set_xticks(range(len(ticks)), ticks, rotation=20 if max(map(len, ticks)) > 12 else 0, ha="right"
                    if max(map(len, ticks)) > 12 else "center")  # fmt: skip
    axes.set(xlabel=experiment.along, ylabel=f"test {measure}")
    axes.set_title(experiment.question, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
