"""Recommenders that learn nothing: popularity, and walks alone."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.learners.base import Baseline, Measure
from model.learners.divergence import Course


class Untrained(Baseline, ABC):
    """A baseline whose vectors are there before the first epoch."""

    @property
    def epochs(self) -> int:
        """One: another would change nothing."""
        return 1

    def learn(self, course: Course) -> list[Measure]:  # noqa: ARG002 - nothing to learn
        """Nothing."""
        return []

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class Popularity(Untrained):
    """An item's score is how often it occurs among the domain's positives: a user's vector is 1, an item's that."""

    def vectors(self) -> Iterator[Tensor]:
        """Vectors of one column."""
        for positives in self.lesson.positives:
            counts = np.bincount(positives.items, minlength=positives.offered)
            column = np.concatenate([np.ones(positives.offset), counts]).astype(np.float32)
            yield torch.from_numpy(column).to(self.lesson.device).unsqueeze(1)


class Walks(Untrained):
    """Vectors of zeros, so that the served score is the evidence from walks alone."""

    def vectors(self) -> Iterator[Tensor]:
        """Vectors of one column."""
        for positives in self.lesson.positives:
            yield torch.zeros(positives.offset + positives.offered, 1, device=self.lesson.device)
