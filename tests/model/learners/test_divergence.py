import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import Tiny, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.digests import file_digest
from model.baselines.two_tower import TwoTower
from model.edda.alignment import AlignmentBatch, RowGradient
from model.edda.model import Edda
from model.learners import edda as learning
from model.learners.base import Measure
from model.learners.divergence import DivergedError, EpochGuard, non_finite_values
from model.sparse.matrix import SpmmEngine
from model.training.stage import train

SMALL = TrainSettings(width=8, epochs=4, batch_size=64, learning_rate=0.01, alignment=0.3, intra_shared_at_most=1.0)


def fitted(world: Tiny) -> object:
    return train(
        world.store,
        seeded(SMALL, 7, EvaluateSettings(candidates=5)),
        world.parents,
        ComputeSettings(threads=1, state_seconds=0),
    )


def spoiling(monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Any], Any]) -> None:
    """From epoch 3 on, the losses of one kind are spoilt; an epoch has six of each."""
    calls = {"done": 0}
    owner, after = Edda if name == "loss" else learning, 2 * 6
    true = getattr(owner, name)

    def spoilt(*arguments: object) -> object:
        calls["done"] += 1
        result = true(*arguments)
        if calls["done"] <= after:
            return result
        return spoil(result) if name == "loss" else (spoil(result[0]), result[1])

    monkeypatch.setattr(owner, name, spoilt)


def diverged(world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that met a loss that is no number in epoch 3, and whose cause is gone now."""
    with monkeypatch.context() as spoilt:
        spoiling(spoilt, "alignment_step", lambda loss: loss * math.nan)
        with pytest.raises(DivergedError):
            fitted(world)


def kept_epoch(world: Tiny) -> int:
    return int(torch.load(next(world.store.root.rglob("state*.pt")), weights_only=True)["epoch"])


def test_a_loss_that_is_no_number_ends_training_and_says_where_and_how_to_go_on(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiling(monkeypatch, "alignment_step", lambda loss: loss * math.nan)
    with pytest.raises(DivergedError) as caught:
        fitted(tiny_world)
    message = str(caught.value)
    assert message.startswith(
        "train: seed 7, epoch 3, domain books, alignment to films: loss is nan, must be finite; the best epoch was "
    )
    assert message.endswith(
        "; lower train.learning_rate (it is 0.01) to train anew, or train.epochs to 2 to end before it"
    )
    assert kept_epoch(tiny_world) == 2


def test_an_infinite_loss_of_a_batch_names_domain_and_batch(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiling(monkeypatch, "loss", lambda loss: loss * torch.inf)
    with pytest.raises(DivergedError, match=r"domain \w+, batch \d+: loss is inf"):
        fitted(tiny_world)


def test_a_table_that_explodes_behind_a_finite_loss_is_found_in_its_epoch(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = learning.alignment_step

    def exploding(
        model: Edda, pairs: AlignmentBatch, weight: float, multiply: SpmmEngine
    ) -> tuple[float, list[RowGradient]]:
        result = true(model, pairs, weight, multiply)
        model.intra[2].data[0, 3] = -torch.inf if (pairs.source, pairs.target) == (2, 1) else 0.0
        return result

    monkeypatch.setattr(learning, "alignment_step", exploding)
    with pytest.raises(DivergedError, match="epoch 1: intra/games holds -inf, must be finite; lower train"):
        fitted(tiny_world)
    assert not list(tiny_world.store.root.rglob("state*.pt"))


def test_a_baseline_that_explodes_behind_a_finite_loss_is_found_in_its_epoch(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = TwoTower.train_epoch

    def spoilt(self: TwoTower, guard: EpochGuard) -> list[Measure]:
        measures = true(self, guard)
        self.towers.embeddings.data[:, 0] = torch.inf
        return measures

    monkeypatch.setattr(TwoTower, "train_epoch", spoilt)
    network = SMALL.model_copy(update={"model": "shared-bottom"})
    with pytest.raises(DivergedError, match="seed 7, epoch 1: vectors/books holds"):
        train(
            tiny_world.store,
            seeded(network, 7, EvaluateSettings(candidates=5)),
            tiny_world.parents,
            ComputeSettings(threads=1),
        )


def test_training_goes_on_from_the_kept_epoch_when_the_cause_is_gone(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged(tiny_world, monkeypatch)
    assert len(fitted(tiny_world).statistics["epoch_seconds"]) == 2  # type: ignore[attr-defined]


def test_a_state_with_tables_that_are_no_numbers_is_not_gone_on_from(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged(tiny_world, monkeypatch)
    path: Path = next(tiny_world.store.root.rglob("state*.pt"))
    state = torch.load(path, weights_only=True)
    state["learner"]["tensors"]["inter"][1, 2] = torch.nan
    torch.save(state, path)
    path.with_suffix(".sha256").write_text(file_digest(path))
    with pytest.raises(DivergedError, match=r"inter of epoch 2 in .* holds nan, .*; delete that folder"):
        fitted(tiny_world)


def test_every_tensor_that_is_not_finite_is_named_with_a_value() -> None:
    tensors = {
        "sound": torch.ones(3, 2), "empty": torch.ones(0, 2), "low": torch.tensor([0.0, -torch.inf]),
        "none": torch.tensor([1.0, torch.nan]),
    }  # fmt: skip
    assert list(non_finite_values(tensors)) == ["low", "none"]
    assert non_finite_values(tensors)["low"] == -torch.inf


def test_the_first_epoch_has_no_better_one_before() -> None:
    expected = r"epoch 1, domain a, batch 0: loss is nan, must be finite; lower [^;]* to train anew$"
    with pytest.raises(DivergedError, match=expected):
        EpochGuard(7, 1, 0, 0.1).check_loss(float("nan"), "a", "batch 0")
