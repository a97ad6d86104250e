"""Checkpoints: the state that survives a kill while training, and the artifact that training leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_contracts.artifact import Artifact
from data_contracts.contracts import CHECKPOINT
from data_contracts.store import Draft
from model.edda import Edda, Shape
from model.learner import Learner, Measure
from model.machine import device_of
from model.propagate import Backbone
from model.spmm import choose_engine
from model.vectors import Vectors, final_vectors, network_of
from model.world import World

STATE = "state.pt"
MODEL, DESCRIPTION = "model.safetensors", "model.json"


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


def save_state(folder: Path, training: Training, learner: Learner) -> None:
    """Replace the state of the epoch before, so that a kill at any moment leaves one of the two, whole."""
    state = {
        **{name: value for name, value in vars(training).items() if name != "best"},
        "best": training.best if training.best_epoch != training.epoch else {},
        "learner": learner.state(),
    }
    temporary = folder / f".{STATE}.new"
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / STATE)


def resume(folder: Path, learner: Learner) -> Training:
    """Continue where a killed training stopped: restores the learner; a fresh Training where nothing was kept."""
    if not (folder / STATE).exists():
        return Training()
    state = torch.load(folder / STATE, weights_only=True)
    learner.restore(state.pop("learner"))
    training = Training(**state)
    if training.best_epoch == training.epoch:
        training.best = _copies(learner)
    return training


def write_checkpoint(draft: Draft, training: Training, learner: Learner, seed: int) -> None:
    """Write the best epoch's tensors, what is needed to use them, and the history of all epochs."""
    save_file({name: tensor.contiguous() for name, tensor in training.best.items()}, draft.folder / MODEL)
    description = {
        "seed": seed,
        "epoch": training.best_epoch,
        "epochs": training.epoch,
        "score": training.best_score,
        **learner.description(),
    }
    (draft.folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False))
    schema = CHECKPOINT.file_schema
    columns = list(zip(*sorted(training.history), strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)]
    draft.write(pa.table(arrays, schema=schema))


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and how it came about.

    Attributes:
        model: its tables, or the final vectors that a model other than EDDA left.
        backbone: the building block of the tables; None where the vectors are final.
        seed: the seed it was trained with.
        epoch: the epoch that validated best.
    """

    model: Edda | Vectors
    backbone: Backbone | None
    seed: int
    epoch: int


def load_checkpoint(artifact: Artifact, world: World) -> Checkpoint:
    """Read a checkpoint artifact.

    Raises:
        ValueError: it was trained on another world than the given one.
    """
    description: Mapping[str, Any] = json.loads((artifact.path / DESCRIPTION).read_text())
    trained, seed = description["shape"], description["seed"]
    found = {domain.name: domain.nodes for domain in world.domains}
    if (trained["domains"], trained["nodes"]) != (found, world.nodes):
        raise ValueError(
            f"checkpoint {artifact.key}: trained on {trained['domains']}, {trained['nodes']} nodes in all; "
            f"nodes has {found}, {world.nodes} in all; train again on these nodes"
        )
    tensors = load_file(artifact.path / MODEL)
    if description["model"] != "edda":
        vectors = Vectors(tuple(tensors[f"vectors/{name}"] for name in found))
        return Checkpoint(vectors, None, seed, description["epoch"])
    model = Edda(Shape(**trained), seed)
    model.load(tensors)
    return Checkpoint(model, Backbone(**description["backbone"]), seed, description["epoch"])


def checkpoint_vectors(checkpoint: Checkpoint, world: World) -> Iterator[Tensor]:
    """Each domain's final vectors (nodes, width), in the world's order, on the best device there is."""
    device = device_of("auto")
    if isinstance(checkpoint.model, Vectors):
        return (vectors.to(device) for vectors in checkpoint.model.by_domain)
    _, multiply = choose_engine("auto", device)
    assert checkpoint.backbone is not None
    return final_vectors(checkpoint.model.to(device), network_of(world, checkpoint.backbone, multiply))


def checkpoint_roles(parents: Mapping[str, Artifact]) -> list[str]:
    """Roles of the checkpoints among a stage's parents, by their seed's number.

    Raises:
        KeyError: there is none.
    """
    roles = [role for role in parents if role.split("-", 1)[0] == CHECKPOINT.name]
    if not roles:
        raise KeyError(f"parents are {', '.join(parents)}; there must be a checkpoint among them")
    return sorted(roles, key=lambda role: int(role.partition("-")[2] or 0))


def _copies(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in learner.kept().items()}
