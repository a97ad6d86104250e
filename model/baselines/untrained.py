"""Baselines without training: popularity, and evidence from walks alone."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.learners.base import Baseline, Measure
from model.learners.divergence import EpochGuard


class Untrained(Baseline, ABC):
    """A baseline whose vectors are fixed before the first epoch."""

    @property
    def epochs(self) -> int:
        """One, because another would change nothing."""
        return 1

    def train_epoch(self, guard: EpochGuard) -> list[Measure]:  # noqa: ARG002 - nothing is trained
        """Does nothing."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Does nothing."""


class Popularity(Untrained):
    """Scores an item by how often it occurs in the domain's positives: a user's vector is 1, an item's this count."""

    def vectors(self) -> Iterator[Tensor]:
        """Vectors of one column."""
        for positives in self.data.positives:
            counts = np.bincount(positives.items, minlength=positives.offered)
            column = np.concatenate([np.ones(positives.offset), counts]).astype(np.float32)
            yield torch.from_numpy(column).to(self.data.device).unsqueeze(1)


class Walks(Untrained):
    """Vectors are zero, so that the served score is the evidence from walks alone."""

    def vectors(self) -> Iterator[Tensor]:
        """Vectors of one column."""
        for positives in self.data.positives:
            yield torch.zeros(positives.offset + positives.offered, 1, device=self.data.device)
