"""Final vectors of a model: what evaluation and export score with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.edda import Edda
from model.propagate import Backbone, propagate
from model.spmm import Multiply
from model.stacks import Stack, inter_stack, intra_stack, union_stack
from model.world import World


@dataclass(frozen=True)
class Network:
    """How vectors are propagated: the graphs under each table, the backbone, the engine.

    Attributes:
        world: the domains.
        inter: graphs over the inter table.
        intra: each domain's graph over its intra table.
        backbone: the building block.
        multiply: the engine of the sparse products.
    """

    world: World
    inter: Stack
    intra: tuple[Stack, ...]
    backbone: Backbone
    multiply: Multiply


def network_of(world: World, backbone: Backbone, multiply: Multiply) -> Network:
    """Build the graphs of a world.

    Raises:
        ValueError: the world has no domain.
    """
    if not world.domains:
        raise ValueError("nodes: there is no domain, must be at least one; ingest logs with interactions")
    inter = union_stack(world) if backbone.union else inter_stack(world)
    return Network(world, inter, tuple(intra_stack(domain) for domain in world.domains), backbone, multiply)


@dataclass(frozen=True)
class Vectors:
    """Each domain's final vectors (nodes, width), in the world's order: what a model other than EDDA leaves."""

    by_domain: tuple[Tensor, ...]


@torch.no_grad()
def final_vectors(model: Edda, network: Network) -> Iterator[Tensor]:
    """Each domain's final vectors (nodes, 1 or 2 times width), inter part first; one domain at a time in memory."""
    backbone, multiply = network.backbone, network.multiply
    inter = [propagate(table, network.inter, backbone, multiply) for table in model.inter]
    for number, domain in enumerate(network.world.domains):
        parts = [vectors[torch.from_numpy(domain.union).long().to(vectors.device)] for vectors in inter]
        if len(model.intra):
            parts.append(propagate(model.intra[number], network.intra[number], backbone, multiply))
        yield torch.cat(parts, dim=1)
