"""Peers of training: the same step in its plain form, on DGL's message passing or torch's CSR.

The graph of every domain spans the nodes of all domains, each step computes every layer of every graph for all of them,
dropout is a random mask over all edges, and Adam updates all rows of every table that has a gradient.
"""

# mypy: ignore-errors
from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, softplus

from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from model.data.batches import Batch
from model.data.dataset import DomainData, MultiDomainData
from model.edda.model import Edda

Neighbours = Callable[[Tensor, Tensor], Tensor]
"""From vectors (nodes, width) and weights (edges) to each node's weighted sum over its neighbours."""


class Graph(NamedTuple):
    """A graph: 1 / sqrt(degree degree) of its directed edges, and a function that sums a layer over neighbours."""

    weights: Tensor
    neighbours: Neighbours


class Pairs(NamedTuple):
    """Aligned pairs of two domains: the domains' numbers, and the nodes in each."""

    source: int
    target: int
    sources: Tensor
    targets: Tensor


class Plain(nn.Module):
    """The tables and maps of an `Edda`, copied, and every graph in full."""

    def __init__(self, start: Edda, world: MultiDomainData, settings: TrainSettings, peer: str) -> None:
        super().__init__()
        tables = start.tensors()
        copies = {name: nn.Parameter(tensor.clone()) for name, tensor in tables.items()}
        self.tables, self.peer = copies, peer
        self.inter = copies["inter"]
        self.intra = nn.ParameterList(copies[name] for name in tables if name.startswith("intra/"))
        self.maps = nn.ParameterList(copies[name] for name in tables if name.startswith("map/"))
        self.settings = settings
        self.unions = [torch.from_numpy(domain.union_nodes.astype(np.int64)) for domain in world.domains]
        self.inter_graphs, self.intra_graphs = build_peer_graphs(world, PEERS[peer])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors named as by `Edda.tensors`."""
        for name, table in self.tables.items():
            table.copy_(tensors[name])

    def loss(self, domain: int, triples: Tensor) -> Tensor:
        """BPR and penalty of int64 triples (3, size): users, positives, negatives, as nodes of the domain."""
        inter = torch.stack([grec(graph, self.inter, self.settings) for graph in self.inter_graphs]).mean(dim=0)
        intra = grec(self.intra_graphs[domain], self.intra[domain], self.settings)
        vectors = torch.cat([inter[self.unions[domain]], intra], dim=1)
        user, positive, negative = (vectors[nodes] for nodes in triples)
        margins = (user * positive).sum(dim=1) - (user * negative).sum(dim=1)
        squares = self.inter[self.unions[domain][triples]].square().sum() + self.intra[domain][triples].square().sum()
        return softplus(-margins).mean() + self.settings.l2 * squares / 2 / triples.shape[1]

    def alignment_loss(self, pairs: Pairs) -> Tensor:
        """Mean distance of mapped pairs; every node of both domains is mapped."""
        sources = linear(self.intra[pairs.source], self.maps[pairs.source])[pairs.sources]
        targets = linear(self.intra[pairs.target], self.maps[pairs.target])[pairs.targets]
        return torch.linalg.vector_norm(sources - targets, dim=1).mean()


def grec(graph: Graph, table: Tensor, settings: TrainSettings) -> Tensor:
    """The last layer of GRec [EDDA] for all nodes; edges are dropped anew in each layer."""
    layer = table
    for _ in range(settings.layers):
        weights = dropout(graph.weights, settings.edge_dropout)
        layer = (1.0 - settings.residual) * graph.neighbours(layer, weights) + settings.residual * layer
    return layer


def build_peer_graphs(world: MultiDomainData, peer: Callable) -> tuple[list[Graph], list[Graph]]:
    """For each domain the graph over all nodes with the interactions of its items, and the graph of its own nodes."""
    own = [read_interactions(domain) for domain in world.domains]
    both = [domain.union_nodes[ends] for domain, ends in zip(world.domains, own, strict=True)]
    union = np.unique(np.concatenate(both, axis=1), axis=1)
    offered = [np.isin(union[1], domain.union_nodes[domain.users :]) for domain in world.domains]
    inter = [build_peer_graph(union[:, kept], world.nodes, peer) for kept in offered]
    return inter, [build_peer_graph(ends, domain.nodes, peer) for domain, ends in zip(world.domains, own, strict=True)]


def read_interactions(domain: DomainData) -> np.ndarray:
    """Users and items (2, interactions) of a domain's train graph, as its nodes."""
    users = np.repeat(np.arange(domain.users), np.diff(domain.indptr[: domain.users + 1]))
    return np.stack([users, domain.indices[: users.size]])


def build_peer_graph(ends: np.ndarray, nodes: int, peer: Callable) -> Graph:
    """A graph with every interaction in both directions, ordered by target."""
    sources, targets = np.concatenate([ends, ends[::-1]], axis=1).astype(np.int64)
    order = np.lexsort((sources, targets))
    sources, targets = torch.from_numpy(sources[order]), torch.from_numpy(targets[order])
    degree = torch.bincount(targets, minlength=nodes).double()
    weights = (degree[sources] * degree[targets]).rsqrt().float()
    return Graph(weights, peer(sources, targets, nodes))


def by_dgl(sources: Tensor, targets: Tensor, nodes: int) -> Neighbours:
    """DGL's message passing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dgl
        from dgl import function

    graph = dgl.graph((sources, targets), num_nodes=nodes)
    message, total = function.u_mul_e("layer", "weight", "message"), function.sum("message", "total")

    def neighbours(layer: Tensor, weights: Tensor) -> Tensor:
        with graph.local_scope():
            graph.ndata["layer"], graph.edata["weight"] = layer, weights
            graph.update_all(message, total)
            return graph.ndata["total"]

    return neighbours


def by_torch(sources: Tensor, targets: Tensor, nodes: int) -> Neighbours:
    """torch's compressed rows, and its own gradient of the product."""
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(targets, minlength=nodes).cumsum(0)])
    indptr, indices = indptr.int(), sources.int()

    def neighbours(layer: Tensor, weights: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns once per process that CSR is in beta
            return torch.sparse_csr_tensor(indptr, indices, weights, (nodes, nodes), check_invariants=False) @ layer

    return neighbours


PEERS = {"dgl": by_dgl, "torch": by_torch}


def build_triples(batch: Batch) -> Tensor:
    """Users, positives and negatives of a batch (3, size), as nodes of its domain."""
    users, items = batch.pattern.users.forward.indices, batch.pattern.items.indices.view(batch.size, -1)
    return torch.from_numpy(batch.nodes)[torch.stack([users, items[:, 0], items[:, 1]]).long()].long()


def load_pairs(artifact: Artifact, world: MultiDomainData) -> list[Pairs]:
    """All ordered pairs of domains that have aligned pairs."""
    results = []
    for source, source_domain in enumerate(world.domains):
        for target, target_domain in enumerate(world.domains):
            names = {"source_domain": source_domain.name, "target_domain": target_domain.name}
            table = artifact.read(["source_node", "target_node"], **names)
            if table.num_rows:
                nodes = (torch.from_numpy(column.to_numpy().astype(np.int64)) for column in table.columns)
                results.append(Pairs(source, target, *nodes))
    return results
