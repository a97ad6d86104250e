"""Scores of a batch: every row's user with the row's items, out of the vectors of the batch's nodes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.sparse.kernels import transpose
from model.sparse.matrix import Csr, Matrix, Multiply, csr, product, with_transpose
from model.sparse.rows import Ints


@dataclass(frozen=True)
class Pairing:
    """Who is scored with whom among the nodes of a batch.

    Attributes:
        users: picks each row's user out of the nodes.
        items: one entry for each score, in the order of the scores; its values do not matter.
        turned: the same entries by node, and `places`, int64, where each stands among the scores.
    """

    users: Matrix
    items: Csr
    turned: Csr
    places: Tensor

    @property
    def rows(self) -> int:
        """Rows, each with one user."""
        return self.items.rows

    def to(self, device: torch.device) -> Pairing:
        """The pairing on a device."""
        return Pairing(self.users.to(device), self.items.to(device), self.turned.to(device), self.places.to(device))


def pairing_of(users: Ints, items: Ints, nodes: int) -> Pairing:
    """Pair `users` (rows,) with `items` (rows, items of each), both positions among so many nodes."""
    ones = np.ones(items.size, np.float32)
    forward = csr(np.arange(0, items.size + 1, items.shape[1]), items.ravel(), ones, nodes)
    indptr, indices, places = np.zeros(nodes + 1, np.int32), np.empty(items.size, np.int32), np.empty(items.size, int)
    transpose(forward.indptr.numpy(), forward.indices.numpy(), np.arange(items.size), indptr, indices, places)
    picks = csr(np.arange(users.size + 1), users, ones[: users.size], nodes)
    turned = csr(indptr, indices, ones, users.size)
    return Pairing(with_transpose(picks), forward, turned, torch.from_numpy(places))


def pair_scores(pairing: Pairing, vectors: Tensor, multiply: Multiply) -> Tensor:
    """Dot products (rows, items of each) of each row's user with its items; differentiable by `vectors` (nodes, w)."""
    users = product(pairing.users, vectors, multiply)
    return _Scores.apply(users, vectors, pairing, multiply).view(pairing.rows, -1)  # type: ignore[no-any-return,no-untyped-call]


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, vectors: Tensor, pairing: Pairing, multiply: Multiply) -> Tensor:
        ctx.pairing, ctx.multiply = pairing, multiply
        ctx.save_for_backward(users, vectors)
        if pairing.places.numel() > pairing.rows * vectors.shape[0]:  # a tiny domain's repetitions, which torch refuses
            items = pairing.items.indices.view(pairing.rows, -1)
            return (users.unsqueeze(1) * vectors[items]).sum(dim=2).flatten()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once per process that CSR is in beta
            scored: Tensor = torch.sparse.sampled_addmm(pairing.items.sparse(), users, vectors.T, beta=0.0)
            return scored.values()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, vectors = ctx.saved_tensors
        pairing, gradient = ctx.pairing, gradients[0].contiguous()
        by_user = ctx.multiply(pairing.items.valued(gradient), vectors)
        by_node = ctx.multiply(pairing.turned.valued(gradient[pairing.places]), users)
        return by_user, by_node, None, None
