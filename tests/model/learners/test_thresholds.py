import numpy as np
import pytest
import torch
from tiny_world import Tiny

from model.compute.column_parallel import SINGLE_PROCESS
from model.data.batches import Positives, build_positives
from model.data.dataset import load_dataset, load_interactions
from model.learners import thresholds as module
from model.learners.thresholds import are_due, estimate_thresholds


def books(world: Tiny) -> Positives:
    loaded = load_dataset(world.parents["nodes"], world.parents["graph"])
    domain = loaded.domains[0]
    return build_positives(load_interactions(world.parents["interactions"], domain, loaded), domain, "clean")


def estimated(positives: Positives, vectors: torch.Tensor, epoch: int = 1) -> np.ndarray:
    return estimate_thresholds([positives], [vectors], 3, epoch, SINGLE_PROCESS)[0].numpy()


@pytest.fixture
def vectors(tiny_world: Tiny) -> torch.Tensor:
    positives = books(tiny_world)
    return torch.randn(positives.offset + positives.offered, 4, generator=torch.Generator().manual_seed(2))


def test_where_all_items_are_sampled_the_threshold_is_the_kth_best_of_all(
    tiny_world: Tiny, vectors: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "K", 5)
    positives = books(tiny_world)
    scores = (vectors[: positives.offset] @ vectors[positives.offset :].T).numpy()
    np.testing.assert_allclose(estimated(positives, vectors), np.sort(scores, axis=1)[:, -5], rtol=1e-5)


def test_positives_count_though_they_are_not_sampled(
    tiny_world: Tiny, vectors: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "K", 3)
    monkeypatch.setattr(module, "_SAMPLED_ITEMS", 6)
    positives = books(tiny_world)
    scores = (vectors[: positives.offset] @ vectors[positives.offset :].T).numpy()
    sampled = module.generator(3, "thresholds", positives.domain, 1).permutation(positives.offered)[:6]
    kept = {user: set(sampled.tolist()) for user in range(positives.offset)}
    for user, item in zip(positives.users.tolist(), positives.items.tolist(), strict=True):
        kept[user].add(item)
    expected = [sorted(scores[user, list(items)])[-3] for user, items in kept.items()]
    np.testing.assert_allclose(estimated(positives, vectors), expected, rtol=1e-5)
    assert not np.array_equal(estimated(positives, vectors, 6), estimated(positives, vectors))


def test_a_domain_with_fewer_items_than_k_has_no_threshold() -> None:
    positives = Positives(
        "a", np.array([0], np.int32), np.array([1], np.int32), 2, 3, np.array([0, 1, 1]), np.array([1])
    )
    assert estimated(positives, torch.ones(5, 2)).tolist() == [-np.inf, -np.inf]


def test_thresholds_are_estimated_before_every_fifth_epoch() -> None:
    assert [epoch for epoch in range(1, 12) if are_due(epoch)] == [1, 6, 11]


def test_a_domain_without_train_rows_has_no_thresholds_that_matter() -> None:
    nobody = np.zeros(0, np.int32)
    empty = Positives("a", nobody, nobody, 0, 0, np.zeros(1, np.int64), nobody)
    held_out = Positives("b", nobody, nobody, 1, 1, np.zeros(2, np.int64), nobody)
    found = estimate_thresholds([empty, held_out], [torch.zeros(0, 2), torch.ones(2, 2)], 1, 1, SINGLE_PROCESS)
    assert [each.tolist() for each in found] == [[], [-np.inf]]
