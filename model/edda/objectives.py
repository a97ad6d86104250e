"""Ranking objectives: what a batch's scores are trained by. BPR or squared errors of dot products, softmax of cosines.

A table's columns may be divided among processes and a vector among tables. So a loss is a function of sums over
columns, dot products and squared norms, which are added up over tables and processes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from data_contracts.settings.train import TrainSettings
from model.edda.losses import bpr, ordered_sum
from model.sparse.batch_scores import ScorePattern, batch_scores
from model.sparse.group_scores import GroupPattern, group_products, group_scores
from model.sparse.matrix import SpmmEngine

SMALLEST_SQUARE = 1e-24
"""Vectors whose squared norm is less are divided by its root, so that a zero vector has cosines of 0."""
_EXCLUDED = torch.finfo(torch.float32).min
"""The logit of a negative that does not count; unlike -inf it has a gradient where there is no other."""


class Objective(Protocol):
    """A ranking loss of a batch, in two steps."""

    def sums(self, pattern: Any, vectors: Tensor, multiply: SpmmEngine) -> tuple[Tensor, ...]:
        """The sums over columns that the loss depends on, differentiable by `vectors` (nodes, columns)."""

    def loss(self, pattern: Any, sums: tuple[Tensor, ...], thresholds: Tensor | None) -> Tensor:
        """The mean loss over rows, given sums over all columns, and the users' thresholds if it has any."""


class Bpr:
    """Pairwise loss of dot products [EDDA]."""

    def sums(self, pattern: ScorePattern, vectors: Tensor, multiply: SpmmEngine) -> tuple[Tensor, ...]:
        """Scores (rows, 1 + negatives)."""
        return (batch_scores(pattern, vectors, multiply),)

    def loss(self, _pattern: ScorePattern, sums: tuple[Tensor, ...], _thresholds: Tensor | None) -> Tensor:
        """Mean of softplus(negative - positive)."""
        return bpr(sums[0])


@dataclass(frozen=True)
class CosineSoftmax:
    """Softmax loss of a positive among its negatives, all cosines over a temperature (sampled softmax).

    With thresholds it is SL@K (Yang et al., KDD 2025): each positive's loss is weighed by
    sigmoid((cosine - threshold) / weight temperature), where the threshold is the user's K-th best cosine.

    Differs: the weights are no function of the vectors, because their gradient would push cosines near the threshold
    down. The positive is in the softmax's denominator, as in the paper's formula; the authors' code leaves it out.

    Attributes:
        temperature: what cosines are divided by.
        weight_temperature: what their distance from the threshold is divided by.
    """

    temperature: float
    weight_temperature: float = 1.0

    def sums(self, pattern: GroupPattern, vectors: Tensor, multiply: SpmmEngine) -> tuple[Tensor, ...]:
        """Scores of positives and of negatives, and squared norms, see `group_scores`."""
        return group_scores(pattern, vectors, multiply)

    def loss(self, pattern: GroupPattern, sums: tuple[Tensor, ...], thresholds: Tensor | None) -> Tensor:
        """Mean of -log softmax(positive), each weighed where there are thresholds (users)."""
        positive_scores, negative_scores, squares = sums
        users, positives, negatives = squares.clamp_min(SMALLEST_SQUARE).rsqrt()
        cosines = positive_scores * users * positives
        scales = group_products(users.unsqueeze(1) / self.temperature, negatives.unsqueeze(1), negative_scores.shape[1])
        others = (negative_scores * scales).masked_fill_(pattern.known, _EXCLUDED).logsumexp(dim=1)
        logits = cosines / self.temperature
        losses: Tensor = torch.logaddexp(logits, others) - logits
        if thresholds is not None:
            above = cosines.detach() - thresholds[pattern.users]
            losses = losses * torch.sigmoid(above / self.weight_temperature)
        return ordered_sum(losses) / losses.numel()


@dataclass(frozen=True)
class SquaredError:
    """Squared errors of dot products: 1 is expected of a positive, 0 of an item that the user has not.

    As in weighted matrix factorisation (Hu, Koren and Volinsky, 2008) every item counts that a user has not, not only
    those that are ranked too high; but here they are sampled, uniformly, and a user counts as often as it has
    positives. With a weight w the best score of a pair is r / (r + w), where r is how many times as likely it is
    among positives as among random pairs: so w is where scores saturate.

    Attributes:
        negative_weight: of the mean square over a positive's negatives.
    """

    negative_weight: float

    def sums(self, pattern: GroupPattern, vectors: Tensor, multiply: SpmmEngine) -> tuple[Tensor, ...]:
        """Scores of positives (rows) and of their groups' negatives (rows, negatives)."""
        return group_scores(pattern, vectors, multiply)[:2]

    def loss(self, pattern: GroupPattern, sums: tuple[Tensor, ...], _thresholds: Tensor | None) -> Tensor:
        """Mean over rows of (1 - positive)² + weight · mean of negative²; negatives that the user has count as 0."""
        positives, negatives = sums
        squares = negatives.masked_fill(pattern.known, 0.0).square().mean(dim=1)
        losses = (1.0 - positives).square() + self.negative_weight * squares
        return ordered_sum(losses) / losses.numel()


BPR = Bpr()


def build_objective(settings: TrainSettings) -> Objective:
    """The objective of the settings."""
    if settings.objective == "bpr":
        return BPR
    if settings.objective == "squared":
        return SquaredError(settings.negative_weight)
    return CosineSoftmax(settings.temperature, settings.weight_temperature * settings.temperature)


def normalised(vectors: Tensor) -> Tensor:
    """Vectors (nodes, width) at length 1; zeros stay zeros."""
    return vectors * vectors.square().sum(dim=1, keepdim=True).clamp_min(SMALLEST_SQUARE).rsqrt()
