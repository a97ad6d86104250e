"""One domain of a tiny world, loaded, with random vectors and random evidence."""

import numpy as np
import scipy.sparse as sp
import torch
from tiny_world import Tiny

from model.data.dataset import Interactions, MultiDomainData, load_dataset, load_interactions
from model.evidence.domain_evidence import DomainEvidence, Histories, build_evidence
from model.evidence.neighbours import ItemNeighbours


def random_neighbours(items: int, seed: int = 3) -> tuple[ItemNeighbours, np.ndarray]:
    """Sparse weights between items, some rows empty, and the same as a dense matrix."""
    random = np.random.default_rng(seed)
    dense = np.where(random.random((items, items)) < 0.2, random.random((items, items)), 0.0).astype(np.float32)
    dense[:: max(items // 3, 1)] = 0.0
    rows = sp.csr_array(dense)
    rows.sort_indices()
    return ItemNeighbours(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data), dense


class Loaded:
    """One domain of a tiny world with vectors and evidence."""

    def __init__(self, world: Tiny, name: str) -> None:
        self.dataset: MultiDomainData = load_dataset(world.parents["nodes"], world.parents["graph"])
        (self.domain,) = (domain for domain in self.dataset.domains if domain.name == name)
        self.rows: Interactions = load_interactions(world.parents["interactions"], self.domain, self.dataset)
        neighbours, self.dense = random_neighbours(self.dataset.items)
        histories = Histories.build(self.dataset, self.dataset.domains)
        self.evidence: DomainEvidence = build_evidence(self.dataset, self.domain, neighbours, histories)
        self.vectors = torch.randn(self.domain.nodes, 4, generator=torch.Generator().manual_seed(5))

    @property
    def dots(self) -> np.ndarray:
        users: int = self.domain.users
        return (self.vectors[:users] @ self.vectors[users:].T).numpy()
