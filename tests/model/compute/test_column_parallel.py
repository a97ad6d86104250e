from pathlib import Path
from typing import Any

import pytest
import torch
from damage import DAMAGES, damage_file

from data_contracts.seeding import generator
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.edda.model import Edda, TableShapes
from model.learners.edda import EddaLearner
from model.training.state import Training, resume, save_state, state_path

SHAPE = TableShapes("both", 7, 9, {"a": 5, "b": 6}, aligned=True)


class Apart(ColumnParallel):
    """One of several processes, whose collectives reach no other."""

    def broadcast(self, value: Any) -> Any:
        return value

    def all_gather(self, value: Any) -> list[Any]:
        return [value]


def trained(processes: ColumnParallel, steps: int = 3) -> EddaLearner:
    """A learner of which every column has learnt, alike in whichever process it is."""
    model = Edda(SHAPE, 1, processes=processes)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.stack([table.square().sum() for table in model.parameters()]).sum().backward()
        optimiser.step()
    return EddaLearner(model, optimiser, data=None)


def kept(folder: Path, ranks: int, epoch: int) -> None:
    """The states of all processes after an epoch."""
    for rank in reversed(range(ranks)):
        learner = trained(Apart(rank, ranks))
        training = Training(epoch, history=[(epoch, "a", "loss", 0.5)])
        training.keep_if_best(learner, 0.75)
        save_state(folder, training, learner)


@pytest.mark.parametrize(("width", "ranks"), [(64, 1), (64, 2), (7, 3), (5, 5)])
def test_every_column_has_one_process_and_numbers_differ_by_one_at_most(width: int, ranks: int) -> None:
    ranges = ColumnParallel(0, ranks).column_ranges(width)
    assert [column for columns in ranges for column in range(width)[columns]] == list(range(width))
    sizes = {columns.stop - columns.start for columns in ranges}
    assert max(sizes) - min(sizes) <= 1


def test_fewer_columns_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a table's width is 2, must be ≥ 3, the number of processes"):
        ColumnParallel(1, 3).own_columns(2)


def test_with_one_process_every_collective_is_the_identity() -> None:
    one, other = torch.ones(2, 3, requires_grad=True), torch.zeros(())
    assert SINGLE_PROCESS.all_reduce_coalesced(one, other) == (one, other)
    assert SINGLE_PROCESS.all_reduce(one) is one
    assert (SINGLE_PROCESS.broadcast(3), SINGLE_PROCESS.all_gather(3)) == (3, [3])
    assert list(SINGLE_PROCESS.gather_rows(other.view(1, 1), 1)) == [other.view(1, 1)]
    assert SINGLE_PROCESS.traffic() == ""


def test_tables_begin_with_the_columns_that_one_process_begins_with() -> None:
    whole = Edda(SHAPE, 1).tensors()
    shares = [Edda(SHAPE, 1, processes=ColumnParallel(rank, 3)).tensors() for rank in range(3)]
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([share[name] for share in shares], dim=1), tensor)


def test_tables_that_are_drawn_in_blocks_begin_as_if_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.edda.model._BLOCK", 2)
    draws = generator(1, "table", "inter").standard_normal((9, 7), dtype="float32")
    assert torch.equal(Edda(SHAPE, 1, 0.05).tensors()["inter"], torch.from_numpy(draws) * 0.05)


@pytest.mark.parametrize(("before", "now"), [(1, 2), (3, 1), (3, 2), (2, 2)])
def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path, before: int, now: int) -> None:
    kept(tmp_path, before, 4)
    for rank in range(now):
        learner, expected = trained(Apart(rank, now), 0), trained(Apart(rank, now))
        found = resume(tmp_path, learner)
        assert (found.epoch, found.best_score, found.history) == (4, 0.75, [(4, "a", "loss", 0.5)])
        torch.testing.assert_close(learner.tensors(), expected.tensors())
        torch.testing.assert_close(found.best, expected.tensors())
        torch.testing.assert_close(list(learner.optimiser.state.values()), list(expected.optimiser.state.values()))


def test_an_epoch_that_not_every_process_has_kept_does_not_count(tmp_path: Path) -> None:
    kept(tmp_path, 2, 4)
    save_state(tmp_path, Training(5), trained(Apart(1, 2)))
    assert resume(tmp_path, trained(Apart(0, 2), 0)).epoch == 4


def test_an_epoch_of_which_one_process_has_a_damaged_state_does_not_count(tmp_path: Path) -> None:
    kept(tmp_path, 3, 4)
    damage_file(state_path(tmp_path, 4, 2, 3), DAMAGES[0])
    assert resume(tmp_path, trained(Apart(0, 3), 0)) == Training()
    assert not state_path(tmp_path, 4, 2, 3).exists()
    assert resume(tmp_path, trained(Apart(1, 3), 0)) == Training()


def test_the_epoch_before_is_deleted_whoever_kept_it(tmp_path: Path) -> None:
    kept(tmp_path, 3, 4)
    kept(tmp_path, 2, 5)
    states = [state_path(tmp_path, 5, rank, 2) for rank in (0, 1)]
    assert set(tmp_path.iterdir()) == {*states, *(state.with_suffix(".sha256") for state in states)}
