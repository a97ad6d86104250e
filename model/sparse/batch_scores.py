"""Scores of a batch: sampled dense-dense products (SDDMM) of its users' and its items' vectors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.sparse.kernels import transpose
from model.sparse.matrix import Csr, Matrix, SpmmEngine, csr, spmm, with_transpose
from model.sparse.rows import Ints


@dataclass(frozen=True)
class ScorePattern:
    """Which pairs of a batch's nodes are scored.

    Attributes:
        users: picks each row's user out of the nodes.
        items: (rows, nodes), one entry for each score, in the order of the scores; its values do not matter.
        transposed: (nodes, rows), the same entries.
        positions: int64, for each entry of `transposed` its position among the scores.
    """

    users: Matrix
    items: Csr
    transposed: Csr
    positions: Tensor

    @property
    def rows(self) -> int:
        """Number of rows, each with one user."""
        return self.items.rows

    @property
    def anchors(self) -> Tensor:
        """int32 (2, rows), where among the nodes each row's user and its first item are."""
        return torch.stack([self.users.forward.indices, self.items.indices.view(self.rows, -1)[:, 0]])

    def to(self, device: torch.device) -> ScorePattern:
        """The pattern on a device."""
        users, items, transposed = self.users.to(device), self.items.to(device), self.transposed.to(device)
        return ScorePattern(users, items, transposed, self.positions.to(device))


def score_pattern(users: Ints, items: Ints, nodes: int) -> ScorePattern:
    """The pattern that scores `users` (rows,) with `items` (rows, items of each), positions among the nodes."""
    ones = np.ones(items.size, np.float32)
    forward = csr(np.arange(0, items.size + 1, items.shape[1]), items.ravel(), ones, nodes)
    indptr, indices = np.zeros(nodes + 1, np.int32), np.empty(items.size, np.int32)
    positions = np.empty(items.size, np.int64)
    transpose(forward.indptr.numpy(), forward.indices.numpy(), np.arange(items.size), indptr, indices, positions)
    picks = csr(np.arange(users.size + 1), users, ones[: users.size], nodes)
    transposed = csr(indptr, indices, ones, users.size)
    return ScorePattern(with_transpose(picks), forward, transposed, torch.from_numpy(positions))


def batch_scores(pattern: ScorePattern, vectors: Tensor, multiply: SpmmEngine) -> Tensor:
    """Dot products (rows, items of each) of each row's user with its items; differentiable by `vectors` (nodes, w)."""
    users = spmm(pattern.users, vectors, multiply)
    return _Scores.apply(users, vectors, pattern, multiply).view(pattern.rows, -1)  # type: ignore[no-any-return,no-untyped-call]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, vectors: Tensor, pattern: ScorePattern, multiply: SpmmEngine) -> Tensor:
        ctx.pattern, ctx.multiply = pattern, multiply
        ctx.save_for_backward(users, vectors)
        if pattern.positions.numel() > pattern.rows * vectors.shape[0]:  # repeated entries, which torch refuses
            items = pattern.items.indices.view(pattern.rows, -1)
            return (users.unsqueeze(1) * vectors[items]).sum(dim=2).flatten()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns at the first product of a process that CSR is in beta
            scored: Tensor = torch.sparse.sampled_addmm(pattern.items.to_torch(), users, vectors.T, beta=0.0)
            return scored.values()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, vectors = ctx.saved_tensors
        pattern, gradient = ctx.pattern, gradients[0].contiguous()
        by_user = ctx.multiply(pattern.items.with_values(gradient), vectors)
        by_node = ctx.multiply(pattern.transposed.with_values(gradient[pattern.positions]), users)
        return by_user, by_node, None, None
