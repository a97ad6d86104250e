from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy import stats
from tiny_world import Tiny, build, seeded

from data_contracts.contracts import ALL, BEYOND_ACCURACY, HISTORY_STRATA, ITEM_STRATA, STRATA, USER_STRATA
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.evaluation.metrics import Estimate, user_values
from model.evaluation.stage import _means_over_seeds, evaluate
from model.training.stage import train

ONE = ComputeSettings(threads=1)
SETTINGS = EvaluateSettings(candidates=5, resamples=20, full_at=(5,))
SMALL = TrainSettings(width=8, epochs=2, batch_size=64, learning_rate=0.01, alignment=0.3)
SHARES = {"share_inter", "share_intra"}
DOMAINS = ("books", "films", "games")
BEYOND = set(BEYOND_ACCURACY)
METRICS = {"auc", "recall@1", "recall@3", "full_recall@5", "full_ndcg@5", "full_mrr"}


def measured(world: Tiny, seeds: tuple[int, ...], compute: ComputeSettings = ONE) -> Artifact:
    return evaluated(world, seeds, compute)["metrics"]


def evaluated(
    world: Tiny, seeds: tuple[int, ...], compute: ComputeSettings = ONE, settings: EvaluateSettings = SETTINGS
) -> dict[str, Artifact]:
    checkpoints = {
        f"checkpoint-{seed}": train(world.store, seeded(SMALL, seed, SETTINGS), world.parents, ONE) for seed in seeds
    }
    return evaluate(world.store, settings, {**world.without_pairs(), **checkpoints}, compute)


def values(metrics: Artifact, stratum: str = ALL) -> dict[tuple[object, ...], dict[str, object]]:
    rows = [row for row in metrics.read().to_pylist() if row["stratum"] == stratum]
    return {(row["seed"], row["domain"], row["split"], row["metric"]): row for row in rows}


def test_every_domain_and_their_mean_has_every_metric_of_both_splits(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    domains = ("books", "films", "games", "macro")
    accuracy = {(1, d, s, m) for d in domains for s in ("valid", "test") for m in METRICS}
    assert set(found) == accuracy | {(1, d, "test", m) for d in domains for m in SHARES | BEYOND}


def test_where_scores_come_from_adds_up_to_one(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1, 2)))
    for seed in (1, 2, None):
        for domain in ("books", "films", "games", "macro"):
            shares = [found[seed, domain, "test", metric]["value"] for metric in SHARES]
            assert sum(shares) == pytest.approx(1.0)
            assert (min(shares) > 0.0) == (domain != "games")  # which has no intra table


def test_ranks_of_the_test_rows_give_the_same_metrics(tiny_world: Tiny) -> None:
    made = evaluated(tiny_world, (1, 2))
    metrics, ranks = made["metrics"], made["ranks"].read()
    found = values(metrics)
    assert not metrics.verify()
    for seed in (1, 2):
        for domain in ("books", "films", "games"):
            own = ranks.filter((pc.field("seed") == seed) & (pc.field("domain") == domain))
            rank, users, full = (own[name].to_numpy() for name in ("rank", "user", "full_rank"))
            expected = {"auc": own["auc"].to_numpy(), "recall@1": rank <= 1, "recall@3": rank <= 3,
                        **user_values(users, full, (5,))}  # fmt: skip
            assert {metric: found[seed, domain, "test", metric]["value"] for metric in METRICS} == {
                metric: pytest.approx(np.mean(expected[metric])) for metric in METRICS
            }
            assert own.num_rows == found[seed, domain, "test", "auc"]["rows"]


def test_drawn_users_have_the_ranks_that_they_have_among_all(tiny_world: Tiny) -> None:
    everybody = evaluated(tiny_world, (1,))["ranks"].read().drop_columns("auc")  # of a row, it depends on the others
    made = evaluated(tiny_world, (1,), settings=SETTINGS.model_copy(update={"users": 4}))
    metrics, some = values(made["metrics"]), made["ranks"].read().drop_columns("auc")
    for domain in DOMAINS:
        of_domain = everybody.filter(pc.field("domain") == domain)
        drawn = some.filter(pc.field("domain") == domain)
        users = pc.unique(drawn["user"])
        assert len(users) == min(4, len(pc.unique(of_domain["user"])))
        assert drawn.equals(of_domain.filter(pc.is_in(of_domain["user"], users)))
        assert metrics[1, domain, "test", "auc"]["users"] == len(users)
        assert metrics[1, domain, "valid", "auc"]["users"] <= 4
    assert some.num_rows < everybody.num_rows


