"""The state of a training, kept in files from time to time so that a killed training can resume."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from data_contracts.contracts import MACRO
from data_contracts.store.digests import file_digest
from data_contracts.store.files import damaged_file_error, write_atomically
from model.compute.column_parallel import ColumnParallel
from model.learners.base import Learner, Measure
from model.learners.divergence import check_restored

log = logging.getLogger(__name__)


@dataclass
class Training:
    """The progress of a training. The names of the fields are those in the files of its states.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch that validated best; 0 before the first.
        best_score: its validation score; None if nothing can be validated.
        best: its tensors, as a checkpoint keeps them.
        history: every measure of every epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Measure] = field(default_factory=list)

    def keep_if_best(self, learner: Learner, score: float | None) -> None:
        """Copy the learner's tensors if its epoch scores better than every one before, or if nothing can be scored."""
        if score is None or self.best_score is None or score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self.best = _copy_to_cpu(learner.tensors())

    def summary(self) -> str:
        """The last epoch as text: `loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)`; means over domains.

        In place of AUC the full NDCG@20 if that selects epochs.
        """
        last = [measure[1:] for measure in self.history if measure[0] == self.epoch]
        losses = [value for _, metric, value in last if metric == "loss"]
        words = [f"loss {math.fsum(losses) / len(losses):.3g}"] if losses else []
        metric = "NDCG@20" if any(metric == "full_ndcg@20" for _, metric, _ in last) else "AUC"
        words += [
            f"validation {metric} {score:.4f} (best {self.best_score:.4f} at {self.best_epoch})"
            for domain, name, score in last
            if (domain, name) == (MACRO, "score")
        ]
        return ", ".join(words) or "nothing to learn from"


_SHARE_OF_TIME = 0.02
"""Most of a training's time that saving may take."""


