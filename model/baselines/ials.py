"""iALS: weighted matrix factorisation of each domain alone by alternating least squares.

Every (user, item) of the domain counts: an interaction has preference 1 and weight `train.confidence`, its absence
preference 0 and weight 1; a penalty times the squared norm of every vector is added. The penalty is `train.l2`, or of a
vector with n interactions l2 (n + m / confidence)^nu, where m is the number of vectors on the other side and nu is
`train.frequency_exponent` (Rendle, Krichene, Zhang and Koren, 2022). The sweeps are those of the library `implicit`
(three steps of conjugate gradients for each vector).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits
from torch import Tensor

from data_contracts.seeding import generator
from model.data.batches import Positives
from model.learners.base import Baseline, Measure, TrainingData
from model.learners.divergence import EpochGuard
from model.sparse.rows import Floats32, Longs

_INITIAL_BOUND = 0.01
"""Vectors start uniform between 0 and this, as in the library."""
_BLOCK = 65_536
"""Vectors solved at once."""
_CALL_PAYS_FROM = 0.01
"""Vectors of one frequency, as a share of those on the other side, from which a call for them alone is cheaper."""


class Ials(Baseline):
    """One epoch is one sweep of every domain: all its users from its items, then all its items from its users."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        if importlib.util.find_spec("implicit") is None:
            raise ModuleNotFoundError(
                "train.model 'ials': the library implicit is not installed; "
                "run `pip install -e '.[baselines]'` or choose another model"
            )
        self._factors = [self._draw(positives) for positives in data.positives]
        self._threads = torch.get_num_threads()

    def train_epoch(self, guard: EpochGuard) -> list[Measure]:  # noqa: ARG002 - every sweep is the same
        """Sweep every domain; the vectors of a domain without positives stay as they are."""
        for positives, factors in zip(self.data.positives, self._factors, strict=True):
            if positives.users.size:
                self._sweep(positives, factors)
        return []

    def vectors(self) -> Iterator[Tensor]:
        """Users' vectors, then items'."""
        for factors in self._factors:
            yield torch.from_numpy(factors.copy()).to(self.data.device)

    def state_dict(self) -> dict[str, Any]:
        """All vectors."""
        return {"factors": [torch.from_numpy(factors) for factors in self._factors]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take all vectors from a state."""
        self._factors = [factors.numpy() for factors in state["factors"]]

    def _draw(self, positives: Positives) -> Floats32:
        draws = generator(self.data.seed, "ials", positives.domain)
        size = positives.offset + positives.offered, self.data.settings.width
        return draws.random(size, dtype=np.float32) * np.float32(_INITIAL_BOUND)

    def _sweep(self, positives: Positives, factors: Floats32) -> None:
        """Improve the vectors of a domain in place.

        BLAS computes the matrix of inner products on one thread, so that its bits do not depend on the machine.
        """
        from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415 - an extra

        settings = self.data.settings
        users, items = factors[: positives.offset], factors[positives.offset :]
        weights = _build_weights(positives, settings.confidence)
        with threadpool_limits(1, "blas"):
            als = AlternatingLeastSquares(settings.width, settings.l2, 1.0, iterations=1, num_threads=self._threads)
            if settings.frequency_exponent:
                self._solve(als.solver, weights, users, items)
                self._solve(als.solver, weights.T.tocsr(), items, users)
            else:
                als.user_factors, als.item_factors = users, items
                als.fit(weights, show_progress=False)

    def _solve(self, solver: Any, weights: Any, solved: Floats32, fixed: Floats32) -> None:
        """Improve vectors in place, each with a penalty of its own, while those of the other side are fixed.

        The library has one penalty for all vectors of a call, so those of a frequency that many have get a call of
        their own. For the rest, a penalty times a squared norm is written as the loss of one more pair for each column:
        preference 0, this weight, and a unit vector on the other side. The library takes weights below 0 for pairs of
        preference 0.
        """
        settings, width = self.data.settings, fixed.shape[1]
        frequencies, numbers, counts = np.unique(np.diff(weights.indptr), return_inverse=True, return_counts=True)
        penalties = settings.l2 * (frequencies + len(fixed) / settings.confidence) ** settings.frequency_exponent
        has_call = counts > _CALL_PAYS_FROM * len(fixed)

        def improve(rows: Longs, pairs: Any, fixed: Floats32, penalty: float) -> None:
            vectors = solved[rows]
            solver(pairs, vectors, fixed, penalty, num_threads=self._threads)
            solved[rows] = vectors

        for number in np.flatnonzero(has_call):
            rows = np.flatnonzero(numbers == number)
            improve(rows, weights[rows], fixed, float(penalties[number]))
        rest, extended = np.flatnonzero(~has_call[numbers]), np.concatenate([fixed, np.eye(width, dtype=np.float32)])
        for start in range(0, rest.size, _BLOCK):
            rows = rest[start : start + _BLOCK]
            further = np.repeat(-penalties[numbers[rows], None].astype(np.float32), width, axis=1)
            pairs = sparse.hstack([weights[rows], sparse.csr_matrix(further)], format="csr")
            improve(rows, pairs, extended, 0.0)


def _build_weights(positives: Positives, confidence: float) -> Any:
    """Weights of the positive pairs, (users, items), float32; a pair that occurs twice has twice the weight."""
    values = np.full(positives.users.size, confidence, np.float32)
    shape = positives.offset, positives.offered
    return sparse.csr_matrix((values, (positives.users, positives.items)), shape=shape)
