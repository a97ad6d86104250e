"""Runs compared row by row: parts of the AUC, sums by user, p by a paired bootstrap over users."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.contracts import METRICS, RANKS
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from flows.compare.significance import RESAMPLES, over_users
from flows.compare.tables import as_json, comparison_tables
from flows.runner.lookup import RunView
from model.evaluation.metrics import Estimate, auc_parts, candidate_statistics, resample_weights
from model.evaluation.significance import differences, mean_sums, p_value, tail_p_value, user_sums

CUTS = {"recall_at": [1, 3], "full_at": [5]}


def ranks_of(rows: list[tuple[int, int, int | None, float | None, int | None]], seed: int = 1, domain: str = "books"):
    """User, item, rank, part of the AUC, full rank."""
    names = [field.name for field in RANKS.file_schema]
    return pa.Table.from_pylist(
        [dict(zip(names, (seed, domain, *row), strict=True)) for row in rows], schema=RANKS.file_schema
    )


def random_ranks(seed: int, worse: int = 0, users: int = 40) -> pa.Table:
    """Three rows of each user, every rank `worse` places lower."""
    random = np.random.default_rng(seed)
    rank = random.integers(1, 8, 3 * users) + worse
    return ranks_of([(row // 3, row, int(own), 1.0 - own / 20, int(own)) for row, own in enumerate(rank)])


def run(store: Store, name: str, ranks: pa.Table) -> RunView:
    """A run whose values do not matter, with these ranks."""

    def write(draft: Draft) -> None:
        row = {
            "seed": 1,
            "epoch": 1,
            "split": "test",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "rows": 5,
            "stratum": "all",
            "users": 3,
        }
        rows = [row | {"domain": domain, "metric": metric} for domain in ("books", "macro")
                for metric in ("auc", "recall@1", "full_recall@5")]  # fmt: skip
        draft.write(pa.Table.from_pylist(rows, schema=METRICS.file_schema))

    artifacts = {
        "metrics": store.make(METRICS, {"name": name, **CUTS}, {}, write),
        "ranks": store.make(RANKS, {"name": name, **CUTS}, {}, lambda draft: draft.write(ranks)),
    }
    return RunView(name, store, {"name": name}, artifacts)


def test_parts_of_the_auc_have_it_as_their_mean():
    random = np.random.default_rng(1)
    positive = random.integers(0, 9, 30).astype(np.float32)
    candidates = random.integers(0, 9, (30, 4)).astype(np.float32)
    candidates[random.random((30, 4)) < 0.3] = np.nan
    auc = candidate_statistics(positive, candidates, ())["auc"](np.ones(30))
    assert auc_parts(positive, candidates).mean() == pytest.approx(auc)


def test_parts_of_the_auc_follow_that_of_resampled_rows():
    random = np.random.default_rng(2)
    positive = random.normal(0.5, 1, 2000).astype(np.float32)
    candidates = random.normal(0, 1, (2000, 5)).astype(np.float32)
    of, parts = candidate_statistics(positive, candidates, ())["auc"], auc_parts(positive, candidates)
    drawn = list(resample_weights(1, ("rows",), 20, 2000))
    exact, linear = np.array([of(weights) for weights in drawn]), np.array([one @ parts / 2000 for one in drawn])
    assert np.abs(exact - linear).max() < 0.05 * exact.std()


def test_rows_without_any_candidate_have_no_part():
    assert np.isnan(auc_parts(np.ones(2, np.float32), np.full((2, 3), np.nan, np.float32))).all()


def test_sums_by_user_count_only_what_was_ranked():
    sums = user_sums(ranks_of([(4, 1, 1, 1.0, 5), (4, 2, 3, 0.5, 6), (7, 1, None, None, 2), (9, 1, 2, 0.5, None)]),
                     [1, 3], [5])  # fmt: skip
    assert sums.values["recall@1"].tolist() == [1, 0, 0]
    assert sums.values["recall@3"].tolist() == [2, 0, 1]
    assert sums.values["auc"].tolist() == [1.5, 0, 0.5]
    assert sums.counts["auc"].tolist() == [2, 0, 1]
    assert sums.values["full_recall@5"].tolist() == [0.5, 1, 0]
    assert sums.counts["full_recall@5"].tolist() == [1, 1, 0]


def test_resampled_differences_are_those_of_the_drawn_users_rows():
    own, other = (user_sums(random_ranks(seed), [1], [5]) for seed in (1, 2))
    ((found,),) = [differences([(own, other)], resample_weights(3, ("x",), 4, 40))]
    recalls = [np.array([row <= 1 for row in random_ranks(seed)["rank"].to_pylist()]).reshape(40, 3)
               for seed in (1, 2)]  # fmt: skip
    assert found["recall@1"].value == pytest.approx(recalls[0].mean() - recalls[1].mean())
    for drawn, resample in zip(resample_weights(3, ("x",), 4, 40), found["recall@1"].resamples, strict=True):
        chosen = np.repeat(np.arange(40), drawn.astype(int))
        assert resample == pytest.approx(recalls[0][chosen].mean() - recalls[1][chosen].mean())


def test_seeds_are_averaged_before_users_are_drawn():
    sums = [user_sums(ranks_of([(1, 1, rank, 0.5, 1)]), [1], [5]) for rank in (1, 2)]
    assert mean_sums(sums).values["recall@1"].tolist() == [0.5]


def test_equal_runs_have_p_1_and_a_run_that_is_worse_for_all_the_smallest(store: Store):
    runs = [run(store, "a", random_ranks(1)), run(store, "same", random_ranks(1)), run(store, "b", random_ranks(1, 5))]
    found = over_users(runs)
    assert found["same", "all", "books", "recall@1"] == (1.0, 1.0)
    assert found["b", "all", "books", "auc"].raw == 1 / (RESAMPLES + 1)
    assert found["b", "all", "macro", "auc"] == found["b", "all", "books", "auc"]
    assert found == over_users(runs)


def test_p_does_not_depend_on_how_many_runs_are_in_memory_at_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    runs = [run(store, name, random_ranks(seed, seed)) for seed, name in enumerate("abcd")]
    at_once = over_users(runs)
    monkeypatch.setattr("flows.compare.significance._RUNS_AT_ONCE", 1)
    assert over_users(runs) == at_once


def test_beyond_what_resamples_count_p_is_that_of_student_t():
    resamples = np.array([0.75, 1.25])  # their standard deviation is 0.35355
    estimate = Estimate(2.821 * 0.353553, resamples, 10, 10)  # 2.821 is the 99th percentile of t with 9 degrees
    assert p_value(estimate) == 1 / 3
    assert tail_p_value(estimate) == pytest.approx(0.02, abs=1e-4)
    assert tail_p_value(replace(estimate, value=0.2)) == 1.0  # both resamples lie as far: it is counted


def test_chance_is_seldom_significant():
    """Of two runs that differ by chance alone, one in twenty has p < 0.05."""
    significant = 0
    for seed in range(100):
        own, other = (user_sums(random_ranks(1000 * seed + side), [1], []) for side in (0, 1))
        (found,) = differences([(own, other)], resample_weights(seed, ("x",), 100, 40))
        significant += p_value(found["recall@1"]) < 0.05
    assert 0 < significant <= 13


def test_other_held_out_rows_have_no_p(store: Store):
    runs = [run(store, "b", ranks_of([(1, 1, 1, 0.5, 1)])), run(store, "nothing held out", ranks_of([]))]
    assert over_users([run(store, "a", random_ranks(1)), *runs]) == {}


def test_tables_and_json_show_what_the_bootstrap_found(store: Store):
    runs = [run(store, "a", random_ranks(1)), run(store, "b", random_ranks(1, 5)), run(store, "c", random_ranks(1))]
    books = comparison_tables(runs)[0]
    assert [row[2] for row in books.rows] == ["", "+0.0000† ", "+0.0000  "]
    metrics = as_json(runs)["runs"][1]["metrics"]["books"]
    assert metrics["auc"]["difference"]["p_over_users"] == 1 / (RESAMPLES + 1)
