"""PLE, progressive layered extraction (Tang et al., RecSys 2020): experts of each domain beside shared ones.

embedding ─┬─ experts of the domain ─┬─ gate ─ experts of the domain ─┬─ gate ─ head
           ├─ shared experts ────────┤                                │
           └─ others' experts ───────┴─ gate ─ shared experts ────────┘
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.baselines.networks import Design, Experts, Gates, Heads


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
