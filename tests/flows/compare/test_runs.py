"""Differences between runs: by seed, domain and stratum, corrected for how many there are, in tables and as JSON."""

from typing import Any

import pyarrow as pa
import pytest
from tiny_world import build

from data_contracts.contracts import METRICS
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from flows.compare.runs import Difference, RunView, cautions, changes, difference
from flows.compare.significance import Significance, holm
from flows.compare.tables import as_json, comparison_tables

LOG = {"big": [("u", "i", "train"), ("v", "j", "train"), ("w", "j", "test")], "small": [("u", "i", "test")]}


def metrics(store: Store, auc: dict[int | None, float], settings: dict[str, Any] | None = None) -> Artifact:
    """AUC by seed, the same in every domain; a null seed holds the mean over seeds."""

    def write(draft: Draft) -> None:
        rows = [
            {
                "seed": seed,
                "epoch": None,
                "domain": domain,
                "split": split,
                "metric": metric,
                "value": value,
                "low": value - 0.02,
                "high": value + 0.04,
                "rows": 5,
                "users": 4,
                "stratum": "all",
            }
            for seed, value in auc.items()
            for domain in ("big", "small", "macro")
            for split in ("valid", "test")
            for metric in ("auc", "full_mrr")
        ]
        draft.write(pa.Table.from_pylist(rows, schema=METRICS.file_schema))

    return store.make(
        METRICS, {"auc": {str(seed): value for seed, value in auc.items()}, **(settings or {})}, {}, write
    )


def compared(store: Store, name: str, auc: dict[int | None, float], /, **config: Any) -> RunView:
    return RunView(name, store, {"name": name, **config}, {"metrics": metrics(store, auc)})


def test_differences_are_paired_by_seed(store: Store) -> None:
    first = compared(store, "a", {None: 0.0, 1: 0.70, 2: 0.72, 3: 0.74, 4: 0.1})
    other = compared(store, "b", {None: 0.0, 1: 0.71, 2: 0.74, 3: 0.75, 9: 0.9})
    found = difference(other, first, ("macro", "auc"))
    assert found is not None
    assert (round(found.value, 6), found.seeds) == (0.013333, 3)
    assert found.p == pytest.approx(0.0572, abs=1e-4)  # t = 4.0 with two degrees of freedom


def test_one_seed_has_a_difference_without_a_p(store: Store) -> None:
    found = difference(compared(store, "b", {1: 0.75}), compared(store, "a", {1: 0.5}), ("big", "auc"))
    assert found is not None
    assert (found.value, found.p) == (0.25, None)


def test_other_seeds_are_compared_by_their_means(store: Store) -> None:
    first, other = compared(store, "a", {None: 0.5, 1: 0.4, 2: 0.6}), compared(store, "b", {3: 0.75})
    found = difference(other, first, ("big", "auc"))
    assert found is not None
    assert (found.value, found.p, found.seeds) == (0.25, None, 0)


def test_equal_differences_of_all_seeds_are_certain(store: Store) -> None:
    first = compared(store, "a", {None: 0.5, 1: 0.5, 2: 0.25})
    up = difference(compared(store, "b", {None: 0.75, 1: 0.75, 2: 0.5}), first, ("big", "auc"))
    same = difference(compared(store, "c", {None: 0.5, 1: 0.5, 2: 0.25}), first, ("big", "auc"))
    assert up is not None
    assert same is not None
    assert (up.p, same.p) == (0.0, 1.0)


def test_small_domains_come_first_and_significant_differences_are_marked(store: Store) -> None:
    world = build(store, LOG)
    runs = [compared(store, "a", {None: 0.6, 1: 0.5, 2: 0.7}), compared(store, "b", {None: 0.8, 1: 0.7, 2: 0.9})]
    runs = [RunView(run.name, store, run.config, {**run.artifacts, **world.parents}) for run in runs]
    small, big, macro, *_ = comparison_tables(runs)
    assert [table.title.split(",")[0] for table in (small, big, macro)] == [
        "small: 1 interactions",
        "big: 3 interactions",
        "macro",
    ]
    assert small.header == ("run", "auc", "Δ  ")
    assert small.rows == (("a", "0.6000 ±0.0300", ""), ("b", "0.8000 ±0.0300", "+0.2000* "))