class States:
    """Saves states from time to time.

    Attributes:
        bytes: written by this process.
        seconds: that writing took.
    """

    def __init__(
        self, folder: Path, learner: Learner, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bytes, self.seconds = 0, 0.0
        self._folder, self._learner, self._interval, self._clock = folder, learner, interval, clock
        self._saved_at, self._pause = clock(), interval

    def keep(self, training: Training) -> None:
        """Save the state of the epoch that has ended, if the last one is old enough.

        That is after `interval` seconds, and later where writing is slow, so that it takes 2 % of the time at most; all
        processes go by the clock of the first. An interval of 0 saves every epoch.
        """
        started = self._clock()
        is_due = self._interval == 0 or started - self._saved_at >= self._pause
        if self._learner.processes.broadcast(is_due):
            self.bytes += save_state(self._folder, training, self._learner)
            self._saved_at = self._clock()
            taken = self._saved_at - started
            self.seconds += taken
            self._pause = max(self._interval, taken / _SHARE_OF_TIME)


def save_state(folder: Path, training: Training, learner: Learner) -> int:
    """Save an epoch: one file for each process's columns. A kill at any time leaves this epoch or an earlier one.

    The files of earlier epochs are deleted when those of all processes are written.

    Returns:
        Bytes that this process has written.
    """
    processes = learner.processes
    state = {
        **{name: value for name, value in vars(training).items() if name != "best"},
        "best": training.best if training.best_epoch != training.epoch else {},
        "learner": learner.state_dict(),
    }
    temporary = folder / f".state-{processes.rank}.new"
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    path = state_path(folder, training.epoch, processes.rank, processes.world_size)
    write_atomically({_digest_path(path): file_digest(temporary).encode()})
    size = temporary.stat().st_size
    temporary.replace(path)
    processes.barrier()
    if processes.rank == 0:
        for epoch, rank, world_size in _list_states(folder):
            if epoch < training.epoch:
                _remove(state_path(folder, epoch, rank, world_size))
    return size


def resume(folder: Path, learner: Learner) -> Training:
    """Load the last whole state into the learner and return its progress; a fresh Training if there is no state.

    States that are not what was written, by the digests beside them, are deleted.

    The training may have had another number of processes.

    Raises:
        DivergedError: the state holds NaN or infinity.
    """
    processes = learner.processes
    if processes.rank == 0:
        _remove_damaged_states(folder)
    epoch, world_size = processes.broadcast(_last_whole_epoch(folder))
    if not epoch:
        return Training()
    if world_size == processes.world_size:
        state = _load_state(state_path(folder, epoch, processes.rank, world_size))
    else:
        paths = [state_path(folder, epoch, rank, world_size) for rank in range(world_size)]
        states = [_load_state(path, mmap=True) for path in paths]
        state = _repartition(states, processes)
    learner.load_state_dict(state.pop("learner"))
    check_restored(learner.tensors(), f"epoch {epoch} in {folder}")
    training = Training(**state)
    if training.best_epoch == training.epoch:
        training.best = _copy_to_cpu(learner.tensors())
    return training


def _load_state(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """A state as it was saved.

    Raises:
        DamagedFileError: it is what was written, by its digest, and still no state of this version.
    """
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, ValueError, LookupError, EOFError, AttributeError, UnpicklingError) as error:
        raise damaged_file_error(path, path, error) from error
    names = {"learner", *(field.name for field in fields(Training))}
    if not isinstance(state, dict) or state.keys() != names:
        raise damaged_file_error(path, path, f"it must hold {', '.join(sorted(names))}")
    return state


def state_path(folder: Path, epoch: int, rank: int = 0, world_size: int = 1) -> Path:
    """The file of a process's columns after an epoch."""
    return folder / f"state-{epoch}-{rank}-of-{world_size}.pt"


def _list_states(folder: Path) -> list[tuple[int, int, int]]:
    """Epoch, rank and number of processes of each file."""
    matches = (re.fullmatch(r"state-(\d+)-(\d+)-of-(\d+)\.pt", path.name) for path in folder.iterdir())
    return sorted((int(match[1]), int(match[2]), int(match[3])) for match in matches if match)


def _remove_damaged_states(folder: Path) -> None:
    """Delete the states of an epoch whose files are not all what was written, or have no digests."""
    with ThreadPoolExecutor() as pool:
        paths = [state_path(folder, *state) for state in _list_states(folder)]
        for path, is_whole in zip(paths, pool.map(_is_whole, paths), strict=True):
            if not is_whole:
                log.warning("%s, left by an earlier attempt, is damaged; training goes on without it", path)
                _remove(path)


def _is_whole(path: Path) -> bool:
    try:
        return _digest_path(path).read_text() == file_digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _remove(path: Path) -> None:
    path.unlink()
    _digest_path(path).unlink(missing_ok=True)


def _last_whole_epoch(folder: Path) -> tuple[int, int]:
    """The last epoch with the files of all processes, and the number of these; (0, 0) if there is none."""
    counts = Counter((epoch, world_size) for epoch, _, world_size in _list_states(folder))
    whole = [(epoch, world_size) for (epoch, world_size), count in counts.items() if count == world_size]
    return max(whole, default=(0, 0))


def _repartition(states: Sequence[Any], processes: ColumnParallel) -> Any:
    """This process's state from those of another number of processes.

    Matrices, tables and their moments, are cut into this process's columns; everything else is the same in all states.
    """
    first = states[0]
    if isinstance(first, dict):
        return {name: _repartition([state[name] for state in states], processes) for name in first}
    if isinstance(first, Tensor) and first.dim() == 2:
        bounds = list(accumulate((state.shape[1] for state in states), initial=0))
        own = processes.own_columns(bounds[-1])
        cuts = [slice(max(own.start - start, 0), max(own.stop - start, 0)) for start in bounds[:-1]]
        return torch.cat([state[:, cut] for state, cut in zip(states, cuts, strict=True)], dim=1)
    return first


def _copy_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
