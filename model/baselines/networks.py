"""What the networks of the two-tower baselines are built from; every weight is drawn by its name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_contracts.training import TrainSettings
from model.draws import generator


class Design:
    """Sizes of a network and the seed of its weights.

    Attributes:
        domains: how many.
        width: columns of the vectors that go in and come out.
        hidden: units of a hidden layer.
        experts: number of experts.
    """

    def __init__(self, settings: TrainSettings, domains: int, seed: int, name: str) -> None:
        self.domains = domains
        self.width, self.hidden, self.experts = settings.width, settings.hidden, settings.experts
        self._seed, self._name = seed, name

    def weights(self, name: str, *shape: int) -> nn.Parameter:
        """Weights (…, inputs, outputs), uniform with variance 2 / inputs: ReLU halves it."""
        draws = generator(self._seed, "network", self._name, name).random(shape, dtype="float32")
        bound = (6.0 / shape[-2]) ** 0.5
        return nn.Parameter((torch.from_numpy(draws) * 2.0 - 1.0) * bound)

    def zeros(self, *shape: int) -> nn.Parameter:
        """Biases, 0 at the start."""
        return nn.Parameter(torch.zeros(shape))


class Experts(nn.Module):
    """Groups of experts, each one hidden layer with ReLU."""

    def __init__(self, design: Design, name: str, groups: int, inputs: int) -> None:
        super().__init__()
        self.weights = design.weights(name, groups, design.experts, inputs, design.hidden)
        self.biases = design.zeros(groups, design.experts, 1, design.hidden)

    def forward(self, vectors: Tensor, group: int) -> Tensor:
        """Opinions of a group's experts: (nodes, inputs) → (experts, nodes, hidden)."""
        return torch.relu(vectors @ self.weights[group] + self.biases[group])


class Gates(nn.Module):
    """For each of several purposes a softmax over opinions, linear in the vector it is given."""

    def __init__(self, design: Design, name: str, purposes: int, inputs: int, opinions: int) -> None:
        super().__init__()
        self.weights = design.weights(name, purposes, inputs, opinions)

    def forward(self, vectors: Tensor, purpose: int, opinions: Tensor) -> Tensor:
        """Weighted sum of opinions (opinions, nodes, hidden) → (nodes, hidden)."""
        shares = torch.softmax(vectors @ self.weights[purpose], dim=1)
        return (shares.T.unsqueeze(2) * opinions).sum(dim=0)


class Heads(nn.Module):
    """A linear layer for each domain, from hidden units to final vectors."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.weights = design.weights("heads", design.domains, design.hidden, design.width)
        self.biases = design.zeros(design.domains, design.width)

    def forward(self, hidden: Tensor, domain: int) -> Tensor:
        """(nodes, hidden) → (nodes, width)."""
        return hidden @ self.weights[domain] + self.biases[domain]
