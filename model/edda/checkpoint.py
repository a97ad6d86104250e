"""Checkpoints: the artifact that training leaves behind, and what it is good for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from safetensors.torch import load_file
from torch import Tensor

from data_contracts.contracts import CHECKPOINT
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import tensors_header
from model.compute.allocator import MEMORY, Room
from model.compute.column_parallel import Columns
from model.compute.device import device_of
from model.data.dataset import World
from model.edda.final_vectors import Vectors, final_vectors, network_of
from model.edda.model import MODEL, Edda, Shape
from model.edda.propagation import Backbone
from model.sparse.matrix import choose_engine

DESCRIPTION = "model.json"


def write_checkpoint(
    draft: Draft,
    tensors: Mapping[str, Tensor],
    columns: Columns,
    description: Mapping[str, Any],
    history: Iterable[tuple[Any, ...]],
) -> None:
    """Write what training leaves behind.

    Args:
        draft: of the checkpoint.
        tensors: of the best epoch, by name; float32 [rows, columns of this process].
        columns: of this process.
        description: what is needed to use the tensors, as JSON.
        history: rows of the contract: measures of all epochs.
    """
    with (draft.folder / MODEL).open("wb") as stream:
        write_tensors(stream, tensors, columns)
    (draft.folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False))
    schema = CHECKPOINT.file_schema
    by_column = list(zip(*sorted(history), strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, type_) for values, type_ in zip(by_column, schema.types, strict=True)]
    draft.write(pa.table(arrays, schema=schema))


def write_tensors(stream: BinaryIO | None, best: Mapping[str, Tensor], columns: Columns) -> None:
    """Write tensors as safetensors, row by row as they come from the processes that hold their columns.

    Args:
        stream: where the first process writes; None in the others, which give their columns.
        best: float32 (rows, own columns), by name.
        columns: of this process.
    """
    widths = {name: sum(columns.every(tensor.shape[1])) for name, tensor in best.items()}
    header = tensors_header(
        {
            name: ("F32", (rows, widths[name]), 4 * rows * widths[name])
            for name, rows in ((name, tensor.shape[0]) for name, tensor in best.items())
        }
    )
    if stream is not None:
        stream.write(header)
    for name, tensor in best.items():
        for block in columns.blocks(tensor, widths[name]):
            if stream is not None:
                stream.write(block.contiguous().numpy().data)


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

    @property
    def columns(self) -> dict[str, slice]:
        """Columns of the final vectors by the tables that they come from; all are `vectors` where EDDA left none."""
        return {"vectors": slice(None)} if isinstance(self.model, Vectors) else self.model.shape.columns


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
    return Checkpoint(
        Edda.of(Shape(**trained), tensors), Backbone(**description["backbone"]), seed, description["epoch"]
    )


def checkpoint_vectors(checkpoint: Checkpoint, world: World, room: Room = MEMORY) -> Iterator[Tensor]:
    """Each domain's final vectors (nodes, width), in the world's order, on the best device there is.

    Args:
        checkpoint: a model of the world.
        world: the domains.
        room: for what is made on the way and in the end, where the device is a CPU.
    """
    device = device_of("auto")
    if isinstance(checkpoint.model, Vectors):
        return (vectors.to(device) for vectors in checkpoint.model.by_domain)
    _, multiply = choose_engine("auto", device)
    assert checkpoint.backbone is not None
    network = network_of(world, checkpoint.backbone, multiply, room, checkpoint.model.shape.private)
    return final_vectors(checkpoint.model.to(device), network, room)


def checkpoint_roles(parents: Mapping[str, Artifact]) -> list[str]:
    """Roles of the checkpoints among a stage's parents, by their seed's number.

    Raises:
        KeyError: there is none.
    """
    roles = [role for role in parents if role.split("-", 1)[0] == CHECKPOINT.name]
    if not roles:
        raise KeyError(f"parents are {', '.join(parents)}; there must be a checkpoint among them")
    return sorted(roles, key=lambda role: int(role.partition("-")[2] or 0))