def test_macro_is_the_unweighted_mean_over_domains(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    own = [found[1, domain, "test", "auc"]["value"] for domain in ("books", "films", "games")]
    assert found[1, "macro", "test", "auc"]["value"] == pytest.approx(np.mean(own))


def test_intervals_hold_their_value(tiny_world: Tiny) -> None:
    rows = measured(tiny_world, (1,)).read().to_pylist()
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert any(row["low"] < row["high"] for row in rows)


def test_validation_auc_is_that_of_the_selected_epoch(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    checkpoint = train(tiny_world.store, seeded(SMALL, 1, SETTINGS), tiny_world.parents, ONE)
    best = checkpoint.statistics["epoch"]
    (auc,) = [
        row["value"]
        for row in checkpoint.read().to_pylist()
        if (row["epoch"], row["domain"], row["metric"]) == (best, "macro", "auc")
    ]
    assert found[1, "macro", "valid", "auc"]["value"] == pytest.approx(auc)


def test_several_seeds_have_a_mean_with_a_t_interval(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1, 2, 3)))
    own = [found[seed, "books", "test", "auc"]["value"] for seed in (1, 2, 3)]
    row = found[None, "books", "test", "auc"]
    half = stats.t.ppf(0.975, 2) * np.std(own, ddof=1) / 3**0.5
    assert (row["value"], row["low"], row["high"]) == pytest.approx(
        (np.mean(own), np.mean(own) - half, np.mean(own) + half)
    )
    assert row["epoch"] is None


def test_a_t_interval_of_two_seeds_ends_where_a_metric_does(tiny_world: Tiny) -> None:
    found = [row for row in measured(tiny_world, (1, 2)).read().to_pylist() if row["seed"] is None]
    assert all(0.0 <= row["low"] <= row["value"] <= row["high"] for row in found)
    unbounded = {row["metric"] for row in found if row["high"] > 1.0}
    assert unbounded == {"novelty@20", "popularity@20"}
    assert any(row["high"] == 1.0 or row["low"] == 0.0 for row in found)


def test_the_mean_over_seeds_is_of_those_that_have_the_metric() -> None:
    share, auc = ("books", "test", ALL, "share_inter"), ("books", "test", ALL, "auc")
    value = {share: Estimate(0.25, np.empty(0), 3, 2), auc: Estimate(0.5, np.empty(0), 3, 2)}
    for measured in ([value, {auc: value[auc]}], [{auc: value[auc]}, value]):
        rows = {row["metric"]: (row["value"], row["low"], row["high"]) for row in _means_over_seeds(measured)}
        assert rows == {"share_inter": (0.25, 0.25, 0.25), "auc": (0.5, 0.5, 0.5)}


def test_one_seed_has_no_mean_over_seeds(tiny_world: Tiny) -> None:
    assert None not in {seed for seed, _, _, _ in values(measured(tiny_world, (1,)))}


def test_metrics_do_not_depend_on_threads(tiny_world: Tiny, tmp_path: object) -> None:
    first = measured(tiny_world, (1,))
    other = Tiny(Store(str(tmp_path) + "/other"), tiny_world.parents)
    assert first.read().equals(measured(other, (1,), ComputeSettings(threads=2)).read())