def test_holm_multiplies_the_smallest_p_by_all_and_never_goes_down() -> None:
    p_values = {("r", "all", domain, "auc"): p for domain, p in (("a", 0.04), ("b", 0.01), ("c", 0.03), ("d", 0.6))}
    corrected = {domain: round(p, 12) for (_, _, domain, _), p in holm(p_values).items()}
    assert corrected == {"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.6}  # 0.04 · 2 is below 0.03 · 3


def test_p_values_are_corrected_for_all_runs_and_domains_of_a_metric(store: Store) -> None:
    first = compared(store, "a", {None: 0.0, 1: 0.70, 2: 0.72, 3: 0.74})
    other = compared(store, "b", {None: 0.0, 1: 0.71, 2: 0.74, 3: 0.75})
    same = compared(store, "c", {None: 0.0, 1: 0.70, 2: 0.72, 3: 0.74})
    alone, beside = (Significance.build(runs).by_seed for runs in ([first, other], [first, other, same]))
    raw, corrected = alone["b", "all", "big", "auc"]
    assert (raw, corrected) == pytest.approx((0.0572, 3 * 0.0572), abs=1e-3)  # two domains and their mean
    assert beside["b", "all", "big", "auc"] == pytest.approx((raw, 6 * raw))
    assert beside["c", "all", "big", "auc"] == (1.0, 1.0)
    described = as_json([first, other, same])["runs"][1]["metrics"]["big"]["auc"]["difference"]
    assert (described["p"], described["p_holm"]) == pytest.approx((raw, 6 * raw))


def test_where_scores_come_from_is_a_table_of_its_own(store: Store) -> None:
    rows = [
        {
            "seed": 1,
            "epoch": None,
            "domain": domain,
            "split": "test",
            "metric": metric,
            "value": value,
            "low": value,
            "high": value,
            "rows": 5,
            "users": 4,
            "stratum": "all",
        }
        for domain in ("big", "macro")
        for metric, value in (("auc", 0.5), ("share_inter", 0.75), ("share_intra", 0.25))
    ]
    table = pa.Table.from_pylist(rows, schema=METRICS.file_schema)
    artifact = store.make(METRICS, {"shares": True}, {}, lambda draft: draft.write(table))
    runs = [RunView("a", store, {}, {"metrics": artifact}), compared(store, "b", {1: 0.5})]
    *domains, shares, _, _ = comparison_tables(runs)
    assert shares.header == ("run", "inter", "intra")
    assert shares.rows == (("a", "75%", "25%"), ("b", "–", "–"))
    assert not any("share" in name for table in domains for name in table.header)
    described = as_json(runs)["runs"][0]
    assert described["scores_come_from"]["macro"] == {"inter": 0.75, "intra": 0.25}
    assert list(described["metrics"]["macro"]) == ["auc"]


def stratified(store: Store, name: str, ndcg: dict[str, dict[int | None, float]]) -> RunView:
    """A run with full_ndcg@20 of the mean over domains by stratum and seed, and some measures of lists."""
    by_stratum = [
        (stratum, "full_ndcg@20", seed, value) for stratum, by_seed in ndcg.items() for seed, value in by_seed.items()
    ]
    lists = {"coverage@20": 0.5, "gini@20": 0.25, "novelty@20": 3.5, "popularity@20": 1234.5, "tail_share@20": 0.125}
    of_lists = [("all", metric, seed, value) for metric, value in lists.items() for seed in ndcg["all"]]
    rows = [
        {
            "seed": seed,
            "epoch": None,
            "domain": "macro",
            "split": "test",
            "stratum": stratum,
            "metric": metric,
            "value": value,
            "low": value - 0.02,
            "high": value + 0.04,
            "rows": 5,
            "users": 4,
        }
        for stratum, metric, seed, value in [*by_stratum, *of_lists]
    ]
    table = pa.Table.from_pylist(rows, schema=METRICS.file_schema)
    artifact = store.make(METRICS, {"run": name}, {}, lambda draft: draft.write(table))
    return RunView(name, store, {}, {"metrics": artifact})


def test_strata_are_tables_below_the_domains_and_metrics_are_read_without_them(store: Store) -> None:
    first = stratified(store, "a", {"history 11+": {1: 0.25}, "all": {1: 0.5}, "history 1-2": {1: 0.75}})
    other = stratified(store, "b", {"all": {1: 0.5}, "history 1-2": {1: 0.5}, "item in one domain": {1: 0.125}})
    macro, histories, overlap, lists, *_ = comparison_tables([first, other])
    assert macro.header == ("run", "full_ndcg@20", "Δ  ")
    assert [row[1] for row in macro.rows] == ["0.5000 ±0.0300"] * 2
    assert histories.title.startswith("full_ndcg@20 by the user's train rows in all domains")
    assert histories.header == ("run", "history 1-2", "Δ  ", "history 11+", "Δ  ")
    assert histories.rows == (
        ("a", "0.7500 ±0.0300", "", "0.2500 ±0.0300", ""),
        ("b", "0.5000 ±0.0300", "-0.2500  ", "–", ""),
    )
    assert overlap.header == ("run", "item in one domain", "Δ  ")
    assert overlap.rows == (("a", "–", ""), ("b", "0.1250 ±0.0300", ""))
    assert lists.header == ("run", "coverage@20", "gini@20", "novelty@20", "popularity@20", "tail_share@20")
    assert lists.rows == tuple((name, "50.0%", "0.250", "3.500", "1,234.5", "12.5%") for name in ("a", "b"))


def test_differences_in_a_stratum_are_paired_by_its_seeds(store: Store) -> None:
    first, other = (
        stratified(store, name, {"all": {None: 0.5, 1: 0.5, 2: 0.5}, "history 1-2": {None: mean, 1: mean, 2: mean}})
        for name, mean in (("a", 0.25), ("b", 0.75))
    )
    delta = difference(other, first, ("macro", "full_ndcg@20"), "history 1-2")
    assert delta is not None
    assert (delta.value, delta.p, delta.seeds) == (0.5, 0.0, 2)
    assert difference(other, first, ("macro", "full_ndcg@20"), "history 11+") is None


def test_json_has_strata_and_what_is_recommended_apart_from_accuracy(store: Store) -> None:
    ndcg = {"all": {1: 0.5}, "history 1-2": {1: 0.75}}
    runs = [stratified(store, "a", ndcg), stratified(store, "b", ndcg)]
    described = as_json(runs)["runs"][1]
    assert list(described["metrics"]["macro"]) == ["full_ndcg@20"]
    assert described["strata"]["history 1-2"]["macro"]["full_ndcg@20"] == {
        "value": 0.75,
        "low": 0.73,
        "high": 0.79,
        "rows": 5,
        "users": 4,
        "seeds": {"1": 0.75},
        "difference": {
            "value": 0.0,
            "p": None,
            "seeds": 1,
            "p_holm": None,
            "p_over_users": None,
            "p_over_users_holm": None,
        },
    }
    assert described["beyond_accuracy"]["macro"]["popularity@20"]["value"] == 1234.5


def test_a_difference_that_rounds_to_zero_has_the_sign_plus() -> None:
    assert [str(Difference(value, None, 1)) for value in (-1e-6, -1e-4)] == ["+0.0000", "-0.0001"]


def test_settings_that_differ_are_named_but_not_those_without_effect(store: Store) -> None:
    first = compared(store, "a", {1: 0.5}, store="x", train={"epochs": 1, "layers": 2}, tracking={"mlflow": None})
    other = compared(store, "b", {1: 0.5}, store="y", train={"epochs": 5, "layers": 2}, tracking={"mlflow": "z"})
    assert changes(other, first) == {"train.epochs": 5}
    assert comparison_tables([first, other])[-1].rows == (("b", "train.epochs=5"),)


def test_runs_of_one_name_are_an_error(store: Store) -> None:
    run = compared(store, "a", {1: 0.5})
    with pytest.raises(ValueError, match="two runs are called 'a'"):
        comparison_tables([run, run])
    with pytest.raises(ValueError, match="two runs are called 'a'"):
        Significance.build([run, run])


def test_other_candidates_or_interactions_are_reported(store: Store) -> None:
    first = RunView(
        "a", store, {}, {"metrics": metrics(store, {1: 0.5}, {"candidates": 10}), **build(store, LOG).parents}
    )
    others = build(store, {"big": LOG["big"]}).parents
    other = RunView("b", store, {}, {"metrics": metrics(store, {1: 0.5}, {"candidates": 11}), **others})
    assert cautions([first, other]) == [
        "b was measured on other interactions than a",
        "b was measured on other candidates or metrics than a",
    ]
    assert cautions([first, first]) == []


def test_other_numbers_of_epochs_are_reported(store: Store) -> None:
    first = RunView("a", store, {"train": {"epochs": 40}}, {"metrics": metrics(store, {1: 0.5})})
    short = RunView("b", store, {"train": {"epochs": 2}}, {"metrics": metrics(store, {1: 0.5})})
    assert cautions([first, short, first]) == ["b had at most 2 epochs, a had 40"]
