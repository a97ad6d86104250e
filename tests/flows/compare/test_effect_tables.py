"""Tables of effects, by hand: which are marked, and which are shown."""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa
import pytest
from scipy import stats

from data_contracts.contracts import EXPERIMENT
from data_contracts.statistics import ExperimentStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from flows.compare.effect_tables import experiment_tables
from flows.compare.effects import Interval

DESIGN: ExperimentStatistics = {
    "question": "Does it pay?",
    "compared": [("way", "off")],
    "along": "way",
    "measures": ["full_ndcg@20"],
    "by_domain": ["full_ndcg@20"],
}


Values = dict[tuple[str, str, str], list[float]]
"""(level, domain, stratum) → values of seeds 1, 2, …"""


def kept(
    store: Store, values: Values, measure: str = "full_ndcg@20", more: Mapping[str, Values] = MappingProxyType({})
) -> Artifact:
    """Results of a measure, and of more."""
    rows = [
        (f"way = {level}; evidence = on", seed, domain, stratum, name, value)
        for name, of_measure in {measure: values, **more}.items()
        for (level, domain, stratum), of_seeds in of_measure.items()
        for seed, value in enumerate(of_seeds, 1)
    ]

    def write(draft: Draft) -> None:
        table = pa.table(list(map(pa.array, zip(*rows, strict=True))), EXPERIMENT.file_schema)
        draft.write(table.sort_by([(column, "ascending") for column in EXPERIMENT.sorted_by]))
        draft.statistics |= DESIGN

    return store.make(EXPERIMENT, {"experiment": "made-up"}, {}, write)


def test_p_is_that_of_a_paired_t_test() -> None:
    values = [0.01, 0.03, 0.02, 0.05]
    assert Interval.over(values).p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert Interval.over([0.01]).p is None
    assert Interval.over([0.01, 0.01]).p is None


def test_marks_are_full_where_an_effect_stands_holms_correction(store: Store) -> None:
    """p of three effects: 0.002, 0.03 and 0.5. Holm: 0.006, 0.06 and 0.5."""
    off = {("off", "macro", "all"): [0.2] * 3}
    effects = {"clear": [0.1, 0.11, 0.09], "doubtful": [-0.1, -0.14, -0.07], "none": [0.1, -0.1, 0.1]}
    p_values = sorted(stats.ttest_1samp(of_seeds, 0.0).pvalue for of_seeds in effects.values())
    assert 3 * p_values[0] < 0.05 < 2 * p_values[1]
    assert p_values[1] < 0.05
    on = {(level, "macro", "all"): [0.2 + value for value in of_seeds] for level, of_seeds in effects.items()}
    table = next(iter(experiment_tables(kept(store, off | on), DESIGN)))
    marks = {row[0].split(" ")[1]: row[1][-1] for row in table.rows}
    assert marks == {"clear": "▲", "doubtful": "▽", "none": ")"}
    assert "over 3 seeds" in table.title


def test_strata_are_a_family_of_their_own_and_domains_have_a_table(store: Store) -> None:
    """The one effect on all rows is not corrected; in the strata it is one of two, and the other has no p."""
    doubtful = [0.1, 0.14, 0.07]
    values = {
        (level, domain, stratum): [0.2 + (value if level == "on" else 0.0) for value in doubtful]
        for level in ("off", "on")
        for domain, stratum in (("macro", "all"), ("macro", "history 0"), ("macro", "history 11+"), ("a", "all"))
    }
    by_stratum, by_domain, cases = experiment_tables(kept(store, values), DESIGN)
    assert by_stratum.header == ("effect", "all", "history 0", "history 11+")
    assert [cell[-1] for cell in by_stratum.rows[0][1:]] == ["▲", "△", "△"]
    assert (by_domain.header, by_domain.rows[0][1][-1]) == (("effect", "a"), "▲")
    assert [row[1] for row in cases.rows] == ["0.2000", "0.3033"]


@pytest.mark.parametrize(
    ("measure", "effect", "mean"),
    [
        ("train MiB", "+1,200 (+952 to +1,448)▲", "2,400"),
        ("train seconds", "+1,200.0 (+951.6 to +1,448.4)▲", "2,400.3"),
    ],
)
def test_seconds_and_memory_have_the_digits_that_they_are_known_with(
    store: Store, measure: str, effect: str, mean: str
) -> None:
    values = {("off", "macro", "all"): [1200.3] * 3, ("on", "macro", "all"): [2300.3, 2400.3, 2500.3]}
    effects, cases = experiment_tables(kept(store, values, measure), {**DESIGN, "measures": [measure]})
    assert (effects.title, effects.rows[0][1]) == (
        f"Effect on {measure}, macro: difference with 95 % interval over 3 seeds",
        effect,
    )
    assert cases.rows[1][1] == mean


def test_a_predictor_of_the_reference_is_set_beside_the_effects_of_the_domains(store: Store) -> None:
    """Domains with more conflict where nothing is changed gain more: 0.1, 0.2, 0.3 at conflicts of 1, 4, 9."""
    values = {
        (level, domain, "all"): [0.5 + (gain if level == "on" else 0.0)] * 2
        for domain, gain in (("a", 0.1), ("b", 0.2), ("c", 0.3))
        for level in ("off", "on")
    }
    design: ExperimentStatistics = {**DESIGN, "measures": ["full_ndcg@20"], "predictor": "conflict"}
    conflict = {("off", domain, "all"): [float(n * n)] * 2 for n, domain in enumerate("abc", 1)}
    both = kept(store, values, more={"conflict": conflict})
    table = next(table for table in experiment_tables(both, design) if "predict" in table.title)
    assert table.rows == (("way: on − off (evidence = on)", "+1.00", "0.33", "3"),)
    assert not any("predict" in table.title for table in experiment_tables(both, DESIGN))
