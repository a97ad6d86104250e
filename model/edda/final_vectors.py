"""Final vectors of a model, which evaluation and export score with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.compute.allocator import IN_MEMORY, Allocator
from model.data.dataset import MultiDomainData
from model.edda.graph_stack import GraphStack, inter_stack, intra_stack, union_stack
from model.edda.model import Edda
from model.edda.objectives import SMALLEST_SQUARE
from model.edda.pair_edges import PairEdges
from model.edda.propagation import Backbone, empty_like, propagate
from model.sparse.matrix import SpmmEngine

_BLOCK = 65_536
"""Rows of final vectors concatenated at once."""


@dataclass(frozen=True)
class PropagationGraphs:
    """What vectors are propagated over, and how.

    Attributes:
        dataset: the domains.
        inter: graphs over the inter table.
        intra: the graph over each intra table, by the index of its domain.
        backbone: the building block.
        multiply: the engine of the sparse products.
        pair_edges: edges between aligned nodes that the graph of the inter table has, if any.
    """

    dataset: MultiDomainData
    inter: GraphStack
    intra: Mapping[int, GraphStack]
    backbone: Backbone
    multiply: SpmmEngine
    pair_edges: PairEdges | None = None


def build_graphs(
    dataset: MultiDomainData,
    backbone: Backbone,
    multiply: SpmmEngine,
    allocator: Allocator = IN_MEMORY,
    intra_domains: Collection[int] | None = None,
    pair_edges: PairEdges | None = None,
) -> PropagationGraphs:
    """Build the graphs of a data set.

    Args:
        dataset: the domains.
        backbone: the building block.
        multiply: the engine of the sparse products.
        allocator: of the graphs' edges.
        intra_domains: indices of the domains that have an intra table; all by default.
        pair_edges: edges between aligned nodes, for the union graph.

    Raises:
        ValueError: the data set has no domain.
    """
    if not dataset.domains:
        raise ValueError("nodes: there is no domain, must be at least one; ingest logs with interactions")
    inter = union_stack(dataset, allocator, pair_edges) if backbone.union else inter_stack(dataset, allocator)
    indices = range(len(dataset.domains)) if intra_domains is None else intra_domains
    intra = {index: intra_stack(dataset.domains[index], allocator) for index in indices}
    return PropagationGraphs(dataset, inter, intra, backbone, multiply, pair_edges)


@torch.no_grad()
def final_vectors(
    model: Edda, graphs: PropagationGraphs, allocator: Allocator = IN_MEMORY, *, normalised: bool = False
) -> Iterator[Tensor]:
    """Each domain's final vectors (nodes, columns), inter columns first; one domain at a time is in memory.

    Args:
        model: the tables.
        graphs: what they are propagated over.
        allocator: of vectors on the CPU.
        normalised: all vectors have length 1, over the columns of all processes, so that dot products are cosines.
    """
    backbone, multiply = graphs.backbone, graphs.multiply
    inter = [propagate(table, graphs.inter, backbone, multiply, allocator) for table in model.inter]
    intra_tables = model.intra
    for index, domain in enumerate(graphs.dataset.domains):
        tables = [intra_tables[index]] if index in intra_tables else []
        intra = [propagate(table, graphs.intra[index], backbone, multiply, allocator) for table in tables]
        width = sum(vectors.shape[1] for vectors in (*inter, *intra))
        final = empty_like((*inter, *intra)[0], (domain.nodes, width), allocator)
        for start in range(0, domain.nodes, _BLOCK):
            rows = slice(start, start + _BLOCK)
            union_rows = torch.from_numpy(domain.union_nodes[rows]).long().to(final.device)
            inter_columns = [vectors[union_rows] for vectors in inter]
            torch.cat([*inter_columns, *(vectors[rows] for vectors in intra)], dim=1, out=final[rows])
            if normalised:
                squares = model.processes.all_reduce(final[rows].square().sum(dim=1, keepdim=True))
                final[rows] *= squares.clamp_min(SMALLEST_SQUARE).rsqrt()
        yield final
