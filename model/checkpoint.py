"""Checkpoints: the state that survives a kill while training, and the artifact that training leaves behind."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT
from data_contracts.store import Draft
from model.columns import Columns
from model.divergence import check_kept
from model.edda import Edda, Shape
from model.propagate import Backbone
from model.world import World

MODEL, DESCRIPTION = "model.safetensors", "model.json"

Measure = tuple[int, str, str, float]
"""Epoch, domain, metric, value."""


@dataclass
class Training:
    """How far a training is.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch that validated best; 0 before the first.
        best_score: its validation score; None where nothing can be validated.
        best: its tensors.
        history: every measure of every epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Measure] = field(default_factory=list)

    def judge(self, model: Edda, score: float | None) -> None:
        """Keep the model's tensors if its epoch scores better than every one before, or if nothing can be scored."""
        if score is None or self.best_score is None or score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self.best = {name: tensor.to("cpu", copy=True) for name, tensor in model.tensors().items()}

    def note(self) -> str:
        """The last epoch in words: `loss 0.213, validation AUC 0.8412 (best 0.8420 at 9)`; means over domains."""
        last = [measure[1:] for measure in self.history if measure[0] == self.epoch]
        losses = [value for _, metric, value in last if metric == "loss"]
        words = [f"loss {math.fsum(losses) / len(losses):.3g}"] if losses else []
        scores = [value for domain, metric, value in last if (domain, metric) == ("macro", "auc")]
        words += [f"validation AUC {score:.4f} (best {self.best_score:.4f} at {self.best_epoch})" for score in scores]
        return ", ".join(words) or "nothing to learn from"


def save_state(folder: Path, training: Training, model: Edda, optimiser: torch.optim.Optimizer) -> None:
    """Keep an epoch: a file of each process's columns. A kill at any moment leaves it or the epoch before, whole.

    The files of the epoch before are deleted when those of all processes are written.
    """
    columns = model.columns
    state = {
        **{name: value for name, value in vars(training).items() if name != "best"},
        "best": training.best if training.best_epoch != training.epoch else {},
        "tensors": model.tensors(),
        "optimiser": optimiser.state_dict(),
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


def resume(folder: Path, model: Edda, optimiser: torch.optim.Optimizer) -> Training:
    """Continue where a killed training stopped: fills model and optimiser; a fresh Training where nothing was kept.

    The training may have had another number of processes.

    Raises:
        DivergedError: a kept table holds NaN or infinity.
    """
    columns = model.columns
    epoch, ranks = columns.agreed(_last_whole(folder))
    if not epoch:
        return Training()
    if ranks == columns.ranks:
        state = torch.load(state_path(folder, epoch, columns.rank, ranks), "cpu", weights_only=True)
    else:
        paths = [state_path(folder, epoch, rank, ranks) for rank in range(ranks)]
        states = [torch.load(path, "cpu", weights_only=True, mmap=True) for path in paths]
        state = _cut_anew(states, list(_overlaps(model, ranks)))
    check_kept(state["tensors"], f"epoch {epoch} in {folder}")
    model.load(state.pop("tensors"))
    optimiser.load_state_dict(state.pop("optimiser"))
    training = Training(**state)
    if training.best_epoch == training.epoch:
        training.best = {name: tensor.to("cpu", copy=True) for name, tensor in model.tensors().items()}
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


def _overlaps(model: Edda, ranks: int) -> Iterator[slice]:
    """What of each earlier process's columns is this one's now."""
    width, own = model.shape.width, model.columns.own(model.shape.width)
    for part in Columns(0, ranks).parts(width):
        start, stop = max(own.start, part.start), min(own.stop, part.stop)
        yield slice(start - part.start, max(start, stop) - part.start)


def _cut_anew(states: Sequence[Any], overlaps: Sequence[slice]) -> Any:
    """One state out of those of other columns: tables and their moments are cut, all else is alike in each."""
    first = states[0]
    if isinstance(first, dict):
        return {name: _cut_anew([state[name] for state in states], overlaps) for name in first}
    if isinstance(first, Tensor) and first.dim() == 2:
        return torch.cat([state[:, cut] for state, cut in zip(states, overlaps, strict=True)], dim=1)
    return first


def write_checkpoint(draft: Draft, training: Training, model: Edda, backbone: Backbone, seed: int) -> None:
    """Write the best epoch's tensors, what is needed to use them, and the history of all epochs."""
    with (draft.folder / MODEL).open("wb") as stream:
        write_tensors(stream, training, model)
    description = {
        "seed": seed,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        "shape": asdict(model.shape),
        "backbone": asdict(backbone),
    }
    (draft.folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False))
    columns = zip(*sorted(training.history), strict=True)
    schema = CHECKPOINT.file_schema
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)]
    draft.write(pa.table(arrays, schema=schema))


def write_tensors(stream: BinaryIO | None, training: Training, model: Edda) -> None:
    """Write the best epoch's tensors as safetensors, row by row as they come from the processes that hold them.

    Args:
        stream: where the first process writes; None in the others, which give their columns.
        training: whose best epoch.
        model: its shape and columns.
    """
    width, place = model.shape.width, 0
    header = {}
    for name, tensor in training.best.items():
        size = tensor.shape[0] * width * tensor.element_size()
        header[name] = {"dtype": "F32", "shape": [tensor.shape[0], width], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if stream is not None:
        stream.write(len(text).to_bytes(8, "little") + text)
    for tensor in training.best.values():
        for block in model.columns.blocks(tensor, width):
            if stream is not None:
                stream.write(block.contiguous().numpy().data)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and how it came about.

    Attributes:
        model: its tables.
        backbone: the building block it was trained with.
        seed: the seed it was trained with.
        epoch: the epoch that validated best.
    """

    model: Edda
    backbone: Backbone
    seed: int
    epoch: int


def load_checkpoint(artifact: Artifact, world: World) -> Checkpoint:
    """Read a checkpoint artifact.

    Raises:
        ValueError: it was trained on another world than the given one.
    """
    description: Mapping[str, Any] = json.loads((artifact.path / DESCRIPTION).read_text())
    shape = Shape(**description["shape"])
    found = {domain.name: domain.nodes for domain in world.domains}
    if (dict(shape.domains), shape.nodes) != (found, world.nodes):
        raise ValueError(
            f"checkpoint {artifact.key}: trained on {dict(shape.domains)}, {shape.nodes} nodes in all; "
            f"nodes has {found}, {world.nodes} in all; train again on these nodes"
        )
    model = Edda(shape, description["seed"])
    model.load(load_file(artifact.path / MODEL))
    return Checkpoint(model, Backbone(**description["backbone"]), description["seed"], description["epoch"])


def checkpoint_roles(parents: Mapping[str, Artifact]) -> list[str]:
    """Roles of the checkpoints among a stage's parents, by their seed's number.

    Raises:
        KeyError: there is none.
    """
    roles = [role for role in parents if role.split("-", 1)[0] == CHECKPOINT.name]
    if not roles:
        raise KeyError(f"parents are {', '.join(parents)}; there must be a checkpoint among them")
    return sorted(roles, key=lambda role: int(role.partition("-")[2] or 0))
