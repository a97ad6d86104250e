import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tiny_world import Tiny, seeded

from data_contracts.contracts import RANKS_FILE
from data_contracts.settings import ComputeSettings, EvaluateSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from data_contracts.train_settings import TrainSettings
from model.evaluation.metrics import user_values
from model.evaluation.stage import evaluate
from model.training.stage import train

ONE = ComputeSettings(threads=1)
SETTINGS = EvaluateSettings(candidates=5, resamples=20, full_at=(5,))
SMALL = TrainSettings(width=8, epochs=2, batch_size=64, learning_rate=0.01, alignment=0.3)
SHARES = {"share_inter", "share_intra"}
METRICS = {"auc", "recall@1", "recall@3", "full_recall@5", "full_ndcg@5", "full_mrr"}


def measured(world: Tiny, seeds: tuple[int, ...], compute: ComputeSettings = ONE) -> Artifact:
    checkpoints = {
        f"checkpoint-{seed}": train(world.store, seeded(SMALL, seed, SETTINGS), world.parents, ONE) for seed in seeds
    }
    return evaluate(world.store, SETTINGS, {**world.without_pairs(), **checkpoints}, compute)


def values(metrics: Artifact) -> dict[tuple[object, ...], dict[str, object]]:
    return {(row["seed"], row["domain"], row["split"], row["metric"]): row for row in metrics.read().to_pylist()}


def test_every_domain_and_their_mean_has_every_metric_of_both_splits(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1,)))
    domains = ("books", "films", "games", "macro")
    accuracy = {(1, d, s, m) for d in domains for s in ("valid", "test") for m in METRICS}
    assert set(found) == accuracy | {(1, d, "test", m) for d in domains for m in SHARES}


def test_where_scores_come_from_adds_up_to_one(tiny_world: Tiny) -> None:
    found = values(measured(tiny_world, (1, 2)))
    for seed in (1, 2, None):
        for domain in ("books", "films", "games", "macro"):
            shares = [found[seed, domain, "test", metric]["value"] for metric in SHARES]
            assert sum(shares) == pytest.approx(1.0)
            assert (min(shares) > 0.0) == (domain != "games")  # which has no intra table


def test_ranks_of_the_test_rows_give_the_same_metrics(tiny_world: Tiny) -> None:
    metrics = measured(tiny_world, (1, 2))
    found, ranks = values(metrics), pq.read_table(metrics.path / RANKS_FILE)
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
    found = [row for (seed, *_), row in values(measured(tiny_world, (1, 2))).items() if seed is None]
    assert all(0.0 <= row["low"] <= row["value"] <= row["high"] <= 1.0 for row in found)
    assert any(row["high"] == 1.0 or row["low"] == 0.0 for row in found)


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


def test_evaluation_without_a_checkpoint_is_an_error(tiny_world: Tiny) -> None:
    with pytest.raises(KeyError, match="there must be a checkpoint"):
        evaluate(tiny_world.store, SETTINGS, tiny_world.without_pairs(), ONE)
