"""What the networks of the two-tower baselines are built from; every weight is drawn by its name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from data_contracts.train_settings import TrainSettings


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


class Ple(nn.Module):
    """Two levels: the first also gathers, from all experts, what the shared experts of the second work on."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        groups, both = design.domains + 1, 2 * design.experts
        self.shared = design.domains
        self.first, self.second = (
            Experts(design, name, groups, size) for name, size in (("first", design.width), ("second", design.hidden))
        )
        self.own = Gates(design, "own", design.domains, design.width, both)
        self.all = Gates(design, "all", 1, design.width, groups * design.experts)
        self.last = Gates(design, "last", design.domains, design.hidden, both)
        self.heads = Heads(design)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        opinions = [self.first(embeddings, group) for group in range(self.shared + 1)]
        own = self.own(embeddings, domain, torch.cat([opinions[domain], opinions[self.shared]]))
        common = self.all(embeddings, 0, torch.cat(opinions))
        later = torch.cat([self.second(own, domain), self.second(common, self.shared)])
        vectors: Tensor = self.heads(self.last(own, domain, later), domain)
        return vectors


class SharedBottom(nn.Module):
    """What domains have in common is in the bottom, what sets them apart in the heads."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.weights, self.biases = design.weights("bottom", design.width, design.hidden), design.zeros(design.hidden)
        self.heads = Heads(design)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        hidden: Tensor = self.heads(torch.relu(embeddings @ self.weights + self.biases), domain)
        return hidden


class Mmoe(nn.Module):
    """Domains choose among the same experts, each by its own gate, before their heads."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.experts = Experts(design, "experts", 1, design.width)
        self.gates = Gates(design, "gates", design.domains, design.width, design.experts)
        self.heads = Heads(design)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        mixed = self.gates(embeddings, domain, self.experts(embeddings, 0))
        vectors: Tensor = self.heads(mixed, domain)
        return vectors


class Star(nn.Module):
    """Two layers in star form; a domain's own factors start at 1, so that all domains start with the shared weights."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.first = StarLayer(design, "first", design.width, design.hidden)
        self.second = StarLayer(design, "second", design.hidden, design.width)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        vectors: Tensor = self.second(torch.relu(self.first(embeddings, domain)), domain)
        return vectors


class StarLayer(nn.Module):
    """A linear layer: shared weights times the domain's, shared biases plus the domain's."""

    def __init__(self, design: Design, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weights, self.biases = design.weights(name, inputs, outputs), design.zeros(outputs)
        self.own_weights = nn.Parameter(torch.ones(design.domains, inputs, outputs))
        self.own_biases = design.zeros(design.domains, outputs)

    def forward(self, vectors: Tensor, domain: int) -> Tensor:
        """(nodes, inputs) → (nodes, outputs)."""
        return vectors @ (self.weights * self.own_weights[domain]) + (self.biases + self.own_biases[domain])
