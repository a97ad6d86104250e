"""Checkpoints: the artifact of a training, written and loaded."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NotRequired

import pyarrow as pa
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import TypedDict

from data_contracts.contracts import CHECKPOINT
from data_contracts.roles import Role
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import tensors_header
from model.compute.allocator import IN_MEMORY, Allocator
from model.compute.column_parallel import ColumnParallel
from model.compute.device import choose_device
from model.compute.mapped_tensors import check_tensors
from model.data.dataset import MultiDomainData
from model.edda.final_vectors import build_graphs, final_vectors
from model.edda.model import TENSORS_FILE, Edda, TableShapes
from model.edda.pair_edges import PairEdges
from model.edda.propagation import Backbone
from model.sparse.matrix import choose_engine


class ModelShape(TypedDict):
    """Numbers of nodes that a model was trained on, in all and by domain."""

    nodes: int
    domains: dict[str, int]


class ModelDescription(TypedDict):
    """What every checkpoint's `model.json` says: the model's name, its shape, its seed and the best epoch."""

    model: str
    shape: ModelShape
    seed: int
    epoch: int


class EddaDescription(TypedDict):
    """What that of EDDA says besides."""

    shape: TableShapes
    backbone: Backbone
    normalised: NotRequired[bool]
    joins_pairs: NotRequired[bool]


METADATA_FILE = "model.json"
"""A checkpoint's file of the model's name, shapes and settings that its tensors are used with."""


def write_checkpoint(
    draft: Draft,
    tensors: Mapping[str, Tensor],
    processes: ColumnParallel,
    metadata: Mapping[str, Any],
    history: Iterable[tuple[Any, ...]],
) -> None:
    """Write the files of a checkpoint.

    Args:
        draft: of the checkpoint.
        tensors: of the best epoch, by name; float32 (rows, columns of this process).
        processes: the processes that hold the columns; this one is the first.
        metadata: what is needed to use the tensors, as JSON.
        history: rows of the contract: measures of all epochs.
    """
    with (draft.folder / TENSORS_FILE).open("wb") as stream:
        write_tensors(stream, tensors, processes)
    description = json.dumps(metadata, indent=2, ensure_ascii=False)
    (draft.folder / METADATA_FILE).write_text(description, encoding="utf-8")
    schema = CHECKPOINT.file_schema
    by_column = list(zip(*sorted(history), strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, type_) for values, type_ in zip(by_column, schema.types, strict=True)]
    draft.write(pa.table(arrays, schema=schema))


def write_tensors(stream: BinaryIO | None, tensors: Mapping[str, Tensor], processes: ColumnParallel) -> None:
    """Write tensors as safetensors, block by block as rows are gathered from the processes that hold their columns.

    Args:
        stream: where the first process writes; None in the others, which send their columns.
        tensors: float32 (rows, columns of this process), by name.
        processes: the processes that hold the columns.
    """
    widths = {name: sum(processes.all_gather(tensor.shape[1])) for name, tensor in tensors.items()}
    sizes = {name: (tensor.shape[0], widths[name]) for name, tensor in tensors.items()}
    if stream is not None:
        stream.write(tensors_header({name: ("F32", size, 4 * size[0] * size[1]) for name, size in sizes.items()}))
    for name, tensor in tensors.items():
        for block in processes.gather_rows(tensor, widths[name]):
            if stream is not None:
                stream.write(block.contiguous().numpy().data)


@dataclass(frozen=True)
class Checkpoint(ABC):
    """A trained model.

    Attributes:
        seed: the seed it was trained with.
        epoch: the epoch that validated best.
    """

    seed: int
    epoch: int

    @property
    @abstractmethod
    def columns(self) -> dict[str, slice]:
        """Columns of the final vectors by the tables that they come from; all are `vectors` if not known."""

    @abstractmethod
    def vectors(self, dataset: MultiDomainData, allocator: Allocator = IN_MEMORY) -> Iterator[Tensor]:
        """Each domain's final vectors (nodes, width), in the order of the domains, on the best available device.

        Args:
            dataset: the nodes that the model was trained on.
            allocator: of intermediate and final vectors, if the device is a CPU.
        """


@dataclass(frozen=True)
class EddaCheckpoint(Checkpoint):
    """The tables and maps of EDDA, how the tables are propagated, and whether scores are cosines."""

    model: Edda
    backbone: Backbone
    normalised: bool = False
    pair_edges: PairEdges | None = None

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of the inter and of the intra table."""
        return self.model.shape.columns

    def vectors(self, dataset: MultiDomainData, allocator: Allocator = IN_MEMORY) -> Iterator[Tensor]:
        """The propagated tables, at length 1 if scores are cosines."""
        device = choose_device("auto")
        _, multiply = choose_engine("auto", device)
        intra_domains = self.model.shape.intra_domains
        graphs = build_graphs(dataset, self.backbone, multiply, allocator, intra_domains, self.pair_edges)
        return final_vectors(self.model.to(device), graphs, allocator, normalised=self.normalised)


@dataclass(frozen=True)
class FinalVectors(Checkpoint):
    """The final vectors of any other model: (nodes, width) of each domain, in the order of the domains."""

    by_domain: tuple[Tensor, ...]

    @property
    def columns(self) -> dict[str, slice]:
        """All columns, as `vectors`."""
        return {"vectors": slice(None)}

    def vectors(self, dataset: MultiDomainData, allocator: Allocator = IN_MEMORY) -> Iterator[Tensor]:  # noqa: ARG002
        """The vectors that were saved."""
        device = choose_device("auto")
        return (vectors.to(device) for vectors in self.by_domain)


def load_checkpoint(artifact: Artifact, dataset: MultiDomainData) -> Checkpoint:
    """Read a checkpoint artifact.

    Raises:
        ValueError: it was trained on other nodes than the data set's.
    """
    model = artifact.read_json(METADATA_FILE, ModelDescription)
    shape, seed, epoch = model["shape"], model["seed"], model["epoch"]
    domains = {domain.name: domain.nodes for domain in dataset.domains}
    if (shape["domains"], shape["nodes"]) != (domains, dataset.nodes):
        raise ValueError(
            f"checkpoint {artifact.address}: trained on {shape['domains']}, {shape['nodes']} nodes in all; "
            f"nodes has {domains}, {dataset.nodes} in all; train again on these nodes"
        )
    if model["model"] != "edda":
        vectors = {f"vectors/{name}": (nodes, None) for name, nodes in domains.items()}
        tensors = load_file(check_tensors(artifact, TENSORS_FILE, vectors))
        return FinalVectors(seed, epoch, tuple(tensors[name] for name in vectors))
    tables = artifact.read_json(METADATA_FILE, EddaDescription)
    tensors = load_file(check_tensors(artifact, TENSORS_FILE, tables["shape"].sizes))
    edda = Edda.from_tensors(tables["shape"], tensors)
    pair_edges = PairEdges.open(artifact) if tables.get("joins_pairs") else None
    return EddaCheckpoint(seed, epoch, edda, tables["backbone"], tables.get("normalised", False), pair_edges)


def checkpoint_roles(parents: Mapping[str, Artifact]) -> list[str]:
    """Roles of the checkpoints among a stage's parents, in the order of their seeds.

    Raises:
        KeyError: there is none.
    """
    roles = [role for role in parents if Role.parse(role).contract is CHECKPOINT]
    if not roles:
        raise KeyError(f"parents are {', '.join(parents)}; there must be a checkpoint among them")
    return sorted(roles, key=lambda role: Role.parse(role).seed or 0)
