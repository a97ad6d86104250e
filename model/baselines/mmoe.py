"""MMoE, multi-gate mixture of experts (Ma et al., KDD 2018): shared experts, mixed by a gate of each domain."""

from __future__ import annotations

from torch import Tensor, nn

from model.baselines.networks import Design, Experts, Gates, Heads


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
