"""Two-tower forms of multi-domain networks: an embedding and the domain go in, a final vector comes out.

Users and items of all domains have one embedding each; one network turns users' embeddings into vectors, another
items'. A score is the dot product of two vectors, so that all items can be ranked and exported as for EDDA.

Differs: the networks come from click models, which see user and item at once; here they meet in the dot product only,
and learn from the same triples by the same BPR loss as EDDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from data_contracts.train_settings import TrainSettings
from model.baselines.networks import Design, Mmoe, Ple, SharedBottom, Star
from model.compute.threads import torch_threads
from model.data.batches import Batch
from model.data.dataset import World
from model.edda.losses import bpr, half_squares
from model.learners.base import Baseline, Lesson, Measure, ahead, descend, mean_losses
from model.learners.divergence import Course
from model.learners.row_adam import RowAdam
from model.sparse.batch_scores import pair_scores
from model.sparse.matrix import take_rows
from model.sparse.rows import Ints

_NETWORKS: Mapping[str, Callable[[Design], nn.Module]] = {
    "shared-bottom": SharedBottom,
    "mmoe": Mmoe,
    "ple": Ple,
    "star": Star,
}


class Towers(nn.Module):
    """One embedding for each node of the union, one network for users and one for items."""

    def __init__(self, settings: TrainSettings, world: World, seed: int) -> None:
        super().__init__()
        draws = generator(seed, "embeddings").standard_normal((world.nodes, settings.width), dtype="float32")
        self.embeddings = nn.Parameter(torch.from_numpy(draws) * settings.initial_spread)
        network = _NETWORKS[settings.model]
        designs = [Design(settings, len(world.domains), seed, kind) for kind in ("user", "item")]
        self.users, self.items = (network(design) for design in designs)

    def forward(self, embeddings: Tensor, users: int, domain: int) -> Tensor:
        """Final vectors in a domain; the first `users` of the embeddings are users', the rest items'."""
        return torch.cat([self.users(embeddings[:users], domain), self.items(embeddings[users:], domain)])


class TwoTower(Baseline):
    """Embeddings and networks in training, by Adam.

    On one thread: the order of summation in torch's products of small matrices depends on the number of threads.
    """

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson)
        self.towers = Towers(lesson.settings, lesson.network.world, lesson.seed).to(lesson.device)
        self._optimiser = RowAdam(self.towers.parameters(), lesson.settings.learning_rate)

    def learn(self, course: Course) -> list[Measure]:
        """Every domain's batches."""
        lesson = self.lesson
        losses: dict[int, list[tuple[float, int]]] = {}
        with torch_threads(1):
            for number, place, batch in ahead(lesson.batches(course.epoch)):
                rows = _rows(lesson.network.world.domains[number].union[batch.nodes], lesson.device)
                self._optimiser.reads(self.towers.embeddings, rows)
                loss = descend(self._optimiser, self.loss(batch, number))
                course.check_loss(loss, lesson.network.world.domains[number].name, f"batch {place}")
                losses.setdefault(number, []).append((loss, batch.size))
            self._optimiser.settle()
        return mean_losses(losses, lesson, course.epoch)

    def loss(self, batch: Batch, number: int) -> Tensor:
        """BPR of a batch's triples plus `l2` times half their embeddings' squared norms per triple.

        A batch's distinct nodes are ascending: users before items.
        """
        domain, device = self.lesson.network.world.domains[number], self.lesson.device
        embeddings = take_rows(self.towers.embeddings, _rows(domain.union[batch.nodes], device))
        vectors = self.towers(embeddings, int(np.sum(batch.nodes < domain.users)), number)
        scores = pair_scores(batch.pairing.to(device), vectors, self.lesson.network.multiply)
        squares = half_squares(embeddings, batch.counts.to(device))
        return bpr(scores) + self.lesson.settings.l2 * squares / batch.size

    @torch.no_grad()
    def vectors(self) -> Iterator[Tensor]:
        """What the networks make of every node of a domain."""
        for number, domain in enumerate(self.lesson.network.world.domains):
            embeddings = self.towers.embeddings[_rows(domain.union, self.lesson.device)]
            with torch_threads(1):
                vectors = self.towers(embeddings, domain.users, number)
            yield vectors

    def state(self) -> dict[str, Any]:
        """Embeddings, networks and Adam's moments."""
        return {"towers": self.towers.state_dict(), "optimiser": self._optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Fill towers and optimiser."""
        self.towers.load_state_dict(state["towers"])
        self._optimiser.load_state_dict(state["optimiser"])


def _rows(nodes: Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(nodes.astype(np.int64)).to(device)
