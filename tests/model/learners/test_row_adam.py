import numpy as np
import pytest
import torch

from model.learners.adam_kernels import tabulate_lags
from model.learners.row_adam import RowAdam
from model.sparse.matrix import take_rows

DRAWS = torch.Generator().manual_seed(1)
START = torch.randn(50, 6, generator=DRAWS)
WEIGHTS = torch.randn(20, 50, 6, generator=DRAWS)


def loss_of(taken: torch.Tensor, other: torch.Tensor, step: int) -> torch.Tensor:
    """Of some rows of one table and all of another, in every third step of the second alone."""
    own = (other * WEIGHTS[step]).sum()
    return own if step % 3 == 2 else own + (taken * WEIGHTS[step, : taken.shape[0]]).square().sum()


def test_steps_along_rows_are_those_of_adam_along_dense_gradients() -> None:
    tables = [torch.nn.Parameter(START.clone()) for _ in range(2)]
    plain = [torch.nn.Parameter(START.clone()) for _ in range(2)]
    ours, adam = RowAdam(tables, 0.1), torch.optim.Adam(plain, lr=0.1, fused=True)
    for step in range(20):
        rows = torch.randperm(50, generator=torch.Generator().manual_seed(step))[: 5 + step]
        for optimiser, taken, other in (
            (ours, take_rows(tables[0], rows), tables[1]),
            (adam, plain[0][rows], plain[1]),
        ):
            optimiser.zero_grad()
            loss_of(taken, other, step).backward()
            optimiser.step()
    assert not torch.equal(tables[0], START)
    torch.testing.assert_close(tables, plain, atol=1e-6, rtol=1e-5)


def test_its_state_is_adams() -> None:
    table = torch.nn.Parameter(START.clone())
    ours = RowAdam([table], 0.1)
    take_rows(table, torch.tensor([3])).sum().backward()
    ours.step()
    assert table.grad is None
    again = torch.optim.Adam([torch.nn.Parameter(START.clone())], lr=0.1, fused=True)
    again.load_state_dict(ours.state_dict())
    assert again.state_dict()["state"][0]["exp_avg"][3, 0].item() != 0.0


def test_a_step_of_one_tables_rows_moves_no_other() -> None:
    tables, plain = [torch.nn.Parameter(START.clone()) for _ in range(2)], torch.nn.Parameter(START.clone())
    ours, adam = RowAdam(tables, 0.1), torch.optim.Adam([plain], lr=0.1, fused=True)
    rows = torch.tensor([4, 2, 30])
    for step in range(3):
        ours.step_rows(tables[1], rows, WEIGHTS[step, :3])
        plain.grad = torch.zeros_like(plain).index_copy(0, rows, WEIGHTS[step, :3])
        adam.step()
    assert torch.equal(tables[0], START)
    assert tables[0] not in ours.state
    torch.testing.assert_close(tables[1], plain)


@pytest.mark.parametrize("slope", [1e-6, 1.0])
def test_lagging_rows_come_to_where_adam_moves_them(slope: float) -> None:
    """Three rows are read in a step, now and then 40; every seventh time they are not announced."""
    table, plain = (torch.nn.Parameter(START.clone()) for _ in range(2))
    ours, adam = RowAdam([table], 0.01), torch.optim.Adam([plain], lr=0.01, fused=True)
    furthest = 0.0
    for step in range(100):
        rows = torch.randperm(50, generator=torch.Generator().manual_seed(step))[: 3 if step % 40 else 40]
        if step % 7:
            ours.prepare_rows(table, rows)
            assert (table[rows] - plain[rows]).abs().max() < 1e-5
            furthest = max(furthest, float((table - plain).detach().abs().max()))
        for optimiser, taken in ((ours, take_rows(table, rows)), (adam, plain[rows])):
            optimiser.zero_grad()
            (taken * WEIGHTS[step % 20, : rows.numel()] * slope).sum().backward()
            optimiser.step()
        if step == 0:  # rows may not wait in the first steps
            for state in (*ours.state.values(), *adam.state.values()):
                state["step"].fill_(500)
    assert furthest > 1e-3
    assert ours.state_dict()["state"][0]["step"].item() == 599
    torch.testing.assert_close(table, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.state[table]["exp_avg_sq"], adam.state[plain]["exp_avg_sq"], atol=0, rtol=1e-4)


def test_lags_are_tabulated_as_weighted_mean_and_spread_of_the_missed_steps() -> None:
    """w(s) is the step's size times what is left of the mean, q(s) the unbiased root of what is left of the square."""
    step, rate, keep_mean, keep_square = 9, 0.01, 0.9, 0.99
    lags = np.zeros((6, 5), np.float32)
    tabulate_lags(step, rate, keep_mean, keep_square, lags)
    assert lags[0].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    for lag in range(1, 6):
        missed = np.arange(step - lag + 1, step + 1)
        passed = missed - (step - lag)
        w = rate / (1 - keep_mean**missed) * keep_mean**passed
        q = np.sqrt(keep_square**passed / (1 - keep_square**missed))
        mean = (w * q).sum() / w.sum()
        spread = np.sqrt(max((w * q * q).sum() / w.sum() - mean**2, 0.0))
        expected = [w.sum() / 2, mean - spread, mean + spread, keep_mean**lag, keep_square**lag]
        assert lags[lag].tolist() == pytest.approx(expected, rel=1e-4)
