"""Propagation over a stack of graphs: in full for evaluation, and pruned to what a batch needs for training.

One layer of GRec [EDDA] is x(l+1) = (1-a) D^-1/2 A D^-1/2 x(l) + a x(l), its last layer the output; LightGCN has no
residual and averages its layers; matrix factorisation has no layer. Outputs are averaged over the stack's graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.train_settings import TrainSettings
from model.compute.allocator import MEMORY, Room
from model.edda.graph_stack import Stack
from model.sparse.kernels import cut_rows, number_distinct
from model.sparse.matrix import Matrix, Multiply, csr, with_transpose
from model.sparse.rows import Ints, Longs, pick_rows


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


_Cut = tuple[Longs, Ints, NDArray[np.float32]]


@dataclass(frozen=True)
class Fan:
    """What a batch needs of one table: its own rows, whatever reaches them, and how.

    Attributes:
        wanted: int64, the batch's own rows of the table, distinct.
        rows: int64, distinct rows of the table that the output depends on, `wanted` among them.
        places: int64 (wanted), where in `rows` each wanted row stands.
        direct: float32 (wanted, 1), weight of each wanted row's own layer-0 vector.
        layers: from the first layer to the last; columns of the first are all rows of the table, but rows of its
            transpose are `rows`; rows of the last are wanted.
        readout: sums the wanted rows' copies out of a middle layer, for an averaged backbone.
    """

    wanted: Tensor
    rows: Tensor
    places: Tensor
    direct: Tensor
    layers: tuple[Matrix, ...]
    readout: Matrix | None

    def to(self, device: torch.device) -> Fan:
        """The fan on a device."""
        wanted, rows, places, direct = (t.to(device) for t in (self.wanted, self.rows, self.places, self.direct))
        layers = tuple(layer.to(device) for layer in self.layers)
        readout = None if self.readout is None else self.readout.to(device)
        return Fan(wanted, rows, places, direct, layers, readout)


def backbone_of(settings: TrainSettings) -> Backbone:
    """The backbone that the settings name."""
    union = settings.inter_graph == "union"
    if settings.backbone == "mf":
        return Backbone(0, 0.0, 0.0, averaged=False, union=union)
    if settings.backbone == "lightgcn":
        return Backbone(settings.layers, 0.0, 1.0, averaged=True, union=union)
    return Backbone(settings.layers, settings.residual, 1.0 - settings.residual, averaged=False, union=union)


def propagate(table: Tensor, stack: Stack, backbone: Backbone, multiply: Multiply, room: Room = MEMORY) -> Tensor:
    """Output vectors of every row of a table, without dropout and without gradient, by blocks of rows.

    Args:
        table: layer-0 vectors (rows, width), float32.
        stack: graphs over the table's rows.
        backbone: the building block.
        multiply: the engine of the products.
        room: for layers and output, where the table is in memory and not on a device.

    Returns:
        (rows, width); without layers the table itself. Rows without edges are its rows times `backbone.isolated`.
    """
    if backbone.layers == 0:
        return table
    edgeless = 1.0 - np.diff(stack.member_indptr) / stack.graphs
    direct = np.full_like(edgeless, backbone.isolated) if backbone.averaged else backbone.isolated * edgeless
    weights = torch.from_numpy(direct.astype(np.float32)).to(table.device).unsqueeze(1)
    output = torch.mul(table, weights, out=empty_like(table, table.shape, room))
    for number in range(stack.graphs):
        rows = torch.from_numpy(stack.rows_of(number).astype(np.int64)).to(table.device)
        layer = torch.index_select(table, 0, rows, out=empty_like(table, (rows.numel(), table.shape[1]), room))
        total = empty_like(table, layer.shape, room).zero_() if backbone.averaged else None
        for _ in range(backbone.layers):
            following = empty_like(table, layer.shape, room)
            for own, matrix in stack.blocks(number):
                mixed = multiply(matrix.to(table.device), layer).mul_(backbone.neighbours)
                torch.add(mixed, layer[own] * backbone.own, out=following[own])
            layer = following
            if total is not None:
                total += layer
        result = layer if total is None else total.div_(backbone.layers + 1)
        output.index_add_(0, rows, result, alpha=1.0 / stack.graphs)
    return output


def empty_like(table: Tensor, shape: tuple[int, ...], room: Room) -> Tensor:
    """A float32 tensor to be filled, where there is room, or on the table's device."""
    if table.device.type != "cpu":
        return table.new_empty(shape)
    return torch.from_numpy(room.empty(shape, np.float32))


