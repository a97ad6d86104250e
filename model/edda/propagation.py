"""Propagation over a stack of graphs: in full for evaluation, on a sampled subgraph for a training step.

One layer of GRec [EDDA] is x(l+1) = (1-a) D^-1/2 A D^-1/2 x(l) + a x(l), its last layer the output; LightGCN has no
residual and averages its layers; JGCF (Guo et al., KDD 2023) weighs them, so that its output is a mean of Jacobi
polynomials of the normalised graph; matrix factorisation has no layer. Outputs are averaged over the stack's graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Legendre, Polynomial
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.settings.train import TrainSettings
from model.compute.allocator import IN_MEMORY, Allocator
from model.edda.graph_stack import GraphStack
from model.sparse.kernels import cut_rows, renumber
from model.sparse.matrix import Matrix, SpmmEngine, csr, with_transpose
from model.sparse.rows import Ints, Longs, pick_rows


@dataclass(frozen=True)
class Backbone:
    """A linear, parameter-free building block.

    Attributes:
        layers: number of propagation layers.
        own, neighbours: weights of a node's previous layer and of its normalised neighbours in the next.
        averaged: the output is the mean of layers 0 … `layers`, or their weighted sum, else the last layer.
        union: the inter table has one graph of all interactions, else one graph for the items of each domain.
        weights: of layers 0 … `layers` in that sum; None for the mean.
    """

    layers: int
    own: float
    neighbours: float
    averaged: bool
    union: bool = False
    weights: tuple[float, ...] | None = None

    @property
    def isolated(self) -> float:
        """The factor of a node without edges: its output over its layer-0 vector."""
        return self.factor(0) / self.divisor if self.averaged else self.own**self.layers

    def factor(self, layer: int) -> float:
        """What a layer is multiplied by in the output, before that is divided by `divisor`."""
        return self.weights[layer] if self.weights else 1.0

    @property
    def divisor(self) -> int:
        """What the sum of layers is divided by."""
        return self.layers + 1 if self.averaged and not self.weights else 1


@dataclass(frozen=True)
class Dropout:
    """Edge dropout of one step: the share dropped and, for each layer from the first, the key of its draws."""

    share: float
    keys: tuple[np.uint64, ...]


_CsrArrays = tuple[Longs, Ints, NDArray[np.float32]]


@dataclass(frozen=True)
class SampledSubgraph:
    """The part of the propagation graph that a batch's rows depend on, as one sparse matrix per layer.

    Attributes:
        batch_rows: int64, the batch's rows of the table, distinct.
        rows: int64, distinct rows of the table that the output depends on, including `batch_rows`.
        positions: int64 (batch rows), where in `rows` each batch row is.
        direct: float32 (batch rows, 1), weight of each batch row's own layer-0 vector.
        layers: from the first layer to the last; columns of the first are all rows of the table, but rows of its
            transpose are `rows`; rows of the last are the batch's.
        readout: for an averaged backbone, sums up each batch row's vectors in the several graphs of a middle layer.
        factors: by which the sums of each layer but the last are multiplied.
    """

    batch_rows: Tensor
    rows: Tensor
    positions: Tensor
    direct: Tensor
    layers: tuple[Matrix, ...]
    readout: Matrix | None
    factors: tuple[float, ...] = ()

    def to(self, device: torch.device) -> SampledSubgraph:
        """The subgraph on a device."""
        return SampledSubgraph(
            self.batch_rows.to(device),
            self.rows.to(device),
            self.positions.to(device),
            self.direct.to(device),
            tuple(layer.to(device) for layer in self.layers),
            None if self.readout is None else self.readout.to(device),
            self.factors,
        )


def build_backbone(settings: TrainSettings) -> Backbone:
    """The backbone of the settings."""
    union = settings.inter_graph == "union"
    if settings.backbone == "mf":
        return Backbone(0, 0.0, 0.0, averaged=False, union=union)
    if settings.backbone == "lightgcn":
        return Backbone(settings.layers, 0.0, 1.0, averaged=True, union=union)
    if settings.backbone == "jgcf":
        return Backbone(settings.layers, 0.0, 1.0, averaged=True, union=union, weights=_jacobi_mean(settings.layers))
    return Backbone(settings.layers, settings.residual, 1.0 - settings.residual, averaged=False, union=union)


def _jacobi_mean(degree: int) -> tuple[float, ...]:
    """Coefficients, from x^0 on, of the mean of the Jacobi polynomials P(1, 1) of degrees 0 … `degree`.

    P(1, 1) of degree k is 2 / (k + 2) times the derivative of the Legendre polynomial of degree k + 1.
    """
    legendre = (Legendre.basis(k + 1).deriv() * (2.0 / (k + 2)) for k in range(degree + 1))
    total = sum((polynomial.convert(kind=Polynomial) for polynomial in legendre), Polynomial([0.0]))
    return tuple(float(coefficient) / (degree + 1) for coefficient in total.coef)


def propagate(
    table: Tensor, stack: GraphStack, backbone: Backbone, multiply: SpmmEngine, allocator: Allocator = IN_MEMORY
) -> Tensor:
    """Output vectors of every row of a table, without dropout and without gradient, by blocks of rows.

    Args:
        table: layer-0 vectors (rows, width), float32.
        stack: graphs over the table's rows.
        backbone: the building block.
        multiply: the engine of the products.
        allocator: of layers and output, if the table is on the CPU.

    Returns:
        (rows, width); the table itself without layers. Rows without edges are the table's times `backbone.isolated`.
    """
    if backbone.layers == 0:
        return table
    weights = _direct_weights(stack.member_indptr, stack, backbone).to(table.device)
    output = torch.mul(table, weights, out=empty_like(table, table.shape, allocator))
    for index in range(stack.graph_count):
        rows = torch.from_numpy(stack.table_rows_of_graph(index).astype(np.int64)).to(table.device)
        layer = torch.index_select(table, 0, rows, out=empty_like(table, (rows.numel(), table.shape[1]), allocator))
        total = empty_like(table, layer.shape, allocator).zero_() if backbone.averaged else None
        for number in range(1, backbone.layers + 1):
            following = empty_like(table, layer.shape, allocator)
            for block, matrix in stack.blocks(index):
                mixed = multiply(matrix.to(table.device), layer).mul_(backbone.neighbours)
                torch.add(mixed, layer[block] * backbone.own, out=following[block])
            layer = following
            if total is not None:
                total.add_(layer, alpha=backbone.factor(number))
        result = layer if total is None else total.div_(backbone.divisor)
        output.index_add_(0, rows, result, alpha=1.0 / stack.graph_count)
    return output


def empty_like(table: Tensor, shape: tuple[int, ...], allocator: Allocator) -> Tensor:
    """An uninitialised float32 tensor: from the allocator if the table is on the CPU, else on the table's device."""
    if table.device.type != "cpu":
        return table.new_empty(shape)
    return torch.from_numpy(allocator.empty(shape, np.float32))


