"""Propagation over a stack of graphs: in full for evaluation, and pruned to what a batch needs for training.

One layer of GRec [EDDA] is x(l+1) = (1-a) D^-1/2 A D^-1/2 x(l) + a x(l), its last layer the output; LightGCN has no
residual and averages its layers; matrix factorisation has no layer. Outputs are averaged over the stack's graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.training import TrainSettings
from model.matrix_kernels import expand_rows
from model.ragged import pick_rows
from model.spmm import Matrix, Multiply, csr, product, take_rows, with_transpose
from model.stacks import Stack
from model.world import Ints, Longs


@dataclass(frozen=True)
class Backbone:
    """A linear, parameter-free building block.

    Attributes:
        layers: how often neighbours are mixed.
        own, neighbours: weights of a node's previous layer and of its normalised neighbours in the next.
        averaged: the output is the mean of layers 0 … `layers`, else the last one.
        union: under the inter table lies one graph of all interactions, else one for each domain's items.
    """

    layers: int
    own: float
    neighbours: float
    averaged: bool
    union: bool = False

    @property
    def isolated(self) -> float:
        """What a node without edges is scaled by."""
        return 1.0 / (self.layers + 1) if self.averaged else self.own**self.layers


@dataclass(frozen=True)
class Dropout:
    """Edge dropout of one step: the share dropped and, for each layer from the first, the key of its draws."""

    share: float
    keys: tuple[np.uint64, ...]


@dataclass(frozen=True)
class _Plan:
    wanted: Ints
    dropout: Dropout


_Cut = tuple[Longs, Ints, NDArray[np.float32], int]


@dataclass(frozen=True)
class Fan:
    """What a batch needs of one table: its own rows, whatever reaches them, and how.

    Attributes:
        rows: int64, distinct rows of the table, the batch's own first.
        direct: float32 (wanted, 1), weight of each wanted row's own layer-0 vector.
        layers: from the first layer to the last; columns of the first are `rows`, rows of the last are wanted.
        readout: sums the wanted rows' copies out of a middle layer, for an averaged backbone.
    """

    rows: Tensor
    direct: Tensor
    layers: tuple[Matrix, ...]
    readout: Matrix | None

    def to(self, device: torch.device) -> Fan:
        """The fan on a device."""
        readout = None if self.readout is None else self.readout.to(device)
        layers = tuple(layer.to(device) for layer in self.layers)
        return Fan(self.rows.to(device), self.direct.to(device), layers, readout)


def backbone_of(settings: TrainSettings) -> Backbone:
    """The backbone that the settings name."""
    union = settings.inter_graph == "union"
    if settings.backbone == "mf":
        return Backbone(0, 0.0, 0.0, averaged=False, union=union)
    if settings.backbone == "lightgcn":
        return Backbone(settings.layers, 0.0, 1.0, averaged=True, union=union)
    return Backbone(settings.layers, settings.residual, 1.0 - settings.residual, averaged=False, union=union)


def propagate(table: Tensor, stack: Stack, backbone: Backbone, multiply: Multiply) -> Tensor:
    """Output vectors of every row of a table, without dropout; one compact product per graph and layer.

    Args:
        table: layer-0 vectors (rows, width), float32.
        stack: graphs over the table's rows.
        backbone: the building block.
        multiply: the engine of the products.

    Returns:
        (rows, width). Rows without edges are the table's rows times `backbone.isolated`.
    """
    if backbone.layers == 0:
        return table.clone()
    edgeless = 1.0 - np.diff(stack.member_indptr) / stack.graphs
    direct = np.full_like(edgeless, backbone.isolated) if backbone.averaged else backbone.isolated * edgeless
    output = table * torch.from_numpy(direct.astype(np.float32)).to(table.device).unsqueeze(1)
    for number in range(stack.graphs):
        nodes, matrix = stack.graph(number)
        matrix, rows = matrix.to(table.device), torch.from_numpy(nodes.astype(np.int64)).to(table.device)
        layer = table.index_select(0, rows)
        total = torch.zeros_like(layer) if backbone.averaged else None
        for _ in range(backbone.layers):
            mixed = multiply(matrix, layer).mul_(backbone.neighbours)  # in place: rows of all users are large
            layer = mixed.add_(layer.mul_(backbone.own))
            if total is not None:
                total += layer
        result = layer if total is None else total.div_(backbone.layers + 1)
        output.index_add_(0, rows, result, alpha=1.0 / stack.graphs)
    return output


def fan_of(stack: Stack, wanted: Ints, backbone: Backbone, dropout: Dropout) -> Fan:
    """Prune propagation to the rows a batch wants, drawing each layer's dropout mask while expanding.

    Args:
        stack: graphs over the table's rows.
        wanted: int32, distinct rows of the table; may be empty.
        backbone: the building block.
        dropout: kept edges are scaled by 1 / (1 - share).
    """
    if backbone.layers == 0:
        return Fan(torch.from_numpy(wanted.astype(np.int64)), torch.ones(wanted.size, 1), (), None)
    copies_indptr, rows = pick_rows(stack.member_indptr, stack.members, wanted)
    cuts: list[_Cut] = []
    for layer in range(backbone.layers, 0, -1):
        cut, rows = _layer(stack, rows, layer, backbone, _Plan(wanted, dropout))
        cuts.append(cut if layer < backbone.layers else (cut[0][copies_indptr], *cut[1:]))
    edgeless = 1.0 - np.diff(copies_indptr) / stack.graphs
    direct = np.full_like(edgeless, backbone.isolated) if backbone.averaged else backbone.isolated * edgeless
    return Fan(
        torch.from_numpy(rows.astype(np.int64)),
        torch.from_numpy(direct.astype(np.float32)).unsqueeze(1),
        tuple(with_transpose(csr(*cut)) for cut in reversed(cuts)),
        _readout(copies_indptr, stack, backbone),
    )


def spread(fan: Fan, table: Tensor, multiply: Multiply) -> tuple[Tensor, Tensor]:
    """Output vectors of the wanted rows and their layer-0 vectors, both (wanted, width), differentiable by `table`."""
    layer = take_rows(table, fan.rows)
    own = layer[: fan.direct.shape[0]]
    output = fan.direct * own
    for number, matrix in enumerate(fan.layers, start=1):
        layer = product(matrix, layer, multiply)
        if fan.readout is not None and number < len(fan.layers):
            output = output + product(fan.readout, layer[: fan.readout.forward.columns], multiply)
    return (output + layer if fan.layers else output), own


def _layer(stack: Stack, rows: Ints, layer: int, backbone: Backbone, plan: _Plan) -> tuple[_Cut, Ints]:
    """One layer's matrix over stack rows, and what its columns stand for: stack rows or, in the first, table rows."""
    last, first = layer == backbone.layers, layer == 1
    share = stack.graphs * (backbone.layers + 1 if backbone.averaged else 1) if last else 1
    column_of = stack.nodes if first else np.arange(stack.nodes.size, dtype=np.int32)
    seeds = plan.wanted if first else rows
    width = stack.table_rows if first else stack.nodes.size
    entries = int((stack.indptr[rows.astype(np.int64) + 1] - stack.indptr[rows]).sum()) + rows.size
    frontier = np.empty(min(seeds.size + entries, width) + 1, np.int32)
    frontier[: seeds.size] = seeds
    cut = np.empty(rows.size + 1, np.int64), np.empty(entries, np.int32), np.empty(entries, np.float32)
    met, kept = expand_rows(
        stack.indptr, stack.indices, stack.values, column_of, rows,
        np.float32(backbone.own / share), np.float32(backbone.neighbours / (1.0 - plan.dropout.share) / share),
        np.uint64(int(plan.dropout.share * 2**64)), plan.dropout.keys[layer - 1],
        np.full(width, -1, np.int32), frontier, seeds.size, *cut,
    )  # fmt: skip
    return (cut[0], cut[1][:kept], cut[2][:kept], int(met)), frontier[:met]


def _readout(copies_indptr: Longs, stack: Stack, backbone: Backbone) -> Matrix | None:
    if not backbone.averaged or backbone.layers < 2:
        return None
    copies = int(copies_indptr[-1])
    weight = np.full(copies, 1.0 / (stack.graphs * (backbone.layers + 1)), np.float32)
    return with_transpose(csr(copies_indptr, np.arange(copies), weight, copies))
