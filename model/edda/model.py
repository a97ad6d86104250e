"""The EDDA recommender: a table over all domains, a table for each domain, and the maps that align domains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.edda.contrast import INFO_NCE, Contrast
from model.edda.losses import half_squares
from model.edda.objectives import BPR, Objective
from model.edda.propagation import SampledSubgraph, noisy_output, propagate_subgraph
from model.sparse.batch_scores import ScorePattern
from model.sparse.group_scores import GroupPattern
from model.sparse.matrix import SpmmEngine

TENSORS_FILE = "model.safetensors"
"""A checkpoint's file of tables and maps."""

_BLOCK = 65_536
"""Rows of a table drawn at once."""


@dataclass(frozen=True)
class TableShapes:
    """Which tables a model has, and their sizes. The names of the fields are those in a checkpoint's `model.json`.

    Attributes:
        tables: inter, intra or both.
        width: columns of the inter table, and of intra tables if `intra_width` is None.
        nodes: rows of the inter table.
        domains: number of nodes of each domain, in the order of the data set.
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
    def intra_domains(self) -> dict[int, str]:
        """The names of the domains that have an intra table, by their index in the data set."""
        names = self.domains if self.tables != "inter" else {}
        return {index: name for index, name in enumerate(names) if name not in self.inter_only}

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of inter and of intra tables."""
        return self.width, self.width if self.intra_width is None else self.intra_width

    @property
    def columns(self) -> dict[str, slice]:
        """Columns of final vectors by table, inter first; vectors of a domain without an intra table are shorter."""
        width, intra_width = self.widths
        first = 0 if self.tables == "intra" else width
        inter = {"inter": slice(0, width)} if self.tables != "intra" else {}
        return {**inter, **({"intra": slice(first, first + intra_width)} if self.tables != "inter" else {})}

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Rows and columns of every tensor, by its name in `Edda.tensors`."""
        width, intra_width = self.widths
        inter = {"inter": (self.nodes, width)} if self.tables != "intra" else {}
        intra = {f"intra/{name}": (self.domains[name], intra_width) for name in self.intra_domains.values()}
        maps = {f"map/{name}": (intra_width, intra_width) for name in self.intra_domains.values() if self.aligned}
        return {**inter, **intra, **maps}


@dataclass(frozen=True)
class RankingStep:
    """The inputs of one ranking step, drawn and pruned beforehand.

    Attributes:
        domain: index of the domain.
        inter, intra: subgraphs of the batch's nodes in the two tables; None if there is no such table.
        pattern: scores each triple's user with its positive and its negatives.
        counts: float32 (nodes), how often each of the batch's nodes occurs in its triples.
        thresholds: float32 (users of the domain), for SL@K.
        contrast: the contrastive loss that is added; None for none.
    """

    domain: int
    inter: SampledSubgraph | None
    intra: SampledSubgraph | None
    pattern: ScorePattern | GroupPattern
    counts: Tensor
    thresholds: Tensor | None = None
    contrast: Contrast | None = None

    @property
    def size(self) -> int:
        """Number of triples."""
        return self.pattern.rows


class Edda(nn.Module):
    """The tables and maps; propagation and the losses are functions of them [EDDA].

    Rows of `inter` are the nodes of all domains, rows of `intra[d]` those of domain d; a node's final vector is
    its propagated inter vector followed by its propagated intra vector, if it has one; a score is a dot product of two.
    Tables start normal with standard deviation `initial_spread`, 0.1 in [EDDA]. The module holds this process's columns
    of each table and of the inputs of each map.
    """

    def __init__(
        self, shape: TableShapes, seed: int, initial_spread: float = 0.1, processes: ColumnParallel = SINGLE_PROCESS
    ) -> None:
        super().__init__()
        self.shape, self.processes = shape, processes
        width, intra_width = shape.widths
        names = shape.intra_domains.values()
        draw_rows = partial(_draw_table, processes=processes, spread=initial_spread)
        self.inter = nn.ParameterList(
            [draw_rows((shape.nodes, width), generator(seed, "table", "inter"))] if shape.tables != "intra" else []
        )
        self._intra = nn.ParameterList(
            draw_rows((shape.domains[name], intra_width), generator(seed, "table", "intra", name)) for name in names
        )
        self._maps = nn.ParameterList(
            _draw_map(intra_width, generator(seed, "map", name), processes) for name in names if shape.aligned
        )

    @cached_property
    def intra(self) -> dict[int, nn.Parameter]:
        """The intra tables by the index of their domain."""
        return dict(zip(self.shape.intra_domains, self._intra, strict=True))

    @cached_property
    def maps(self) -> dict[int, nn.Parameter]:
        """The maps by the index of their domain; empty if nothing is aligned."""
        return dict(zip(self.shape.intra_domains, self._maps, strict=False))

    @classmethod
    def from_tensors(cls, shape: TableShapes, tensors: Mapping[str, Tensor]) -> Edda:
        """A model that holds the given tensors, named as by `tensors`, without a copy: they may be mapped from a file.

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
        """Copy tensors, named as by `tensors`, into the module.

        Raises:
            ValueError: other names or shapes than the module's.
        """
        parameters = self.tensors()
        _check_sizes(tensors, {name: tuple(tensor.shape) for name, tensor in parameters.items()})
        for name, tensor in parameters.items():
            tensor.copy_(tensors[name])

    def step_tables(self, step: RankingStep) -> Iterator[tuple[int, nn.Parameter, SampledSubgraph]]:
        """The tables that a step reads: 0 and the inter table, 1 and the intra table of its domain, if they exist."""
        if step.inter is not None:
            yield 0, self.inter[0], step.inter
        if step.intra is not None:
            yield 1, self.intra[step.domain], step.intra

    def loss(
        self, step: RankingStep, penalties: tuple[float, float], multiply: SpmmEngine, objective: Objective = BPR
    ) -> Tensor:
        """The objective of a step's triples plus half the squared norms of their layer-0 vectors per triple [EDDA].

        Args:
            step: the triples.
            penalties: weights of the squared norms of inter and of intra vectors; equal in [EDDA].
            multiply: the engine of the products.
            objective: BPR in [EDDA]; its pattern is the step's.
        """
        outputs, penalty = [], torch.zeros((), device=step.counts.device)
        for kind, table, subgraph in self.step_tables(step):
            output, layer0 = propagate_subgraph(subgraph, table, multiply)
            outputs.append(output)
            penalty = penalty + penalties[kind] * half_squares(layer0, step.counts)
        sums = _add_up(objective.sums(step.pattern, output, multiply) for output in outputs)
        totals = self.processes.all_reduce_coalesced(*sums, penalty)
        loss = objective.loss(step.pattern, totals[:-1], step.thresholds) + totals[-1] / step.size
        return loss + self._contrastive_loss(step.contrast, step, outputs, multiply) if step.contrast else loss

    def _contrastive_loss(
        self, contrast: Contrast, step: RankingStep, outputs: Sequence[Tensor], multiply: SpmmEngine
    ) -> Tensor:
        """The weighted contrastive loss of a step's outputs, one for each table."""
        views = []
        for (kind, table, subgraph), output in zip(self.step_tables(step), outputs, strict=True):
            width = self.shape.widths[kind]
            noises = contrast.noises(kind, width, self.processes.own_columns(width))
            noisy = (noisy_output(subgraph, table, multiply, noise) for noise in noises)
            views.append(torch.cat([output + (each - output).detach() for each in noisy]))
        sums = [_add_up(INFO_NCE.sums(pattern, each, multiply) for each in views) for pattern in contrast.patterns]
        totals = [self.processes.all_reduce_coalesced(*each) for each in sums]
        losses = [INFO_NCE.loss(pattern, each, None) for pattern, each in zip(contrast.patterns, totals, strict=True)]
        return contrast.weight * torch.stack(losses).sum()


