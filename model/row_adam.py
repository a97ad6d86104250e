"""Adam for tables of which a loss sees a few rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from model.matrix_kernels import adam_rows
from model.threads import share_rows


class RowAdam(torch.optim.Adam):
    """torch's Adam; gradients may also come as rows, torch's sparse tensors with distinct indices.

    Other than SparseAdam, it moves rows without a gradient along their momentum, as Adam does. On a CPU the gradient of
    a whole table, most of it zeros, is never made: that took longer than the step. State and its names are Adam's.
    """

    def __init__(self, parameters: Iterable[Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, fused=True)

    def step(self, closure: Any = None) -> Any:
        """One step along the gradients; those that came as rows are gone afterwards."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None or not table.grad.is_sparse:
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
        place = np.full(table.shape[0], -1, np.int32)
        place[rows] = np.arange(rows.size, dtype=np.int32)
        arrays = [tensor.detach().numpy() for tensor in (table, state["exp_avg"], state["exp_avg_sq"])]
        share_rows(table.shape[0], table.numel(), lambda a, b: adam_rows(a, b, place, slopes, rates, *arrays))
