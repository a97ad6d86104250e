"""The EDDA recommender: one table over all domains beside one per domain, and the maps that align domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from model.compute.column_parallel import ALONE, Columns
from model.edda.losses import bpr, half_squares
from model.edda.propagation import Fan, spread
from model.sparse.batch_scores import Pairing, pair_scores
from model.sparse.matrix import Multiply

MODEL = "model.safetensors"
"""A checkpoint's file of tables and maps."""

_BLOCK = 65_536
"""Rows of a table that are drawn at once."""


@dataclass(frozen=True)
class Shape:
    """What tables there are.

    Attributes:
        tables: inter, intra or both.
        width: columns of inter, and of intra where `intra_width` is None.
        nodes: rows of the inter table.
        domains: nodes of each domain, in the order of the world.
        aligned: each domain that has an intra table has a map for alignment.
        intra_width: columns of each intra table.
        inter_only: domains without an intra table.
    """

    tables: Literal["both", "inter", "intra"]
    width: int
    nodes: int
    domains: Mapping[str, int]
    aligned: bool
    intra_width: int | None = None
    inter_only: Sequence[str] = ()

    @property
    def private(self) -> dict[int, str]:
        """The domains that have an intra table, by their place in the order of the world."""
        names = self.domains if self.tables != "inter" else {}
        return {number: name for number, name in enumerate(names) if name not in self.inter_only}

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of inter and of intra tables."""
        return self.width, self.width if self.intra_width is None else self.intra_width

    @property
    def columns(self) -> dict[str, slice]:
        """Columns of final vectors by their table, inter first; vectors of a domain without intra end before that."""
        width, intra_width = self.widths
        first = 0 if self.tables == "intra" else width
        inter = {"inter": slice(0, width)} if self.tables != "intra" else {}
        return {**inter, **({"intra": slice(first, first + intra_width)} if self.tables != "inter" else {})}

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Rows and columns of every tensor, by its name in `Edda.tensors`."""
        width, intra_width = self.widths
        inter = {"inter": (self.nodes, width)} if self.tables != "intra" else {}
        intra = {f"intra/{name}": (self.domains[name], intra_width) for name in self.private.values()}
        maps = {f"map/{name}": (intra_width, intra_width) for name in self.private.values() if self.aligned}
        return {**inter, **intra, **maps}


@dataclass(frozen=True)
class Step:
    """What one BPR step needs, all of it drawn and pruned before.

    Attributes:
        domain: position of the domain.
        inter, intra: fans of the batch's nodes in the two tables; None where the table is absent.
        pairing: each triple's user with its positive and its negatives.
        counts: float32 (nodes), how often each of the batch's nodes occurs in its triples.
    """

    domain: int
    inter: Fan | None
    intra: Fan | None
    pairing: Pairing
    counts: Tensor

    @property
    def size(self) -> int:
        """Number of triples."""
        return self.pairing.rows


class Edda(nn.Module):
    """The tables and maps; propagation and the losses are functions of them [EDDA].

    Rows of `inter` are the nodes of all domains, rows of `intra[d]` those of domain d; a node's final vector is
    its propagated inter vector beside its propagated intra vector, if it has one, and a score the dot product of two.
    Tables start normal with standard deviation `initial_spread`, 0.1 in [EDDA]. Of each table, and of the inputs of
    each map, the module holds the process's own `columns`.
    """

    def __init__(self, shape: Shape, seed: int, initial_spread: float = 0.1, columns: Columns = ALONE) -> None:
        super().__init__()
        self.shape, self.columns = shape, columns
        width, intra_width = shape.widths
        inter = [("inter", shape.nodes)] if shape.tables != "intra" else []
        private = shape.private.values()
        self.inter = nn.ParameterList(
            _normal((rows, width), columns, initial_spread, seed, name) for name, rows in inter
        )
        self._intra = nn.ParameterList(
            _normal((shape.domains[name], intra_width), columns, initial_spread, seed, "intra", name)
            for name in private
        )
        self._maps = nn.ParameterList(_uniform(intra_width, columns, seed, name) for name in private if shape.aligned)

    @property
    def intra(self) -> dict[int, nn.Parameter]:
        """The intra tables by the places of their domains."""
        return dict(zip(self.shape.private, self._intra, strict=True))

    @property
    def maps(self) -> dict[int, nn.Parameter]:
        """The maps by the places of their domains; none where nothing is aligned."""
        return dict(zip(self.shape.private, self._maps, strict=False))

    @classmethod
    def of(cls, shape: Shape, tensors: Mapping[str, Tensor]) -> Edda:
        """A model of given tensors, named as by `tensors`, which it holds as they are: mapped from a file, say.

        Raises:
            ValueError: other names or shapes than the shape's.
        """
        _check_sizes(tensors, shape.sizes)
        model = cls(replace(shape, nodes=0, domains=dict.fromkeys(shape.domains, 0)), seed=0)  # no rows are drawn
        model.shape = shape
        for name, parameter in zip(shape.sizes, model.parameters(), strict=True):
            parameter.data = tensors[name]
        return model

    def tensors(self) -> dict[str, Tensor]:
        """Parameters by name: `inter`, `intra/<domain>`, `map/<domain>`; they share memory with the module."""
        return {name: tensor.detach() for name, tensor in zip(self.shape.sizes, self.parameters(), strict=True)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors named as by `tensors`.

        Raises:
            ValueError: other names or shapes than the module's.
        """
        own = self.tensors()
        _check_sizes(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()})
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def reads(self, step: Step) -> Iterator[tuple[int, nn.Parameter, Fan]]:
        """What a step reads: 0 and the inter table, 1 and the intra table of its domain, those that there are."""
        if step.inter is not None:
            yield 0, self.inter[0], step.inter
        if step.intra is not None:
            yield 1, self.intra[step.domain], step.intra

    def loss(self, step: Step, penalties: tuple[float, float], multiply: Multiply) -> Tensor:
        """BPR of a step's triples plus half the squared norms of their layer-0 vectors per triple [EDDA].

        Args:
            step: the triples.
            penalties: what the squared norms of inter and of intra vectors weigh; one and the same in [EDDA].
            multiply: the engine of the products.
        """
        scores = penalty = torch.zeros((), device=step.counts.device)
        for kind, table, fan in self.reads(step):
            output, layer0 = spread(fan, table, multiply)
            scores = scores + pair_scores(step.pairing, output, multiply)
            penalty = penalty + penalties[kind] * half_squares(layer0, step.counts)
        scores, penalty = self.columns.totals(scores, penalty)
        return bpr(scores) + penalty / step.size


def _check_sizes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise ValueError(f"checkpoint: tensors are {found}, must be {expected}; train again")


def _normal(shape: tuple[int, int], columns: Columns, spread: float, seed: int, *name: str) -> nn.Parameter:
    """Own columns of one stream of draws, block by block of rows, so that nobody ever holds the other columns."""
    draws, (rows, width) = generator(seed, "table", *name), shape
    own = columns.own(width)
    table = torch.empty(rows, own.stop - own.start)
    for block in torch.split(table, _BLOCK):
        whole = torch.from_numpy(draws.standard_normal((block.shape[0], width), dtype="float32"))
        torch.mul(whole[:, own], spread, out=block)
    return nn.Parameter(table)


def _uniform(width: int, columns: Columns, seed: int, name: str) -> nn.Parameter:
    """As nn.Linear begins: uniform within 1 / sqrt(inputs)."""
    draws = generator(seed, "map", name).random((width, width), dtype="float32")
    return nn.Parameter(((torch.from_numpy(draws) * 2.0 - 1.0) / width**0.5)[:, columns.own(width)].contiguous())
