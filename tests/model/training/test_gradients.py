"""Gradients by domain: against differences of the loss, and on domains that agree or contradict each other."""

import pytest
import torch
from tiny_world import build, random_log, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from model.learners.edda import build_edda, draw_steps
from model.training.gradients import domain_gradients, measure_gradients
from model.training.stage import load_training_data

ONE = ComputeSettings(threads=1)
SIZES = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}


def settings_of(**options):
    train = TrainSettings(**{"width": 8, "intra_width": 4, "epochs": 3, "batch_size": 64, **options})
    return seeded(train, 1, EvaluateSettings(candidates=5))


@pytest.mark.parametrize("tables", ["both", "inter"])
def test_a_gradient_is_the_slope_of_the_domains_mean_loss(store, tables):
    world = build(store, random_log(1, SIZES))
    settings = settings_of(tables=tables, intra_shared_at_most=1.0, select_by="auc")
    learner = build_edda(load_training_data(settings, world.parents))
    inter, intra = domain_gradients(learner, 2)

    def mean_loss(domain: int) -> float:
        data, total, size = learner.data, 0.0, 0
        for step in draw_steps(data, 2):
            if step.domain == domain:
                loss = learner.model.loss(step, (0.0, 0.0), data.graphs.multiply, data.objective)
                total, size = total + float(loss) * step.size, size + step.size
        return total / size

    named = learner.model.tensors()
    for domain, name in enumerate(learner.data.domain_names):
        tables_of = [(inter[domain], named["inter"])]
        tables_of += [(intra[domain], named[f"intra/{name}"])] if tables == "both" else []
        for halves, table in tables_of:
            gradient = halves.sum(dim=0)
            direction = gradient / gradient.norm()
            with torch.no_grad():
                table.add_(direction, alpha=1e-2)
                above = mean_loss(domain)
                table.sub_(direction, alpha=2e-2)
                below = mean_loss(domain)
                table.add_(direction, alpha=1e-2)
            assert (above - below) / 2e-2 == pytest.approx(float(gradient.norm()), rel=2e-2)


def measured(store, log, **options):
    world = build(store, log)
    made = measure_gradients(store, settings_of(select_by="auc", **options), world.parents, ONE)
    assert not made.verify()
    return made.read().to_pylist()


def test_domains_of_the_same_rows_agree_and_of_swapped_tastes_conflict(store):
    users, items = [f"u{n}" for n in range(24)], [f"i{n}" for n in range(24)]
    likes = [(user, item) for u, user in enumerate(users) for i, item in enumerate(items) if u % 2 == i % 2]
    dislikes = [(user, item) for u, user in enumerate(users) for i, item in enumerate(items) if u % 2 != i % 2]
    log = {name: [(*pair, "train") for pair in pairs] for name, pairs in (("a", likes), ("b", likes), ("c", dislikes))}
    options = {"tables": "inter", "backbone": "mf", "epochs": 4, "batch_size": 32, "initial_spread": 0.3}
    rows = measured(store, log, **options)
    assert sorted({row["epoch"] for row in rows}) == [1, 2, 4]
    found = {(row["domain"], row["other_domain"], row["metric"]): row["value"] for row in rows if row["epoch"] == 1}
    assert found["a", "b", "rows"] == found["a", "c", "rows"] == 48
    assert found["a", "b", "cosine"] > 0.25
    assert found["a", "c", "cosine"] < 0 < found["a", "c", "negative"]
    assert found["a", "c", "negative"] > found["a", "b", "negative"]
    assert found["a", "a", "cosine"] > 0.25  # two halves of one domain's batches


def test_domains_that_share_nothing_have_no_common_row(store):
    log = {name: [(f"{name}{u}", f"{name}{u * 3 % 7}", "train") for u in range(20)] for name in "ab"}
    rows = measured(store, log, tables="inter", backbone="mf", batch_size=8)
    found = {(row["domain"], row["metric"]): row["value"] for row in rows if row["other_domain"]}
    assert found["a", "rows"] == 0
    assert found["a", "negative"] is None
    assert found["a", "cosine"] == 0


def test_only_edda_has_gradients_by_domain(store):
    world = build(store, random_log(1, SIZES))
    with pytest.raises(ValueError, match=r"train\.model is 'popularity', must be 'edda'"):
        measure_gradients(store, settings_of(model="popularity"), world.parents, ONE)