def sample_subgraph(stack: GraphStack, batch_rows: Ints, backbone: Backbone, dropout: Dropout) -> SampledSubgraph:
    """Prune propagation to the rows of a batch, drawing each layer's dropout mask while expanding neighbourhoods.

    Args:
        stack: graphs over the table's rows.
        batch_rows: int32, distinct rows of the table; may be empty.
        backbone: the building block.
        dropout: kept edges are scaled by 1 / (1 - share).
    """
    longs = torch.from_numpy(batch_rows.astype(np.int64))
    if backbone.layers == 0:
        return SampledSubgraph(longs, longs, torch.arange(longs.numel()), torch.ones(longs.numel(), 1), (), None)
    copies_indptr, rows = pick_rows(stack.member_indptr, stack.members, batch_rows)
    layers: list[Matrix] = []
    for layer in range(backbone.layers, 0, -1):
        indptr, indices, values = _cut_layer(stack, rows, layer, backbone, dropout)
        columns = stack.table_rows
        if layer > 1:
            rows = renumber(rows, indices, stack.nodes.size)
            columns = rows.size
        if layer == backbone.layers:
            indptr = indptr[copies_indptr]
        layers.insert(0, with_transpose(csr(indptr, indices, values, columns)))
    layers[0], reached, positions = _drop_empty_rows(layers[0], batch_rows)
    return SampledSubgraph(
        longs,
        torch.from_numpy(reached),
        torch.from_numpy(positions),
        _direct_weights(copies_indptr, stack, backbone),
        tuple(layers),
        _build_readout(copies_indptr, stack, backbone),
        tuple(backbone.factor(number) for number in range(1, backbone.layers)),
    )


def propagate_subgraph(subgraph: SampledSubgraph, table: Tensor, multiply: SpmmEngine) -> tuple[Tensor, Tensor]:
    """Output and layer-0 vectors of the batch's rows, both (batch rows, width), differentiable by `table`."""
    return _PropagateSubgraph.apply(table, subgraph, multiply)  # type: ignore[no-any-return,no-untyped-call]


@dataclass(frozen=True)
class LayerNoise:
    """Noise on the vectors of every layer (Yu et al., SIGIR 2022).

    Attributes:
        length: of the noise on a vector, over the columns of all processes.
        last_layer: weight of the last layer in the output, in which its matrix is scaled.
        seed: of the draws, which follow each other from layer to layer.
        width: columns of the table in all processes.
        columns: those of this process.
    """

    length: float
    last_layer: float
    seed: int
    width: int
    columns: slice


@torch.no_grad()
def noisy_output(subgraph: SampledSubgraph, table: Tensor, multiply: SpmmEngine, noise: LayerNoise) -> Tensor:
    """The batch's output with noise. Its gradient is that of the output without: the noise is a constant."""
    return _propagate_layers(subgraph, table, table.index_select(0, subgraph.batch_rows), multiply, noise)


