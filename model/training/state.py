"""The state of a training after an epoch, which survives a kill."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_contracts.contracts import MACRO
from model.compute.column_parallel import Columns
from model.learners.base import Learner, Measure
from model.learners.divergence import check_kept


@dataclass
class Training:
    """How far a training is.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch that validated best; 0 before the first.
        best_score: its validation score; None where nothing can be validated.
        best: what is kept of it.
        history: every measure of every epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Measure] = field(default_factory=list)

    def judge(self, learner: Learner, score: float | None) -> None:
        """Keep the learner if its epoch scores better than every one before, or if nothing can be scored."""
        if score is None or self.best_score is None or score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self.best = _copies(learner)

    def note(self) -> str:
        """The last epoch in words: `loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)`; means over domains.

        In place of AUC the full NDCG@20 where that selects epochs.
        """
        last = [measure[1:] for measure in self.history if measure[0] == self.epoch]
        losses = [value for _, metric, value in last if metric == "loss"]
        words = [f"loss {math.fsum(losses) / len(losses):.3g}"] if losses else []
        scores = [value for domain, metric, value in last if (domain, metric) == (MACRO, "score")]
        named = "NDCG@20" if any(metric == "full_ndcg@20" for _, metric, _ in last) else "AUC"
        words += [f"validation {named} {score:.4f}{self._best()}" for score in scores]
        return ", ".join(words) or "nothing to learn from"

    def _best(self) -> str:
        return f" (best {self.best_score:.4f} at {self.best_epoch})"


def save_state(folder: Path, training: Training, learner: Learner) -> None:
    """Keep an epoch: a file of each process's columns. A kill at any moment leaves it or the epoch before, whole.

    The files of the epoch before are deleted when those of all processes are written.
    """
    columns = learner.columns
    state = {
        **{name: value for name, value in vars(training).items() if name != "best"},
        "best": training.best if training.best_epoch != training.epoch else {},
        "learner": learner.state(),
    }
    temporary = folder / f".state-{columns.rank}.new"
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(state_path(folder, training.epoch, columns.rank, columns.ranks))
    columns.wait()
    if columns.rank == 0:
        for epoch, rank, ranks in _kept(folder):
            if epoch < training.epoch:
                state_path(folder, epoch, rank, ranks).unlink()


def resume(folder: Path, learner: Learner) -> Training:
    """Continue where a killed training stopped: restores the learner; a fresh Training where nothing was kept.

    The training may have had another number of processes.

    Raises:
        DivergedError: what was kept holds NaN or infinity.
    """
    columns = learner.columns
    epoch, ranks = columns.agreed(_last_whole(folder))
    if not epoch:
        return Training()
    if ranks == columns.ranks:
        state = torch.load(state_path(folder, epoch, columns.rank, ranks), "cpu", weights_only=True)
    else:
        paths = [state_path(folder, epoch, rank, ranks) for rank in range(ranks)]
        state = _cut_anew([torch.load(path, "cpu", weights_only=True, mmap=True) for path in paths], columns)
    learner.restore(state.pop("learner"))
    check_kept(learner.kept(), f"epoch {epoch} in {folder}")
    training = Training(**state)
    if training.best_epoch == training.epoch:
        training.best = _copies(learner)
    return training


def state_path(folder: Path, epoch: int, rank: int = 0, ranks: int = 1) -> Path:
    """Where a process keeps its columns after an epoch."""
    return folder / f"state-{epoch}-{rank}-of-{ranks}.pt"


def _kept(folder: Path) -> list[tuple[int, int, int]]:
    """Epoch, rank and ranks of each file there is."""
    found = (re.fullmatch(r"state-(\d+)-(\d+)-of-(\d+)\.pt", path.name) for path in folder.iterdir())
    return sorted((int(match[1]), int(match[2]), int(match[3])) for match in found if match)


def _last_whole(folder: Path) -> tuple[int, int]:
    """The last epoch that all processes have kept, and how many they were; 0 where there is none."""
    files = Counter((epoch, ranks) for epoch, _, ranks in _kept(folder))
    return max((of for of, count in files.items() if count == of[1]), default=(0, 0))


def _cut_anew(states: Sequence[Any], columns: Columns) -> Any:
    """One state out of those of other columns: tables and their moments are cut, all else is alike in each."""
    first = states[0]
    if isinstance(first, dict):
        return {name: _cut_anew([state[name] for state in states], columns) for name in first}
    if isinstance(first, Tensor) and first.dim() == 2:
        bounds = list(accumulate((state.shape[1] for state in states), initial=0))
        own = columns.own(bounds[-1])
        cuts = [(max(own.start - start, 0), max(own.stop - start, 0)) for start in bounds[:-1]]
        return torch.cat([state[:, slice(*cut)] for state, cut in zip(states, cuts, strict=True)], dim=1)
    return first


def _copies(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in learner.kept().items()}
