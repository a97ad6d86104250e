"""What all baselines have in common: they keep final vectors, and say of which world."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from model.columns import ALONE, Columns
from model.learner import Lesson


class Baseline(ABC):
    """A learner that keeps each domain's final vectors."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson

    @property
    def epochs(self) -> int:
        """As set."""
        return self.lesson.settings.epochs

    @property
    def columns(self) -> Columns:
        """All of them: a baseline is learned by one process."""
        return ALONE

    @abstractmethod
    def vectors(self) -> Iterator[Tensor]:
        """Each domain's final vectors (nodes, width), in the world's order; a score is the dot product of two."""

    def kept(self) -> dict[str, Tensor]:
        """Final vectors as `vectors/<domain>`."""
        domains = self.lesson.network.world.domains
        return {f"vectors/{domain.name}": own for domain, own in zip(domains, self.vectors(), strict=True)}

    def description(self) -> dict[str, Any]:
        """The model's name and the sizes of the world it was trained on."""
        world = self.lesson.network.world
        shape = {"nodes": world.nodes, "domains": {domain.name: domain.nodes for domain in world.domains}}
        return {"model": self.lesson.settings.model, "shape": shape}
