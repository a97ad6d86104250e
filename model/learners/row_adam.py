"""Adam for tables of which a loss sees a few rows."""

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
from model.learners.adam_kernels import adam_rows, catch_up_rows, step_rows, sum_up_waiting
from model.sparse.rows import Ints

_FEW = 4
"""Rows may wait where a loss reads less than one of so many; else catching up costs more than moving all."""
_EARLY = 500
"""Steps until a table's rows may wait: in the first ones Adam's bias changes too much for making up in one."""
_LONGEST = 1000
"""Steps that a row waits, at most."""


@dataclass(frozen=True)
class _Waiting:
    """Of a table some rows of which wait: to which step each row came last (int32), none before `since`."""

    since: int
    moved: Ints


class RowAdam(torch.optim.Adam):
    """torch's Adam; gradients may also come as rows, torch's sparse tensors with distinct indices.

    Other than SparseAdam, it moves rows without a gradient along their momentum, as Adam does. On a CPU the gradient of
    a whole table, most of it zeros, is never made: that took longer than the step. State and its names are Adam's.

    Rows that no loss reads may wait: whoever tells what is read next (`reads`) gets steps that cost what they read, not
    what there is, and has to `settle` before anything else is read. Many steps of waiting are made up for by one, whose
    result is theirs but for the last digits.
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, fused=True)
        self._waiting: dict[Parameter, _Waiting] = {}

    def reads(self, table: Parameter, rows: Tensor) -> None:
        """Bring distinct rows (int64) of a table up to date for the loss of the next step; others may wait from now."""
        step = int(self.state[table]["step"]) if self.state[table] else 0
        if table.device.type != "cpu" or step < _EARLY:
            return
        are_few = rows.numel() * _FEW < table.shape[0]
        waiting = self._waiting.get(table)
        if waiting and (not are_few or step - waiting.since >= _LONGEST):
            self._settle(table)
        if are_few:
            if table not in self._waiting:
                self._waiting[table] = _Waiting(step, np.full(table.shape[0], step, np.int32))
            self._catch_up(table, rows)

    def settle(self) -> None:
        """Bring all rows up to date; nothing waits any more."""
        for table in list(self._waiting):
            self._settle(table)

    def state_dict(self) -> dict[str, Any]:
        """Adam's, settled."""
        self.settle()
        return super().state_dict()

    def step(self, closure: Any = None) -> Any:
        """One step along the gradients; those that came as rows are gone afterwards."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if not self._has_read(table, table.grad):
                    self._settle(table)
                if not table.grad.is_sparse:
                    continue
                if table.device.type == "cpu":
                    self._step_rows(group, table, table.grad)
                    table.grad = None
                else:
                    table.grad = table.grad.to_dense()
        return super().step(closure)

    def _step_rows(self, group: dict[str, Any], table: Parameter, gradient: Tensor) -> None:
        state = self.state[table]
        if not state:
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(table)}
            state["exp_avg_sq"] = torch.zeros_like(table)
        state["step"] += 1
        steps, (keep_mean, keep_square) = float(state["step"]), group["betas"]
        size, unbias = group["lr"] / (1.0 - keep_mean**steps), (1.0 - keep_square**steps) ** -0.5
        keeping = keep_mean, 1.0 - keep_mean, keep_square, 1.0 - keep_square
        rates = tuple(map(np.float32, (*keeping, size, unbias, group["eps"])))
        rows, slopes = gradient._indices()[0].numpy(), gradient._values().contiguous().numpy()
        arrays = self._arrays(table)
        if table in self._waiting:
            share_rows(rows.size, slopes.size, lambda a, b: step_rows(a, b, rows, slopes, rates, *arrays))
            self._waiting[table].moved[rows] = steps
            return
        place = np.full(table.shape[0], -1, np.int32)
        place[rows] = np.arange(rows.size, dtype=np.int32)
        share_rows(table.shape[0], table.numel(), lambda a, b: adam_rows(a, b, place, slopes, rates, *arrays))

    def _arrays(self, table: Parameter) -> list[NDArray[np.float32]]:
        """Table, mean and square."""
        state = self.state[table]
        return [tensor.detach().numpy() for tensor in (table, state["exp_avg"], state["exp_avg_sq"])]

    def _has_read(self, table: Parameter, gradient: Tensor) -> bool:
        """Nothing waits among the rows of a gradient."""
        waiting = self._waiting.get(table)
        if waiting is None:
            return True
        moved = waiting.moved[gradient._indices()[0].numpy()] if gradient.is_sparse else waiting.moved
        return bool((moved == int(self.state[table]["step"])).all())

    def _settle(self, table: Parameter) -> None:
        if table in self._waiting:
            self._catch_up(table, torch.arange(table.shape[0]))
            del self._waiting[table]

    def _catch_up(self, table: Parameter, rows: Tensor) -> None:
        waiting, step = self._waiting[table], int(self.state[table]["step"])
        group = next(group for group in self.param_groups if any(each is table for each in group["params"]))
        waits, (keep_mean, keep_square) = np.empty((step - waiting.since + 1, 5), np.float32), group["betas"]
        sum_up_waiting(step, group["lr"], keep_mean, keep_square, waits)
        numbers, arrays, epsilon = rows.numpy(), self._arrays(table), np.float32(group["eps"])
        share_rows(
            numbers.size, numbers.size * table.shape[1],
            lambda a, b: catch_up_rows(a, b, numbers, step, waiting.moved, waits, epsilon, *arrays),
        )  # fmt: skip
