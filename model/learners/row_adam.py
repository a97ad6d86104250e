"""Adam for large tables of which each step's loss reads a few rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from model.compute.threads import share_rows
from model.learners.adam_kernels import adam_rows, catch_up_rows, step_rows, tabulate_lags
from model.sparse.rows import Ints

_FEW = 4
"""Rows may lag if a loss reads less than one row in four; otherwise catching up costs more than moving all rows."""
_EARLY = 500
"""No row lags in the first steps: Adam's bias changes too fast there for many steps to be taken as one."""
_LONGEST = 1000
"""Steps that a row lags behind, at most."""


@dataclass(frozen=True)
class _Lag:
    """How far the rows of a table have come: `last_steps` (int32, rows), none below the step `since`."""

    since: int
    last_steps: Ints


class RowAdam(torch.optim.Adam):
    """torch's Adam; gradients may also be torch's sparse tensors of distinct rows.

    Unlike SparseAdam, it moves rows without a gradient along their momentum, as Adam does. On a CPU the gradient of
    a whole table, most of it zeros, is never made: that took longer than the step. State and its names are Adam's.

    Rows that no loss reads may lag behind: a caller that announces the next rows (`prepare_rows`) gets steps whose
    cost is that of these rows, not of the table, and has to `flush` before anything else is read. A row that is read
    again takes all missed steps as one; only the last digits of the result differ.
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, fused=True)
        self._lags: dict[Parameter, _Lag] = {}
        self._with_gradient: list[Parameter] = []
        for table in self.param_groups[0]["params"]:
            table.register_post_accumulate_grad_hook(self._with_gradient.append)

    def prepare_rows(self, table: Parameter, rows: Tensor) -> None:
        """Bring distinct rows (int64) of a table up to date for the next loss; other rows may lag from now on."""
        step = int(self.state[table]["step"]) if self.state[table] else 0
        if table.device.type != "cpu" or step < _EARLY:
            return
        are_few = rows.numel() * _FEW < table.shape[0]
        lag = self._lags.get(table)
        if lag and (not are_few or step - lag.since >= _LONGEST):
            self._flush_table(table)
        if are_few:
            if table not in self._lags:
                self._lags[table] = _Lag(step, np.full(table.shape[0], step, np.int32))
            self._catch_up(table, rows)

    def flush(self) -> None:
        """Bring all rows of all tables up to date."""
        for table in list(self._lags):
            self._flush_table(table)

    def state_dict(self) -> dict[str, Any]:
        """Adam's state, with all rows up to date."""
        self.flush()
        return super().state_dict()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients since the last step."""
        for table in self._with_gradient:
            table.grad = None if set_to_none or table.grad is None else table.grad.zero_()
        self._with_gradient.clear()

    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients, which are gone afterwards. It costs what they do, however many tables exist."""
        (group,), tables, dense = self.param_groups, dict.fromkeys(self._with_gradient), list[Parameter]()
        for table in tables:
            if (gradient := table.grad) is None:
                continue
            if gradient.is_sparse and table.device.type == "cpu":
                self.step_rows(table, gradient._indices()[0], gradient._values())
                continue
            if not self._are_up_to_date(table, np.arange(table.shape[0])):
                self._flush_table(table)
            table.grad = gradient.to_dense() if gradient.is_sparse else gradient
            dense.append(table)
        if dense:
            everything, group["params"] = group["params"], dense
            super().step()
            group["params"] = everything
        self.zero_grad()

    def step_rows(self, table: Parameter, rows: Tensor, gradient: Tensor) -> None:
        """One step of one table along the gradients (rows, width) of distinct rows (int64)."""
        if table.device.type != "cpu":
            table.grad = torch.zeros_like(table).index_copy_(0, rows, gradient)
            self._with_gradient.append(table)
            self.step()
            return
        (group,), state, numbers, values = self.param_groups, self.state[table], rows.numpy(), gradient.contiguous()
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(table)}
            state["exp_avg_sq"] = torch.zeros_like(table)
        if not self._are_up_to_date(table, numbers):
            self._flush_table(table)
        state["step"] += 1
        steps, (keep_mean, keep_square) = float(state["step"]), group["betas"]
        size, unbias = group["lr"] / (1.0 - keep_mean**steps), (1.0 - keep_square**steps) ** -0.5
        decays = keep_mean, 1.0 - keep_mean, keep_square, 1.0 - keep_square
        with np.errstate(over="ignore"):  # a loss that is not finite ends the training
            rates = tuple(map(np.float32, (*decays, size, unbias, group["eps"])))
        inputs = (values.numpy(), rates, *self._table_and_moments(table))
        if table in self._lags:
            share_rows(numbers.size, values.numel(), lambda a, b: step_rows(a, b, numbers, *inputs))
            self._lags[table].last_steps[numbers] = steps
            return
        positions = np.full(table.shape[0], -1, np.int32)
        positions[numbers] = np.arange(numbers.size, dtype=np.int32)
        share_rows(table.shape[0], table.numel(), lambda a, b: adam_rows(a, b, positions, *inputs))

    def _table_and_moments(self, table: Parameter) -> list[NDArray[np.float32]]:
        """Table, mean and square."""
        state = self.state[table]
        return [tensor.detach().numpy() for tensor in (table, state["exp_avg"], state["exp_avg_sq"])]

    def _are_up_to_date(self, table: Parameter, rows: NDArray[np.int64]) -> bool:
        lag = self._lags.get(table)
        return lag is None or bool((lag.last_steps[rows] == int(self.state[table]["step"])).all())

    def _flush_table(self, table: Parameter) -> None:
        if table in self._lags:
            self._catch_up(table, torch.arange(table.shape[0]))
            del self._lags[table]

    def _catch_up(self, table: Parameter, rows: Tensor) -> None:
        lag, step = self._lags[table], int(self.state[table]["step"])
        (group,) = self.param_groups
        lags, (keep_mean, keep_square) = np.empty((step - lag.since + 1, 5), np.float32), group["betas"]
        tabulate_lags(step, group["lr"], keep_mean, keep_square, lags)
        numbers, arrays, epsilon = rows.numpy(), self._table_and_moments(table), np.float32(group["eps"])

        def work(first: int, last: int) -> None:
            catch_up_rows(first, last, numbers, step, lag.last_steps, lags, epsilon, *arrays)

        share_rows(numbers.size, numbers.size * table.shape[1], work)
