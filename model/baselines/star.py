"""STAR, star topology (Sheng et al., CIKM 2021): a domain's weights are shared ones times its own, entry by entry.

Differs: no partitioned normalisation and no auxiliary network, which predict clicks from features there are none of
here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.baselines.networks import Design


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
