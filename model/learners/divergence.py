"""Divergence: a loss or a table that is no finite number any more, and what is left of the training then."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


class DivergedError(ValueError, ArithmeticError):
    """A training met a number that is not finite; the state of the last finished epoch is kept."""


@dataclass(frozen=True)
class Course:
    """What an error says about the training it ends.

    Attributes:
        seed: the training's seed.
        epoch: the epoch in progress.
        kept: where the state of the epoch before is.
        best: the epoch that validated best so far; 0 before the first.
        learning_rate: the step size that did it.
    """

    seed: int
    epoch: int
    kept: str
    best: int
    learning_rate: float

    def check_loss(self, loss: float, domain: str, what: str) -> None:
        """Go on only from a finite loss.

        Args:
            loss: of one step.
            domain: whose step it is.
            what: which step of the epoch: `batch 3`.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise DivergedError(self._told(f", domain {domain}, {what}: loss is {loss}"))

    def check_tables(self, wrong: Iterable[Mapping[str, float]]) -> None:
        """Go on only from finite tables and maps.

        Args:
            wrong: `not_finite` of every process.

        Raises:
            DivergedError: there is one.
        """
        for name, found in itertools.chain.from_iterable(each.items() for each in wrong):
            raise DivergedError(self._told(f": {name} holds {found}"))

    def _told(self, found: str) -> str:
        finished = self.epoch - 1
        left = f"epoch {finished} is kept in {self.kept}, the best was {self.best}" if finished else "no epoch is kept"
        shorter = f", or train.epochs to {finished} to end before it" if finished else ""
        return (
            f"train: seed {self.seed}, epoch {self.epoch}{found}, must be finite; {left}; "
            f"lower train.learning_rate (it is {self.learning_rate}) to train anew{shorter}"
        )


def check_kept(tensors: Mapping[str, Tensor], place: str) -> None:
    """Go on only from a state whose tables are finite.

    Args:
        tensors: the state's tables and maps.
        place: which epoch's they are, and where.

    Raises:
        DivergedError: a tensor holds NaN or infinity.
    """
    for name, found in not_finite(tensors).items():
        raise DivergedError(f"train: {name} of {place} holds {found}, must be finite; delete that folder to train anew")


def not_finite(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Names of the tensors that hold NaN or infinity, each with one such value; one reading pass, no copy."""
    found = {}
    for name, tensor in tensors.items():
        extremes = torch.stack(torch.aminmax(tensor)).tolist() if tensor.numel() else []
        wrong = [value for value in extremes if not math.isfinite(value)]
        if wrong:
            found[name] = wrong[0]
    return found
