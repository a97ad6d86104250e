"""Scores of a batch whose rows share negatives in groups: dense products of a group's users and its negatives.

With hundreds of negatives for each row a dense product is many times as fast as one for each score (`batch_scores`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.compute.threads import torch_threads
from model.sparse.matrix import Matrix, SpmmEngine, csr, spmm, with_transpose
from model.sparse.rows import Ints, Longs


@dataclass(frozen=True)
class GroupPattern:
    """Which pairs of a batch's nodes are scored: each row's user with its positive and its group's negatives.

    Attributes:
        picks: picks each row's user out of the nodes, then each row's positive, then each row's negative.
        users: int64, the number of each row's user in the domain.
        known: bool (rows, negatives), negatives that the row's user has, which do not count.
    """

    picks: Matrix
    users: Tensor
    known: Tensor

    @property
    def rows(self) -> int:
        """Number of rows, each with one user."""
        return self.known.shape[0]

    @property
    def anchors(self) -> Tensor:
        """int32 (2, rows), where among the nodes each row's user and its positive are."""
        return self.picks.forward.indices.view(3, -1)[:2]

    def to(self, device: torch.device) -> GroupPattern:
        """The pattern on a device."""
        return GroupPattern(self.picks.to(device), self.users.to(device), self.known.to(device))


def group_pattern(positions: Ints, nodes: int, users: Ints | Longs, known: NDArray[np.bool_]) -> GroupPattern:
    """A pattern from the positions (3, rows) of users, positives and negatives among a batch's nodes."""
    picks = csr(np.arange(positions.size + 1), positions.ravel(), np.ones(positions.size, np.float32), nodes)
    return GroupPattern(with_transpose(picks), torch.from_numpy(users.astype(np.int64)), torch.from_numpy(known))


def group_windows(rows: int, size: int) -> Iterator[tuple[slice, slice]]:
    """The rows of each group, and the `size` rows whose negatives it shares: its own, and where these are too few at
    the end some before them. All rows are one group if there are less than `size`."""
    size = min(size, rows)
    for first in range(0, rows, max(size, 1)):
        last = min(first + size, rows)
        yield slice(first, last), slice(last - size, last)


def group_scores(pattern: GroupPattern, vectors: Tensor, multiply: SpmmEngine) -> tuple[Tensor, Tensor, Tensor]:
    """Dot products of each row's user, differentiable by `vectors` (nodes, width); sums over their columns.

    Returns:
        With its positive (rows); with its group's negatives (rows, negatives); squared norms of users, positives and
        negatives (3, rows).
    """
    picked = spmm(pattern.picks, vectors, multiply)
    users, positives, negatives = picked.chunk(3)
    squares = picked.square().sum(dim=1).view(3, -1)
    return (users * positives).sum(dim=1), group_products(users, negatives, pattern.known.shape[1]), squares


def group_products(left: Tensor, right: Tensor, size: int) -> Tensor:
    """Dot products (rows, size) of each row of `left` with the rows of `right` in its group's window; differentiable.

    On one thread, because BLAS may add up in another order on several.
    """
    return _GroupProducts.apply(left, right, size)  # type: ignore[no-any-return,no-untyped-call]


class _GroupProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, size: int) -> Tensor:
        ctx.size = size
        ctx.save_for_backward(left, right)
        products = left.new_empty(left.shape[0], min(size, left.shape[0]))
        with torch_threads(1):
            for rows, window in group_windows(left.shape[0], size):
                torch.mm(left[rows], right[window].T, out=products[rows])
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (left, right), (gradient,) = ctx.saved_tensors, gradients
        by_left, by_right = torch.empty_like(left), torch.zeros_like(right)
        with torch_threads(1):
            for rows, window in group_windows(left.shape[0], ctx.size):
                torch.mm(gradient[rows], right[window], out=by_left[rows])
                by_right[window].addmm_(gradient[rows].T, left[rows])
        return by_left, by_right, None