def _propagate_layers(
    subgraph: SampledSubgraph, table: Tensor, layer0: Tensor, multiply: SpmmEngine, noise: LayerNoise | None = None
) -> Tensor:
    draws = torch.Generator(table.device).manual_seed(noise.seed) if noise else None
    layer, output = table, subgraph.direct * layer0
    for number, matrix in enumerate(subgraph.layers, start=1):
        is_last = number == len(subgraph.layers)
        layer = multiply(matrix.forward, layer)
        if noise:
            uniform = torch.rand(layer.shape[0], noise.width, generator=draws, device=layer.device)
            lengths = torch.linalg.vector_norm(uniform, dim=1, keepdim=True)
            uniform = uniform[:, noise.columns] * (noise.length * (noise.last_layer if is_last else 1.0) / lengths)
            layer += layer.sign() * uniform
        if is_last:
            output += layer
        elif subgraph.readout is not None:
            sums = multiply(subgraph.readout.forward, layer[: subgraph.readout.forward.columns])
            output.add_(sums, alpha=subgraph.factors[number - 1])
    return output


class _PropagateSubgraph(torch.autograd.Function):
    """Linear, so the backward pass needs no saved vectors; the gradient is torch's sparse tensor of `subgraph.rows`."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, subgraph: SampledSubgraph, multiply: SpmmEngine) -> tuple[Tensor, Tensor]:
        ctx.subgraph, ctx.multiply, ctx.shape = subgraph, multiply, table.shape
        layer0 = table.index_select(0, subgraph.batch_rows)
        return _propagate_layers(subgraph, table, layer0, multiply), layer0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        subgraph, (output, layer0) = ctx.subgraph, gradients
        layer0, layer = torch.addcmul(layer0, subgraph.direct, output), output.contiguous()
        for number, matrix in reversed(list(enumerate(subgraph.layers, start=1))):
            if subgraph.readout is not None and number < len(subgraph.layers):
                sums = ctx.multiply(subgraph.readout.backward, output)
                layer[: subgraph.readout.forward.columns].add_(sums, alpha=subgraph.factors[number - 1])
            layer = ctx.multiply(matrix.backward, layer)
        table_gradient = layer.index_add_(0, subgraph.positions, layer0) if subgraph.layers else layer0
        rows = subgraph.rows.unsqueeze(0)
        return (
            torch.sparse_coo_tensor(rows, table_gradient, ctx.shape, is_coalesced=True, check_invariants=False),
            None,
            None,
        )


def _direct_weights(copies_indptr: Longs, stack: GraphStack, backbone: Backbone) -> Tensor:
    """float32 (rows, 1), the weight of each row's own layer-0 vector in its output.

    Args:
        copies_indptr: int64 (rows + 1), its differences are the number of graphs in which each row has edges.
        stack, backbone: as for `propagate`.
    """
    edgeless = 1.0 - np.diff(copies_indptr) / stack.graph_count
    weights = np.full_like(edgeless, backbone.isolated) if backbone.averaged else backbone.isolated * edgeless
    return torch.from_numpy(weights.astype(np.float32)).unsqueeze(1)


def _cut_layer(stack: GraphStack, rows: Ints, layer: int, backbone: Backbone, dropout: Dropout) -> _CsrArrays:
    """One layer's rows after dropout; columns are stack rows or, in the first layer, table rows."""
    share = stack.graph_count * backbone.divisor / backbone.factor(layer) if layer == backbone.layers else 1
    columns, own_columns = (stack.table_columns, stack.nodes) if layer == 1 else (stack.indices, stack.stack_rows)
    entries = int((stack.indptr[rows.astype(np.int64) + 1] - stack.indptr[rows]).sum()) + rows.size
    indptr, indices = np.empty(rows.size + 1, np.int64), np.empty(entries, np.int32)
    values = np.empty(entries, np.float32)
    own_weight = np.float32(backbone.own / share)
    scale = np.float32(backbone.neighbours / (1.0 - dropout.share) / share)
    threshold, key = np.uint64(int(dropout.share * 2**64)), dropout.keys[layer - 1]
    matrix, output = (stack.indptr, columns, stack.values), (indptr, indices, values)
    kept = cut_rows(matrix, own_columns, rows, own_weight, scale, threshold, key, output)
    return indptr, indices[:kept], values[:kept]


def _drop_empty_rows(matrix: Matrix, batch_rows: Ints) -> tuple[Matrix, Longs, Longs]:
    """Drop the transpose's empty rows, but none of the batch's: the matrix, the rows kept, positions of the batch's."""
    back = matrix.backward
    is_kept = np.diff(back.indptr.numpy()) > 0
    is_kept[batch_rows] = True
    rows = np.flatnonzero(is_kept)
    indptr = back.indptr[torch.from_numpy(np.append(rows, is_kept.size))]
    return Matrix(matrix.forward, replace(back, indptr=indptr)), rows, np.cumsum(is_kept)[batch_rows] - 1


def _build_readout(copies_indptr: Longs, stack: GraphStack, backbone: Backbone) -> Matrix | None:
    if not backbone.averaged or backbone.layers < 2:
        return None
    copies = int(copies_indptr[-1])
    weight = np.full(copies, 1.0 / (stack.graph_count * backbone.divisor), np.float32)
    return with_transpose(csr(copies_indptr, np.arange(copies), weight, copies))