def _add_up(sums: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The sums of several tables added up, each with its like."""
    return tuple(reduce(torch.add, alike) for alike in zip(*sums, strict=True))


def _check_sizes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if sizes != expected:
        raise ValueError(f"checkpoint: tensors are {sizes}, must be {expected}; train again")


def _draw_table(
    size: tuple[int, int], draws: np.random.Generator, processes: ColumnParallel, spread: float
) -> nn.Parameter:
    """This process's columns of normal draws, made in blocks of rows so that no process ever holds a whole table."""
    rows, width = size
    columns = processes.own_columns(width)
    table = torch.empty(rows, columns.stop - columns.start)
    for block in torch.split(table, _BLOCK):
        whole = torch.from_numpy(draws.standard_normal((block.shape[0], width), dtype="float32"))
        torch.mul(whole[:, columns], spread, out=block)
    return nn.Parameter(table)


def _draw_map(width: int, draws: np.random.Generator, processes: ColumnParallel) -> nn.Parameter:
    """This process's input columns of a map, uniform within 1 / sqrt(inputs) as in nn.Linear."""
    uniform = torch.from_numpy(draws.random((width, width), dtype="float32"))
    weights = (uniform * 2.0 - 1.0) / width**0.5
    return nn.Parameter(weights[:, processes.own_columns(width)].contiguous())
