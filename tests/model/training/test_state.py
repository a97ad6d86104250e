import io
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import DAMAGES, damage_file

from model.edda.model import Edda, TableShapes
from model.learners.edda import EddaLearner
from model.training import state
from model.training.state import States, Training, resume, save_state, state_path

SHAPE = TableShapes("both", 4, 9, {"a": 5, "b": 6}, aligned=True)


def trained(steps: int) -> EddaLearner:
    model = Edda(SHAPE, 1)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    for step in range(steps):
        optimiser.zero_grad()
        (model.intra[step % 2].square().sum() + model.inter[0].sum()).backward()
        optimiser.step()
    return EddaLearner(model, optimiser, data=None)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    learner, again = trained(3), trained(0)
    training = Training(3, history=[(1, "a", "loss", 0.1)])
    training.keep_if_best(learner, 0.75)
    save_state(tmp_path, training, learner)
    found = resume(tmp_path, again)
    assert (found.epoch, found.best_epoch, found.best_score, found.history) == (3, 3, 0.75, [(1, "a", "loss", 0.1)])
    assert all(torch.equal(tensor, found.best[name]) for name, tensor in learner.tensors().items())
    assert all(torch.equal(x, y) for x, y in zip(learner.model.parameters(), again.model.parameters(), strict=True))
    for mine, theirs in zip(learner.optimiser.state.values(), again.optimiser.state.values(), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


class Clock:
    """Seconds that pass when told to; writing takes `writing` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writing: float) -> None:
        self.now = 0.0
        true = state.save_state

        def slow(*arguments: Any) -> int:
            self.now += writing
            return true(*arguments)

        monkeypatch.setattr(state, "save_state", slow)


@pytest.mark.parametrize(
    ("interval", "writing", "saved"),
    [
        (30.0, 0.1, [3, 6, 9, 12]),  # an epoch takes 10 seconds
        (0.0, 0.1, list(range(1, 13))),
        (5.0, 1.0, [1, 6, 11]),  # fifty times as long as writing took
        (1000.0, 0.1, []),
    ],
)
def test_states_are_saved_by_time_and_take_two_percent_of_it(
    interval: float, writing: float, saved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, learner = Clock(monkeypatch, writing), trained(1)
    states = States(tmp_path, learner, interval, lambda: clock.now)
    epochs, sizes = [], []
    for epoch in range(1, 13):
        clock.now += 10
        states.keep(Training(epoch))
        (path,) = list(tmp_path.glob("state-*.pt")) or [None]
        if path is not None and path == state_path(tmp_path, epoch):
            epochs.append(epoch)
            sizes.append(path.stat().st_size)
    assert epochs == saved
    assert (states.bytes, states.seconds) == (sum(sizes), pytest.approx(writing * len(saved)))


def test_the_best_tensors_survive_later_epochs(tmp_path: Path) -> None:
    learner = trained(1)
    training = Training(1)
    training.keep_if_best(learner, 0.75)
    best = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    learner.model.inter[0].data += 1
    training.epoch = 2
    training.keep_if_best(learner, 0.7)
    save_state(tmp_path, training, learner)
    found = resume(tmp_path, trained(0))
    assert found.best_epoch == 1
    assert all(torch.equal(found.best[name], tensor) for name, tensor in best.items())


def test_a_write_cut_short_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trained(1)
    save_state(tmp_path, Training(1), learner)
    whole = state_path(tmp_path, 1).read_bytes()

    def cut_short(state: object, stream: io.BufferedWriter) -> None:
        stream.write(whole[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(OSError, match="no space"):
        save_state(tmp_path, Training(2), learner)
    assert resume(tmp_path, trained(0)).epoch == 1


@pytest.mark.parametrize("damage", [*DAMAGES, "no digest"])
def test_a_damaged_state_is_told_deleted_and_not_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save_state(tmp_path, Training(2), trained(1))
    path = state_path(tmp_path, 2)
    path.with_suffix(".sha256").unlink() if damage == "no digest" else damage_file(path, damage)
    assert resume(tmp_path, trained(0)) == Training()
    assert caplog.messages == [f"{path}, left by an earlier attempt, is damaged; training goes on without it"]
    assert not path.exists()
    caplog.clear()
    assert resume(tmp_path, trained(0)) == Training()
    assert caplog.messages == []


def test_a_damaged_digest_counts_as_a_damaged_state(tmp_path: Path) -> None:
    save_state(tmp_path, Training(2), trained(1))
    damage_file(state_path(tmp_path, 2).with_suffix(".sha256"), DAMAGES[0])
    assert resume(tmp_path, trained(0)) == Training()


def test_without_a_score_the_last_epoch_is_kept() -> None:
    training, learner = Training(), trained(0)
    for training.epoch in (1, 2):
        training.keep_if_best(learner, None)
    assert training.best_epoch == 2


def test_nothing_kept_means_a_fresh_start(tmp_path: Path) -> None:
    assert resume(tmp_path, trained(0)) == Training()


def test_an_epochs_note_has_its_loss_its_score_and_the_best() -> None:
    history = [(9, "a", "loss", 0.1), (12, "a", "loss", 0.2), (12, "b", "loss", 0.226), (12, "a", "auc", 0.9)]
    score = (12, "macro", "score", 0.8412)
    training = Training(12, best_epoch=9, best_score=0.842, history=[*history, score])
    assert training.summary() == "loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)"
    assert Training(12, history=history).summary() == "loss 0.213"
    assert Training(1).summary() == "nothing to learn from"
