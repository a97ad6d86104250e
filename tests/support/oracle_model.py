"""Slow, obvious versions of what the model computes: dense matrices, loops, sorting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import eval_jacobi
from tiny_world import rows_of
from torch import Tensor

from model.data.batches import Batch
from model.data.dataset import DomainData, MultiDomainData
from model.edda.model import Edda


def adjacency(domain: DomainData) -> NDArray[np.float64]:
    """Dense train graph of a domain."""
    dense = np.zeros((domain.nodes, domain.nodes))
    for node in range(domain.nodes):
        dense[node, domain.indices[domain.indptr[node] : domain.indptr[node + 1]]] = 1.0
    return dense


def normalised(dense: NDArray[np.float64]) -> Tensor:
    """D^-1/2 A D^-1/2, zero where a node has no edge."""
    degree = dense.sum(axis=1)
    root = np.where(degree > 0, 1.0 / np.sqrt(np.maximum(degree, 1.0)), 0.0)
    return torch.from_numpy(root[:, None] * dense * root[None, :])


def propagated(table: Tensor, dense: NDArray[np.float64], backbone: str, layers: int, residual: float) -> Tensor:
    """GRec, LightGCN, JGCF or nothing, by dense products in float64; JGCF by the graph's eigenvectors."""
    matrix, layer = normalised(dense), table.double()
    if backbone == "mf":
        return layer
    if backbone == "jgcf":
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
        responses = [eval_jacobi(degree, 1, 1, eigenvalues.numpy()) for degree in range(layers + 1)]
        return eigenvectors @ (torch.from_numpy(np.mean(responses, axis=0))[:, None] * (eigenvectors.T @ layer))
    total = layer
    for _ in range(layers):
        layer = matrix @ layer if backbone == "lightgcn" else (1 - residual) * matrix @ layer + residual * layer
        total = total + layer
    return total / (layers + 1) if backbone == "lightgcn" else layer


def inter_adjacencies(dataset: MultiDomainData) -> list[NDArray[np.float64]]:
    """For each domain, the edges of any domain that touch its items, over the union's nodes."""
    union = np.zeros((dataset.nodes, dataset.nodes))
    for domain in dataset.domains:
        union[np.ix_(domain.union_nodes, domain.union_nodes)] = np.maximum(
            union[np.ix_(domain.union_nodes, domain.union_nodes)], adjacency(domain)
        )
    dense = []
    for domain in dataset.domains:
        offered = np.zeros(dataset.nodes, bool)
        offered[domain.union_nodes[domain.users :]] = True
        dense.append(union * (offered[:, None] | offered[None, :]))
    return dense


def union_adjacency(dataset: MultiDomainData) -> NDArray[np.float64]:
    """All domains' edges over the union's nodes."""
    return np.maximum.reduce(inter_adjacencies(dataset))


def final_vectors(
    model: Edda,
    dataset: MultiDomainData,
    number: int,
    backbone: str,
    layers: int,
    residual: float,
    *,
    union: bool = False,
) -> Tensor:
    """[inter | intra] of one domain's nodes, differentiable."""
    domain = dataset.domains[number]
    graphs = [union_adjacency(dataset)] if union else inter_adjacencies(dataset)
    parts = []
    for table in model.inter:
        outputs = [propagated(table, dense, backbone, layers, residual) for dense in graphs]
        parts.append(torch.stack(outputs).mean(dim=0)[torch.from_numpy(domain.union_nodes).long()])
    if number in model.intra:
        parts.append(propagated(model.intra[number], adjacency(domain), backbone, layers, residual))
    return torch.cat(parts, dim=1)


def bpr_loss(
    model: Edda, dataset: MultiDomainData, number: int, batch: Batch, vectors: Tensor, penalties: tuple[float, float]
) -> Tensor:
    """The loss of a batch, row by row; the penalty counts the user, the positive and the first negative of a row."""
    domain = dataset.domains[number]
    total = torch.zeros((), dtype=torch.float64)
    for user, positive, *negatives in rows_of(batch):
        for negative in negatives:
            margin = vectors[user] @ vectors[positive] - vectors[user] @ vectors[negative]
            total = total - torch.nn.functional.logsigmoid(margin) / len(negatives)
        for node in (user, positive, negatives[0]):
            for table in model.inter:
                total = total + penalties[0] * 0.5 * table[int(domain.union_nodes[node])].double().square().sum()
            if number in model.intra:
                total = total + penalties[1] * 0.5 * model.intra[number][int(node)].double().square().sum()
    return total / batch.size


def pessimistic_rank(scores: NDArray[np.float64], item: int, masked: set[int]) -> int:
    """Rank of an item among all unmasked ones when every tie goes against it."""
    return sum(1 for other in range(scores.size) if other not in masked and scores[other] >= scores[item])


def best_items(scores: NDArray[np.float64], masked: set[int], top: int) -> list[int]:
    """Unmasked items by descending score, then by number."""
    return sorted(set(range(scores.size)) - masked, key=lambda item: (-scores[item], item))[:top]


def assert_gradients_are_close(model: torch.nn.Module, oracle: torch.nn.Module, atol: float, rtol: float) -> None:
    """The same parameters have gradients, and these are close."""
    for parameter, expected in zip(model.parameters(), oracle.parameters(), strict=True):
        assert (parameter.grad is None) == (expected.grad is None)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad.to_dense(), expected.grad, atol=atol, rtol=rtol)
