"""Divergence: losses and tables that are not finite any more end a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class DivergedError(ValueError, ArithmeticError):
    """A training met a number that is not finite."""


@dataclass(frozen=True)
class EpochGuard:
    """Checks losses and tables of one epoch and raises DivergedError with seed, epoch and remedy.

    Attributes:
        seed: the training's seed.
        epoch: the epoch in progress.
        best_epoch: the epoch that validated best so far; 0 before the first.
        learning_rate: the optimiser's.
    """

    seed: int
    epoch: int
    best_epoch: int
    learning_rate: float

    def check_loss(self, loss: float, domain: str, step: str) -> None:
        """Check that a loss is finite.

        Args:
            loss: of one step.
            domain: that the step trains.
            step: name of the step within the epoch: `batch 3`.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise self._error(f", domain {domain}, {step}: loss is {loss}")

    def check_tables(self, by_process: Iterable[Mapping[str, float]]) -> None:
        """Check that all tables and maps are finite.

        Args:
            by_process: `non_finite_values` of every process.

        Raises:
            DivergedError: there is such a value.
        """
        if first := next((item for values in by_process for item in values.items()), None):
            raise self._error(f": {first[0]} holds {first[1]}")

    def _error(self, violation: str) -> DivergedError:
        finished = self.epoch - 1
        best = f"; the best epoch was {self.best_epoch}" if finished else ""
        shorter = f", or train.epochs to {finished} to end before it" if finished else ""
        return DivergedError(
            f"train: seed {self.seed}, epoch {self.epoch}{violation}, must be finite{best}; "
            f"lower train.learning_rate (it is {self.learning_rate}) to train anew{shorter}"
        )


def check_restored(tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that the tables of a restored state are finite.

    Args:
        tensors: the state's tables and maps.
        source: epoch and folder of the state, for the message.

    Raises:
        DivergedError: a tensor holds NaN or infinity.
    """
    if values := non_finite_values(tensors):
        name, value = next(iter(values.items()))
        raise DivergedError(
            f"train: {name} of {source} holds {value}, must be finite; delete that folder to train anew"
        )


def non_finite_values(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Names of the tensors that hold NaN or infinity, each with one such value; one reading pass, no copy."""
    values: dict[str, float] = {}
    for name, tensor in tensors.items():
        extremes = torch.stack(torch.aminmax(tensor)).tolist() if tensor.numel() else []
        for value in extremes:
            if not math.isfinite(value):
                values.setdefault(name, value)
    return values