def fan_of(stack: Stack, wanted: Ints, backbone: Backbone, dropout: Dropout) -> Fan:
    """Prune propagation to the rows a batch wants, drawing each layer's dropout mask while expanding.

    Args:
        stack: graphs over the table's rows.
        wanted: int32, distinct rows of the table; may be empty.
        backbone: the building block.
        dropout: kept edges are scaled by 1 / (1 - share).
    """
    longs = torch.from_numpy(wanted.astype(np.int64))
    if backbone.layers == 0:
        return Fan(longs, longs, torch.arange(wanted.size), torch.ones(wanted.size, 1), (), None)
    copies_indptr, rows = pick_rows(stack.member_indptr, stack.members, wanted)
    layers: list[Matrix] = []
    for layer in range(backbone.layers, 0, -1):
        indptr, indices, values = _cut(stack, rows, layer, backbone, dropout)
        columns = stack.table_rows
        if layer > 1:
            rows = number_distinct(rows, indices, stack.nodes.size)
            columns = rows.size
        if layer == backbone.layers:
            indptr = indptr[copies_indptr]
        layers.insert(0, with_transpose(csr(indptr, indices, values, columns)))
    edgeless = 1.0 - np.diff(copies_indptr) / stack.graphs
    direct = np.full_like(edgeless, backbone.isolated) if backbone.averaged else backbone.isolated * edgeless
    layers[0], reached, places = _reaching(layers[0], wanted)
    return Fan(
        longs,
        torch.from_numpy(reached),
        torch.from_numpy(places),
        torch.from_numpy(direct.astype(np.float32)).unsqueeze(1),
        tuple(layers),
        _readout(copies_indptr, stack, backbone),
    )


def spread(fan: Fan, table: Tensor, multiply: Multiply) -> tuple[Tensor, Tensor]:
    """Output vectors of the wanted rows and their layer-0 vectors, both (wanted, width), differentiable by `table`."""
    return _Spread.apply(table, fan, multiply)  # type: ignore[no-any-return,no-untyped-call]


class _Spread(torch.autograd.Function):
    """Linear, so its gradient needs no vector again; it is torch's sparse tensor of the rows that are reached."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, fan: Fan, multiply: Multiply) -> tuple[Tensor, Tensor]:
        ctx.fan, ctx.multiply, ctx.shape = fan, multiply, table.shape
        layer, own = table, table.index_select(0, fan.wanted)
        output = fan.direct * own
        for number, matrix in enumerate(fan.layers, start=1):
            layer = multiply(matrix.forward, layer)
            if number == len(fan.layers):
                output += layer
            elif fan.readout is not None:
                output += multiply(fan.readout.forward, layer[: fan.readout.forward.columns])
        return output, own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        fan, (output, own) = ctx.fan, gradients
        own, layer = torch.addcmul(own, fan.direct, output), output.contiguous()
        for number, matrix in reversed(list(enumerate(fan.layers, start=1))):
            if fan.readout is not None and number < len(fan.layers):
                layer[: fan.readout.forward.columns] += ctx.multiply(fan.readout.backward, output)
            layer = ctx.multiply(matrix.backward, layer)
        slopes = layer.index_add_(0, fan.places, own) if fan.layers else own
        rows = fan.rows.unsqueeze(0)
        return torch.sparse_coo_tensor(rows, slopes, ctx.shape, is_coalesced=True, check_invariants=False), None, None


def _cut(stack: Stack, rows: Ints, layer: int, backbone: Backbone, dropout: Dropout) -> _Cut:
    """One layer's rows with what was kept of them; columns are stack rows or, in the first layer, table rows."""
    share = stack.graphs * (backbone.layers + 1 if backbone.averaged else 1) if layer == backbone.layers else 1
    columns, own = (stack.table_columns, stack.nodes) if layer == 1 else (stack.indices, stack.numbers)
    entries = int((stack.indptr[rows.astype(np.int64) + 1] - stack.indptr[rows]).sum()) + rows.size
    cut = np.empty(rows.size + 1, np.int64), np.empty(entries, np.int32), np.empty(entries, np.float32)
    kept = cut_rows(
        stack.indptr, columns, stack.values, own, rows,
        np.float32(backbone.own / share), np.float32(backbone.neighbours / (1.0 - dropout.share) / share),
        np.uint64(int(dropout.share * 2**64)), dropout.keys[layer - 1], *cut,
    )  # fmt: skip
    return cut[0], cut[1][:kept], cut[2][:kept]


def _reaching(matrix: Matrix, wanted: Ints) -> tuple[Matrix, Longs, Longs]:
    """Drop empty rows from a transpose but for those wanted: what is left, which rows, and where the wanted are."""
    back = matrix.backward
    left = np.diff(back.indptr.numpy()) > 0
    left[wanted] = True
    rows = np.flatnonzero(left)
    indptr = back.indptr[torch.from_numpy(np.append(rows, left.size))]
    return Matrix(matrix.forward, replace(back, indptr=indptr)), rows, np.cumsum(left)[wanted] - 1


def _readout(copies_indptr: Longs, stack: Stack, backbone: Backbone) -> Matrix | None:
    if not backbone.averaged or backbone.layers < 2:
        return None
    copies = int(copies_indptr[-1])
    weight = np.full(copies, 1.0 / (stack.graphs * (backbone.layers + 1)), np.float32)
    return with_transpose(csr(copies_indptr, np.arange(copies), weight, copies))
