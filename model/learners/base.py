"""Learners: models that the training loop drives, EDDA and baselines alike, and the data they learn from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from data_contracts.settings.train import TrainSettings
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.data.batches import Batch, Batching, Positives, mixed_batches
from model.edda.alignment import AlignmentBatch
from model.edda.final_vectors import PropagationGraphs
from model.edda.objectives import Objective, build_objective
from model.evaluation.validation import DomainValidation
from model.learners.divergence import EpochGuard
from model.learners.warm_start import WarmStart

Measure = tuple[int, str, str, float]
"""Epoch, domain, metric, value."""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class TrainingData:
    """Inputs of a training: positives and held-out rows by domain, aligned pairs, and the tables to start from."""

    settings: TrainSettings
    seed: int
    graphs: PropagationGraphs
    positives: tuple[Positives, ...]
    validation: tuple[DomainValidation, ...]
    recall_at: tuple[int, ...]
    alignment: tuple[AlignmentBatch, ...]
    device: torch.device
    processes: ColumnParallel
    warm_start: WarmStart | None = None

    @cached_property
    def domain_names(self) -> list[str]:
        """The domains' names, in their order."""
        return [domain.name for domain in self.graphs.dataset.domains]

    @property
    def shares_without_intra(self) -> dict[str, float]:
        """Domains that share too much to have an intra table, and the share of their shared interactions."""
        if self.settings.model != "edda" or self.settings.tables != "both":
            return {}
        shares = zip(self.domain_names, self.graphs.dataset.shared_interaction_shares, strict=True)
        return {name: share for name, share in shares if not self.settings.has_intra(share)}

    @property
    def objective(self) -> Objective:
        """What scores are trained by."""
        return build_objective(self.settings)

    def batches(self, epoch: int) -> Iterator[tuple[int, int, Batch]]:
        """An epoch of all domains: (index of the domain, number of the batch in its domain from 0, the batch)."""
        return mixed_batches(self.positives, self.seed, epoch, Batching.from_settings(self.settings, self.positives))


class Learner(Protocol):
    """A model in training: trained epoch by epoch, scored after each, saved and resumed to the same bits."""

    @property
    def epochs(self) -> int:
        """The number of epochs to train, at most."""

    @property
    def processes(self) -> ColumnParallel:
        """The processes that hold the columns of its tables."""

    def train_epoch(self, guard: EpochGuard) -> list[Measure]:
        """Train the guard's epoch, counted from 1; returns the rows of its history: losses and others.

        Raises:
            DivergedError: a loss is not finite.
        """

    def vectors(self) -> Iterator[Tensor]:
        """Each domain's final vectors (nodes, width), in the order of the domains; a score is a dot product of two."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors that a checkpoint keeps; may share memory with the learner."""

    def metadata(self) -> Mapping[str, Any]:
        """What is needed to use the tensors of a checkpoint, as JSON."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state."""


def optimizer_step(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step of an optimiser along a loss; returns the loss before it."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def mean_losses(losses: Mapping[int, list[tuple[float, int]]], data: TrainingData, epoch: int) -> list[Measure]:
    """Each domain's mean loss over triples, given (mean loss, number of triples) of its steps."""
    measures = []
    for index, steps in sorted(losses.items()):
        mean = math.fsum(loss * size for loss, size in steps) / sum(size for _, size in steps)
        measures.append((epoch, data.domain_names[index], "loss", mean))
    return measures


def prefetch(steps: Iterator[Prepared]) -> Iterator[Prepared]:
    """The same steps, each prepared in another thread while the step before is trained."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, steps, None)
        while (step := upcoming.result()) is not None:
            upcoming = pool.submit(next, steps, None)
            yield step


class Baseline(ABC):
    """A learner that keeps each domain's final vectors."""

    def __init__(self, data: TrainingData) -> None:
        self.data = data

    @property
    def epochs(self) -> int:
        """The settings' number of epochs."""
        return self.data.settings.epochs

    @property
    def processes(self) -> ColumnParallel:
        """A baseline is trained by a single process."""
        return SINGLE_PROCESS

    @abstractmethod
    def vectors(self) -> Iterator[Tensor]:
        """Each domain's final vectors (nodes, width), in the order of the domains; a score is a dot product of two."""

    def tensors(self) -> dict[str, Tensor]:
        """Final vectors as `vectors/<domain>`."""
        by_domain = zip(self.data.domain_names, self.vectors(), strict=True)
        return {f"vectors/{name}": vectors for name, vectors in by_domain}

    def metadata(self) -> dict[str, Any]:
        """The model's name and the numbers of nodes it was trained on."""
        dataset = self.data.graphs.dataset
        shape = {"nodes": dataset.nodes, "domains": {domain.name: domain.nodes for domain in dataset.domains}}
        return {"model": self.data.settings.model, "shape": shape}
