"""Checkpoints: the state that survives a kill while training, and the artifact that training leaves behind."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT
from data_contracts.store import Draft
from model.divergence import check_kept
from model.edda import Edda, Shape
from model.propagate import Backbone
from model.world import World

STATE = "state.pt"
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
    """Replace the state of the epoch before, so that a kill at any moment leaves one of the two, whole."""
    state = {
        **{name: value for name, value in vars(training).items() if name != "best"},
        "best": training.best if training.best_epoch != training.epoch else {},
        "tensors": model.tensors(),
        "optimiser": optimiser.state_dict(),
    }
    temporary = folder / f".{STATE}.new"
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / STATE)


def resume(folder: Path, model: Edda, optimiser: torch.optim.Optimizer) -> Training:
    """Continue where a killed training stopped: fills model and optimiser; a fresh Training where nothing was kept.

    Raises:
        DivergedError: a kept table holds NaN or infinity.
    """
    if not (folder / STATE).exists():
        return Training()
    state = torch.load(folder / STATE, weights_only=True)
    check_kept(state["tensors"], f"epoch {state['epoch']} in {folder / STATE}")
    model.load(state.pop("tensors"))
    optimiser.load_state_dict(state.pop("optimiser"))
    training = Training(**state)
    if training.best_epoch == training.epoch:
        training.best = {name: tensor.to("cpu", copy=True) for name, tensor in model.tensors().items()}
    return training


def write_checkpoint(draft: Draft, training: Training, shape: Shape, backbone: Backbone, seed: int) -> None:
    """Write the best epoch's tensors, what is needed to use them, and the history of all epochs."""
    save_file({name: tensor.contiguous() for name, tensor in training.best.items()}, draft.folder / MODEL)
    description = {
        "seed": seed,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        "shape": asdict(shape),
        "backbone": asdict(backbone),
    }
    (draft.folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False))
    columns = zip(*sorted(training.history), strict=True)
    schema = CHECKPOINT.file_schema
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)]
    draft.write(pa.table(arrays, schema=schema))


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
