"""Two-tower forms of multi-domain networks: from an embedding and a domain to a final vector.

Every user and item of the union has one embedding; one network turns users' embeddings into vectors, another one
items'. A score is the dot product of two vectors, so that all items can be ranked and exported as for EDDA.

Differs: the networks come from click models, which take user and item together; here these meet in the dot product
only, and the networks learn from the same triples by the same BPR loss as EDDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from data_contracts.settings.train import TrainSettings
from model.baselines.networks import Mmoe, NetworkBuilder, Ple, SharedBottom, Star
from model.compute.threads import torch_threads
from model.data.batches import Batch
from model.data.dataset import MultiDomainData
from model.edda.losses import half_squares
from model.edda.objectives import normalised
from model.learners.base import Baseline, Measure, TrainingData, mean_losses, optimizer_step, prefetch
from model.learners.divergence import EpochGuard
from model.learners.row_adam import RowAdam
from model.learners.thresholds import are_due, estimate_thresholds
from model.sparse.matrix import take_rows
from model.sparse.rows import Ints

_NETWORKS: Mapping[str, Callable[[NetworkBuilder], nn.Module]] = {
    "shared-bottom": SharedBottom,
    "mmoe": Mmoe,
    "ple": Ple,
    "star": Star,
}


class Towers(nn.Module):
    """One embedding for each node of the union, one network for users and one for items."""

    def __init__(self, settings: TrainSettings, dataset: MultiDomainData, seed: int) -> None:
        super().__init__()
        draws = generator(seed, "embeddings").standard_normal((dataset.nodes, settings.width), dtype="float32")
        self.embeddings = nn.Parameter(torch.from_numpy(draws) * settings.initial_spread)
        network = _NETWORKS[settings.model]
        builders = [NetworkBuilder(settings, len(dataset.domains), seed, kind) for kind in ("user", "item")]
        self.users, self.items = (network(builder) for builder in builders)

    def forward(self, embeddings: Tensor, users: int, domain: int) -> Tensor:
        """Final vectors in a domain; the first `users` embeddings are users', the others items'."""
        return torch.cat([self.users(embeddings[:users], domain), self.items(embeddings[users:], domain)])


class TwoTower(Baseline):
    """Embeddings and networks, trained by Adam.

    On one thread, because torch's products of small matrices sum in an order that depends on the number of threads.
    """

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.towers = Towers(data.settings, data.graphs.dataset, data.seed).to(data.device)
        self._optimiser = RowAdam(self.towers.parameters(), data.settings.learning_rate)
        self._thresholds: list[Tensor] = []

    def train_epoch(self, guard: EpochGuard) -> list[Measure]:
        """Train on the batches of all domains."""
        data = self.data
        losses: dict[int, list[tuple[float, int]]] = {}
        if data.settings.objective == "sl@k" and are_due(guard.epoch):
            estimates = estimate_thresholds(data.positives, self.vectors(), data.seed, guard.epoch, self.processes)
            self._thresholds = estimates
        with torch_threads(1):
            for index, number, batch in prefetch(data.batches(guard.epoch)):
                domain = data.graphs.dataset.domains[index]
                rows = _to_rows(domain.union_nodes[batch.nodes], data.device)
                self._optimiser.prepare_rows(self.towers.embeddings, rows)
                loss = optimizer_step(self._optimiser, self.loss(batch, index))
                guard.check_loss(loss, domain.name, f"batch {number}")
                losses.setdefault(index, []).append((loss, batch.size))
            self._optimiser.flush()
        return mean_losses(losses, data, guard.epoch)

    def loss(self, batch: Batch, index: int) -> Tensor:
        """The objective of a batch's triples plus `l2` times half their embeddings' squared norms per triple.

        Args:
            batch: its distinct nodes are ascending, users before items.
            index: of the domain.
        """
        domain, device = self.data.graphs.dataset.domains[index], self.data.device
        embeddings = take_rows(self.towers.embeddings, _to_rows(domain.union_nodes[batch.nodes], device))
        vectors = self.towers(embeddings, int(np.sum(batch.nodes < domain.users)), index)
        objective, pattern = self.data.objective, batch.pattern.to(device)
        thresholds = self._thresholds[index] if self._thresholds else None
        loss = objective.loss(pattern, objective.sums(pattern, vectors, self.data.graphs.multiply), thresholds)
        squares = half_squares(embeddings, batch.counts.to(device))
        return loss + self.data.settings.l2 * squares / batch.size

    @torch.no_grad()
    def vectors(self) -> Iterator[Tensor]:
        """The networks' output for every node of a domain, at length 1 if scores are cosines."""
        for index, domain in enumerate(self.data.graphs.dataset.domains):
            embeddings = self.towers.embeddings[_to_rows(domain.union_nodes, self.data.device)]
            with torch_threads(1):
                vectors = self.towers(embeddings, domain.users, index)
            yield normalised(vectors) if self.data.settings.ranks_by_cosine else vectors

    def state_dict(self) -> dict[str, Any]:
        """Embeddings, networks, Adam's moments and thresholds."""
        thresholds = {"thresholds": self._thresholds} if self._thresholds else {}
        return {"towers": self.towers.state_dict(), "optimiser": self._optimiser.state_dict(), **thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy embeddings, networks, moments and thresholds from a state."""
        self.towers.load_state_dict(state["towers"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._thresholds = [of_domain.to(self.data.device) for of_domain in state.get("thresholds", ())]


def _to_rows(nodes: Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(nodes.astype(np.int64)).to(device)
