"""Losses: BPR and its L2 penalty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

_CHUNK = 1024


def ordered_sum(values: Tensor) -> Tensor:
    """Sum of a vector in an order that does not depend on the number of threads; 0 for an empty vector."""
    while values.numel() > 1:
        values = pad(values, (0, -values.numel() % _CHUNK)).view(-1, _CHUNK).sum(dim=1)
    return values.sum()


def bpr(scores: Tensor) -> Tensor:
    """Mean of softplus(negative - positive) over rows and negatives [EDDA].

    Args:
        scores: (rows, 1 + negatives), the positive's first; at least one row and one negative.
    """
    margins = scores[:, 1:] - scores[:, :1]
    return ordered_sum(softplus(margins).flatten()) / margins.numel()


def half_squares(layer0: Tensor, counts: Tensor) -> Tensor:
    """Half the squared norms of layer-0 vectors (nodes, width), each weighted by its count (nodes)."""
    return _HalfSquares.apply(layer0, counts)  # type: ignore[no-any-return,no-untyped-call]


class _HalfSquares(torch.autograd.Function):
    """The gradient is each vector times its count; torch's own passes over them three times for the same bits."""

    @staticmethod
    def forward(ctx: Any, layer0: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(layer0, counts)
        return 0.5 * ordered_sum(layer0.square().sum(dim=1) * counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer0, counts = ctx.saved_tensors
        return (gradients[0] * counts).unsqueeze(1) * layer0, None
