"""The networks of the two-tower baselines and their layers. Attributes name the tensors of saved states."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_contracts.seeding import generator
from data_contracts.settings.train import TrainSettings


class NetworkBuilder:
    """Sizes of a network, and its initial weights, each drawn by its name.

    Attributes:
        domains: number of domains.
        width: columns of input and output vectors.
        hidden: units of a hidden layer.
        experts: number of experts.
    """

    def __init__(self, settings: TrainSettings, domains: int, seed: int, name: str) -> None:
        self.domains = domains
        self.width, self.hidden, self.experts = settings.width, settings.hidden, settings.experts
        self._seed, self._name = seed, name

    def weights(self, name: str, *shape: int) -> nn.Parameter:
        """Weights (…, inputs, outputs), uniform with variance 2 / inputs, which ReLU halves."""
        draws = generator(self._seed, "network", self._name, name).random(shape, dtype="float32")
        bound = (6.0 / shape[-2]) ** 0.5
        return nn.Parameter((torch.from_numpy(draws) * 2.0 - 1.0) * bound)

    def zeros(self, *shape: int) -> nn.Parameter:
        """Biases, initially 0."""
        return nn.Parameter(torch.zeros(shape))


class Experts(nn.Module):
    """Groups of experts, each one hidden layer with ReLU."""

    def __init__(self, builder: NetworkBuilder, name: str, groups: int, inputs: int) -> None:
        super().__init__()
        self.weights = builder.weights(name, groups, builder.experts, inputs, builder.hidden)
        self.biases = builder.zeros(groups, builder.experts, 1, builder.hidden)

    def forward(self, vectors: Tensor, group: int) -> Tensor:
        """Outputs of a group's experts: (nodes, inputs) → (experts, nodes, hidden)."""
        return torch.relu(vectors @ self.weights[group] + self.biases[group])


class Gates(nn.Module):
    """For each of several tasks a softmax over experts' outputs, whose logits are linear in the input vector."""

    def __init__(self, builder: NetworkBuilder, name: str, tasks: int, inputs: int, experts: int) -> None:
        super().__init__()
        self.weights = builder.weights(name, tasks, inputs, experts)

    def forward(self, vectors: Tensor, task: int, outputs: Tensor) -> Tensor:
        """Weighted sum of outputs: (experts, nodes, hidden) → (nodes, hidden)."""
        shares = torch.softmax(vectors @ self.weights[task], dim=1)
        return (shares.T.unsqueeze(2) * outputs).sum(dim=0)


class Heads(nn.Module):
    """A linear layer for each domain, from hidden units to final vectors."""

    def __init__(self, builder: NetworkBuilder) -> None:
        super().__init__()
        self.weights = builder.weights("heads", builder.domains, builder.hidden, builder.width)
        self.biases = builder.zeros(builder.domains, builder.width)

    def forward(self, hidden: Tensor, domain: int) -> Tensor:
        """(nodes, hidden) → (nodes, width)."""
        return hidden @ self.weights[domain] + self.biases[domain]


class Ple(nn.Module):
    """Progressive layered extraction: two levels of experts, of which some are a domain's own and some are shared."""

    def __init__(self, builder: NetworkBuilder) -> None:
        super().__init__()
        groups, both = builder.domains + 1, 2 * builder.experts
        self.shared = builder.domains
        self.first, self.second = (
            Experts(builder, name, groups, size)
            for name, size in (("first", builder.width), ("second", builder.hidden))
        )
        self.own = Gates(builder, "own", builder.domains, builder.width, both)
        self.all = Gates(builder, "all", 1, builder.width, groups * builder.experts)
        self.last = Gates(builder, "last", builder.domains, builder.hidden, both)
        self.heads = Heads(builder)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        outputs = [self.first(embeddings, group) for group in range(self.shared + 1)]
        own = self.own(embeddings, domain, torch.cat([outputs[domain], outputs[self.shared]]))
        common = self.all(embeddings, 0, torch.cat(outputs))
        second = torch.cat([self.second(own, domain), self.second(common, self.shared)])
        vectors: Tensor = self.heads(self.last(own, domain, second), domain)
        return vectors


class SharedBottom(nn.Module):
    """One hidden layer shared by all domains, then a head for each domain."""

    def __init__(self, builder: NetworkBuilder) -> None:
        super().__init__()
        self.weights, self.biases = (
            builder.weights("bottom", builder.width, builder.hidden),
            builder.zeros(builder.hidden),
        )
        self.heads = Heads(builder)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        vectors: Tensor = self.heads(torch.relu(embeddings @ self.weights + self.biases), domain)
        return vectors


class Mmoe(nn.Module):
    """Mixture of experts shared by all domains; each domain has its own gate and head."""

    def __init__(self, builder: NetworkBuilder) -> None:
        super().__init__()
        self.experts = Experts(builder, "experts", 1, builder.width)
        self.gates = Gates(builder, "gates", builder.domains, builder.width, builder.experts)
        self.heads = Heads(builder)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        mixed = self.gates(embeddings, domain, self.experts(embeddings, 0))
        vectors: Tensor = self.heads(mixed, domain)
        return vectors


class Star(nn.Module):
    """Two layers in star topology; domains' factors start at 1, so that all domains start with the shared weights."""

    def __init__(self, builder: NetworkBuilder) -> None:
        super().__init__()
        self.first = StarLayer(builder, "first", builder.width, builder.hidden)
        self.second = StarLayer(builder, "second", builder.hidden, builder.width)

    def forward(self, embeddings: Tensor, domain: int) -> Tensor:
        """Final vectors in a domain: (nodes, width) → (nodes, width)."""
        vectors: Tensor = self.second(torch.relu(self.first(embeddings, domain)), domain)
        return vectors


class StarLayer(nn.Module):
    """A linear layer: shared weights times the domain's, shared biases plus the domain's."""

    def __init__(self, builder: NetworkBuilder, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weights, self.biases = builder.weights(name, inputs, outputs), builder.zeros(outputs)
        self.own_weights = nn.Parameter(torch.ones(builder.domains, inputs, outputs))
        self.own_biases = builder.zeros(builder.domains, outputs)

    def forward(self, vectors: Tensor, domain: int) -> Tensor:
        """(nodes, inputs) → (nodes, outputs)."""
        return vectors @ (self.weights * self.own_weights[domain]) + (self.biases + self.own_biases[domain])