def test_metrics_count_the_held_out_rows(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    rows = tiny_world.parents["interactions"].read(["split"], domain="games")["split"].to_pylist()
    assert found[1, "games", "test", "auc"]["rows"] == rows.count("test")


def test_metrics_of_a_stratum_are_those_of_its_rows_alone(tiny_world: Tiny) -> None:
    made = evaluated(tiny_world, (1,))
    metrics, ranks = made["metrics"], made["ranks"].read()
    users, domains = ranks["user"].to_numpy(), ranks["domain"].to_numpy(zero_copy_only=False)
    tables = [tiny_world.parents["interactions"].read(["user", "split"], domain=domain) for domain in DOMAINS]
    train = Counter(row["user"] for table in tables for row in table.to_pylist() if row["split"] == "train")
    domains_of = Counter(user for table in tables for user in set(table["user"].to_pylist()))
    history, lives = (np.array([counts[user] for user in users]) for counts in (train, domains_of))
    inside = {
        "history 3-5": (history >= 3) & (history <= 5), "history 6-10": (history >= 6) & (history <= 10),
        "history 11+": history >= 11, "user in one domain": lives == 1, "user in several domains": lives > 1,
    }  # fmt: skip
    compared = 0
    for stratum, is_inside in inside.items():
        found = values(metrics, stratum)
        for domain in DOMAINS:
            own = is_inside & (domains == domain)
            if not own.any():
                assert (1, domain, "test", "full_ndcg@5") not in found
                continue
            expected = user_values(users[own], ranks["full_rank"].to_numpy()[own], (5,))
            for metric in ("full_recall@5", "full_ndcg@5"):
                row = found[1, domain, "test", metric]
                assert row["value"] == pytest.approx(expected[metric].mean())
                assert (row["rows"], row["users"]) == (own.sum(), np.unique(users[own]).size)
                compared += 1
    assert compared >= 16


def test_strata_of_a_kind_share_out_the_rows_and_only_full_rankings_have_them(tiny_world: Tiny) -> None:
    metrics = measured(tiny_world, (1, 2))
    by_stratum = {stratum: values(metrics, stratum) for stratum in (ALL, *STRATA)}
    for domain in (*DOMAINS, "macro"):
        for seed in (1, 2, None):
            name = seed, domain, "test", "full_ndcg@5"
            for kind in (HISTORY_STRATA, USER_STRATA, ITEM_STRATA):
                rows = [by_stratum[stratum][name]["rows"] for stratum in kind if name in by_stratum[stratum]]
                assert sum(rows) == by_stratum[ALL][name]["rows"]
    strata = [row for row in metrics.read().to_pylist() if row["stratum"] != ALL]
    assert {row["metric"] for row in strata} == {"full_recall@5", "full_ndcg@5"}
    assert {row["split"] for row in strata} == {"valid", "test"}
    assert any(row["low"] < row["value"] < row["high"] for row in strata)


def test_a_held_out_row_that_repeats_a_train_row_is_not_behind_full_rankings(store: Store) -> None:
    rows = [(f"u{user}", f"i{item}", "train") for user in range(4) for item in range(4) if user != item]
    others = [("u4", f"i{item}", "train") for item in range(4, 12)]
    world = build(store, {"books": [*rows, *others, ("u0", "i0", "test"), ("u0", "i1", "test")]})
    metrics = measured(world, (1,))
    counts = {metric: row["rows"] for (_, domain, _, metric), row in values(metrics).items() if domain == "books"}
    assert (counts["auc"], counts["full_ndcg@5"], counts["full_mrr"]) == (2, 1, 1)
    assert values(metrics, "history 3-5")[1, "books", "test", "full_ndcg@5"]["rows"] == 1


def test_macro_of_a_stratum_is_the_mean_over_the_domains_that_have_it(tiny_world: Tiny) -> None:
    metrics = measured(tiny_world, (1,))
    for stratum in STRATA:
        found = values(metrics, stratum)
        own = [found[1, domain, "test", "full_ndcg@5"]["value"] for domain in DOMAINS
               if (1, domain, "test", "full_ndcg@5") in found]  # fmt: skip
        assert (1, "macro", "test", "full_ndcg@5") in found or not own
        if own:
            assert found[1, "macro", "test", "full_ndcg@5"]["value"] == pytest.approx(np.mean(own))


def test_measures_of_all_lists_have_no_interval_and_means_over_users_have_one(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    test = tiny_world.parents["interactions"].read(["user", "split"], domain="books")
    users = test.filter(pc.equal(test["split"], "test"))["user"].to_pylist()
    for metric in BEYOND_ACCURACY:
        row = found[1, "books", "test", metric]
        assert (row["low"] == row["high"]) == (metric in ("coverage@20", "gini@20"))
        assert (row["rows"], row["users"]) == (len(users), len(set(users)))


def test_a_domain_without_test_rows_has_no_row_of_any_stratum(store: Store) -> None:
    rows = [(f"u{user}", f"i{item}", "train") for user in range(4) for item in range(4) if user != item]
    world = build(store, {"books": [*rows, ("u0", "i0", "test")], "films": rows})
    metrics = measured(world, (1,))
    assert {(row["domain"], row["split"]) for row in metrics.read().to_pylist()} == {
        ("books", "test"), ("macro", "test"),
    }  # fmt: skip
    assert set(metrics.read()["stratum"].to_pylist()) == {
        ALL, "history 6-10", "user in several domains", "item in several domains",
    }  # fmt: skip


def test_evaluation_without_a_checkpoint_is_an_error(tiny_world: Tiny) -> None:
    with pytest.raises(KeyError, match="there must be a checkpoint"):
        evaluate(tiny_world.store, SETTINGS, tiny_world.without_pairs(), ONE)
