"""Shared bottom: one hidden layer for all domains, then a head for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.baselines.networks import Design, Heads


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
