"""Final vectors of a model: what evaluation and export score with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.compute.allocator import MEMORY, Room
from model.data.dataset import World
from model.edda.graph_stack import Stack, inter_stack, intra_stack, union_stack
from model.edda.model import Edda
from model.edda.propagation import Backbone, empty_like, propagate
from model.sparse.matrix import Multiply

_BLOCK = 65_536
"""Rows that are put together at once."""


@dataclass(frozen=True)
class Network:
    """How vectors are propagated: the graphs under each table, the backbone, the engine.

    Attributes:
        world: the domains.
        inter: graphs over the inter table.
        intra: the graphs over intra tables, by the places of the domains that have one.
        backbone: the building block.
        multiply: the engine of the sparse products.
    """

    world: World
    inter: Stack
    intra: Mapping[int, Stack]
    backbone: Backbone
    multiply: Multiply


def network_of(
    world: World,
    backbone: Backbone,
    multiply: Multiply,
    room: Room = MEMORY,
    private: Collection[int] | None = None,
) -> Network:
    """Build the graphs of a world.

    Args:
        world: the domains.
        backbone: the building block.
        multiply: the engine of the sparse products.
        room: for the graphs' edges.
        private: places of the domains that have an intra table; all by default.

    Raises:
        ValueError: the world has no domain.
    """
    if not world.domains:
        raise ValueError("nodes: there is no domain, must be at least one; ingest logs with interactions")
    inter = union_stack(world, room) if backbone.union else inter_stack(world, room)
    places = range(len(world.domains)) if private is None else private
    intra = {number: intra_stack(world.domains[number], room) for number in places}
    return Network(world, inter, intra, backbone, multiply)


@dataclass(frozen=True)
class Vectors:
    """Each domain's final vectors (nodes, width), in the world's order: what a model other than EDDA leaves."""

    by_domain: tuple[Tensor, ...]


@torch.no_grad()
def final_vectors(model: Edda, network: Network, room: Room = MEMORY) -> Iterator[Tensor]:
    """Each domain's final vectors (nodes, columns), inter part first; one domain at a time in the room."""
    backbone, multiply = network.backbone, network.multiply
    inter = [propagate(table, network.inter, backbone, multiply, room) for table in model.inter]
    tables_of_domains = model.intra
    for number, domain in enumerate(network.world.domains):
        tables = [tables_of_domains[number]] if number in tables_of_domains else []
        intra = [propagate(table, network.intra[number], backbone, multiply, room) for table in tables]
        width = sum(part.shape[1] for part in (*inter, *intra))
        final = empty_like((*inter, *intra)[0], (domain.nodes, width), room)
        for start in range(0, domain.nodes, _BLOCK):
            rows = slice(start, start + _BLOCK)
            union = torch.from_numpy(domain.union[rows]).long().to(final.device)
            torch.cat([*(part[union] for part in inter), *(part[rows] for part in intra)], dim=1, out=final[rows])
        yield final
