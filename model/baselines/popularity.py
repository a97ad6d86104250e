"""Popularity: an item's score is how often it occurs among the domain's positives, the same for every user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.baselines.baseline import Baseline
from model.divergence import Course
from model.learner import Measure


class Popularity(Baseline):
    """Nothing to learn: a user's vector is 1, an item's its number of positives."""

    @property
    def epochs(self) -> int:
        """One: another would change nothing."""
        return 1

    def learn(self, course: Course) -> list[Measure]:  # noqa: ARG002 - nothing to learn
        """Nothing."""
        return []

    def vectors(self) -> Iterator[Tensor]:
        """Vectors of one column."""
        for positives in self.lesson.positives:
            counts = np.bincount(positives.items, minlength=positives.offered)
            column = np.concatenate([np.ones(positives.offset), counts]).astype(np.float32)
            yield torch.from_numpy(column).to(self.lesson.device).unsqueeze(1)

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
