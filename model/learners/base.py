"""Learners: what training's loop drives, EDDA and baselines alike, and what a learner is given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from data_contracts.train_settings import TrainSettings
from model.compute.column_parallel import ALONE, Columns
from model.data.batches import Batch, Batching, Positives, mixed_batches
from model.edda.alignment import AlignedPairs
from model.edda.final_vectors import Network
from model.evaluation.validation import DomainValidation
from model.learners.divergence import Course
from model.learners.warm_start import WarmStart

Measure = tuple[int, str, str, float]
"""Epoch, domain, metric, value."""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Lesson:
    """What training needs beside the model: by domain what to learn from and what to validate on, pairs, the start."""

    settings: TrainSettings
    seed: int
    network: Network
    positives: tuple[Positives, ...]
    validation: tuple[DomainValidation, ...]
    recall_at: tuple[int, ...]
    pairs: tuple[AlignedPairs, ...]
    device: torch.device
    columns: Columns
    warm: WarmStart | None = None

    @property
    def shares_without_intra(self) -> dict[str, float]:
        """Domains without an intra table because they share too much, and the share of their interactions."""
        if self.settings.model != "edda" or self.settings.tables != "both":
            return {}
        world = self.network.world
        named = zip(world.domains, world.shared, strict=True)
        return {domain.name: shared for domain, shared in named if not self.settings.has_intra(shared)}

    def batches(self, epoch: int) -> Iterator[tuple[int, int, Batch]]:
        """An epoch of all domains: (position of the domain, which of its batches, from 0, the batch)."""
        return mixed_batches(self.positives, self.seed, epoch, Batching.of(self.settings, self.positives))


class Learner(Protocol):
    """A model in training: learns epoch by epoch, can be scored after each, saved and continued to the same bits."""

    @property
    def epochs(self) -> int:
        """Most epochs that it makes sense to learn."""

    @property
    def columns(self) -> Columns:
        """Of every table, those of this process."""

    def learn(self, course: Course) -> list[Measure]:
        """Learn the course's epoch, counted from 1; its losses and whatever else its history should hold.

        Raises:
            DivergedError: a loss is no finite number.
        """

    def vectors(self) -> Iterator[Tensor]:
        """Each domain's final vectors (nodes, width), in the world's order; a score is the dot product of two."""

    def kept(self) -> Mapping[str, Tensor]:
        """What a checkpoint keeps of it; may share memory with it."""

    def description(self) -> Mapping[str, Any]:
        """What is needed beside the kept tensors to use them, as JSON."""

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step of an optimiser along a loss; the loss before it."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def mean_losses(losses: Mapping[int, list[tuple[float, int]]], lesson: Lesson, epoch: int) -> list[Measure]:
    """Each domain's mean loss over the triples of its steps, given (mean loss, triples) of each."""
    means = {n: math.fsum(loss * size for loss, size in of) / sum(size for _, size in of) for n, of in losses.items()}
    return [(epoch, lesson.network.world.domains[number].name, "loss", means[number]) for number in sorted(means)]


def ahead(steps: Iterator[Prepared]) -> Iterator[Prepared]:
    """The same steps, each prepared in another thread while the one before is learned from."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, steps, None)
        while (step := coming.result()) is not None:
            coming = pool.submit(next, steps, None)
            yield step


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
