"""Losses: BPR with its L2 penalty, and the distance of aligned pairs."""

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
    return 0.5 * ordered_sum(layer0.square().sum(dim=1) * counts)


def pair_distance(differences: Tensor) -> Tensor:
    """Mean length (not squared) of the pairs' differences (pairs, width) [EDDA]; its gradient at length 0 is 0."""
    return ordered_sum(_Lengths.apply(differences)) / differences.shape[0]  # type: ignore[no-untyped-call]


class _Lengths(torch.autograd.Function):
    """Lengths of rows; the gradient of torch's own function passes over the rows three times as often."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        ctx.save_for_backward(rows, lengths)
        return lengths

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rows, lengths = ctx.saved_tensors
        scale: Tensor = torch.where(lengths > 0, gradients[0] / lengths, 0.0)
        gradient: Tensor = scale.unsqueeze(1) * rows
        return gradient
