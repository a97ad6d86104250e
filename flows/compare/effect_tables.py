"""Tables of what came out of an experiment: effects by stratum and domain, trends, all cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from data_contracts.contracts import ALL, MACRO, STRATA
from data_contracts.statistics import ExperimentStatistics
from data_contracts.store.artifact import Artifact
from flows.compare.effects import Contrast, Interval, contrasts, rank_correlation, trends
from flows.compare.experiments import MEASURES, MEMORY, SECONDS, VALIDATED, cases_of, domains_of, values_by_case
from flows.compare.significance import holm
from flows.output.tables import Table

MARKS = "▲ ▼: above or below 0 after Holm's correction for all effects beside it; △ ▽: by its own interval alone"
"""What the signs after an interval mean."""

_LEVEL = 0.05
_DIGITS = {SECONDS: 1, MEMORY: 0}
"""After the point, by measure; four for the others."""

_ByColumn = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Column → case → seed → value."""


def experiment_tables(results: Artifact, design: ExperimentStatistics) -> Iterator[Table]:
    """Effects by stratum, trends, effects by domain, what predicts them, and the values of all cases.

    Args:
        results: an `experiment` artifact.
        design: what is compared.
    """
    cases = cases_of(results)
    for factor, reference in design["compared"]:
        pairs = list(contrasts(cases, factor, reference))
        for measure in design["measures"]:
            values = values_by_case(results, measure)
            yield from _by_stratum(pairs, measure, values)
            yield from _trends(pairs, design["along"], measure, values.get(ALL, {}))
        for measure in design["by_domain"]:
            domains = [domain for domain in domains_of(results) if domain != MACRO]
            by_domain = {domain: values_by_case(results, measure, domain).get(ALL, {}) for domain in domains}
            shown = {domain: values for domain, values in by_domain.items() if values}
            yield from _effects(measure, "by domain", pairs, shown, [list(shown)])
        yield from _predictions(results, pairs, design)
    yield _all_cases(results, cases, design["measures"])


def _by_stratum(pairs: Sequence[Contrast], measure: str, values: _ByColumn) -> Iterator[Table]:
    strata = [stratum for stratum in STRATA if stratum in values]
    seeds = max((len(of_case) for of_case in values.get(ALL, {}).values()), default=0)
    note = f"{MACRO}: difference with 95 % interval over {seeds} seeds"
    shown = {stratum: values[stratum] for stratum in (ALL, *strata) if stratum in values}
    yield from _effects(measure, note, pairs, shown, [[ALL], strata])


def _effects(
    measure: str, note: str, pairs: Sequence[Contrast], values: _ByColumn, families: Sequence[Sequence[str]]
) -> Iterator[Table]:
    """A table of effects, if there are any.

    Args:
        measure: whose effects they are.
        note: more for the title.
        pairs: its rows.
        values: of its columns.
        families: columns whose effects are corrected together.
    """
    effects = {
        (pair.label, column): effect
        for pair in pairs
        for column, of_column in values.items()
        if (effect := pair.effect(of_column))
    }
    cells: dict[tuple[str, str], str] = {}
    for family in families:
        cells |= _mark(measure, {name: effect for name, effect in effects.items() if name[1] in family})
    labels = dict.fromkeys(label for label, _ in effects)
    rows = tuple((label, *(cells.get((label, column), "–") for column in values)) for label in labels)
    if rows:
        yield Table(f"Effect on {measure}, {note}", ("effect", *values), rows)


def _mark(measure: str, effects: Mapping[tuple[str, str], Interval]) -> dict[tuple[str, str], str]:
    """Effects of a family as text, with MARKS."""
    digits = _DIGITS.get(measure, 4)
    corrected = holm({name: effect.p for name, effect in effects.items() if effect.p is not None})
    signs = {name: "▽△" if corrected.get(name, 1.0) > _LEVEL else "▼▲" for name in effects}
    return {
        name: effect.describe(digits) + (signs[name][effect.sign > 0] if effect.sign else "")
        for name, effect in effects.items()
    }


def _trends(
    pairs: Sequence[Contrast], doubled: str, measure: str, values: Mapping[str, Mapping[int, float]]
) -> Iterator[Table]:
    slopes = {(trend.label, ""): trend.slope for trend in trends(pairs, doubled, values)}
    rows = tuple((label, cell) for (label, _), cell in _mark(measure, slopes).items())
    if rows:
        title = f"How these effects on {measure} grow each time that {doubled!r} doubles: fitted line, 95 % interval"
        yield Table(title, ("effect", "by doubling"), rows)


def _predictions(results: Artifact, pairs: Sequence[Contrast], design: ExperimentStatistics) -> Iterator[Table]:
    """How a measure of the reference goes with the effects, over the domains, if the design has one."""
    if "predictor" not in design:
        return
    predictor, measure = design["predictor"], design["measures"][0]
    points: dict[str, list[tuple[float, float]]] = {}
    for domain in (name for name in domains_of(results) if name != MACRO):
        known, values = (values_by_case(results, name, domain).get(ALL, {}) for name in (predictor, measure))
        for pair in pairs:
            effect, before = pair.effect(values), known.get(pair.other, {})
            if effect and before:
                points.setdefault(pair.label, []).append((fmean(before.values()), effect.mean))
    rows = []
    for label, of_label in points.items():
        correlation = rank_correlation(of_label)
        rho, p = (f"{correlation[0]:+.2f}", f"{correlation[1]:.2g}") if correlation else ("–", "–")
        rows.append((label, rho, p, str(len(of_label))))
    if rows:
        title = f"Does {predictor!r} of the reference predict the effect on {measure}, over domains?"
        yield Table(title, ("effect", "Spearman's ρ", "p", "domains"), tuple(rows))


def _all_cases(results: Artifact, cases: Sequence[str], measures: Sequence[str]) -> Table:
    wanted = dict.fromkeys([*measures, *MEASURES, VALIDATED])
    values = {measure: values_by_case(results, measure).get(ALL, {}) for measure in wanted}
    shown = {measure: values[measure] for measure in wanted if values[measure]}
    rows = ((case, *(_show_mean(measure, shown[measure].get(case, {})) for measure in shown)) for case in cases)
    return Table(f"All cases: {MACRO}, mean over seeds", ("case", *shown), tuple(rows))


def _show_mean(measure: str, values: Mapping[int, float]) -> str:
    return f"{fmean(values.values()):,.{_DIGITS.get(measure, 4)}f}" if values else "–"
