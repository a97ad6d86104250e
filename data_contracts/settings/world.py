"""The settings of a generated world."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from data_contracts.settings.base import Seed, Settings, Share


class WorldSettings(Settings):
    """A generated world of domains that share users, items and tastes."""

    domains: int = Field(4, ge=1, le=64)
    """Domains; each is `shrink` times as large as the one before."""
    users: int = Field(2400, ge=10)
    """Users of the largest domain."""
    items: int = Field(1500, ge=10)
    """Items of the largest domain."""
    interactions: int = Field(60_000, ge=10)
    """Interactions of the largest domain, before duplicates are merged; one per user at least."""
    shrink: float = Field(0.5, gt=0.0, le=1.0)
    """Size of each domain relative to the one before."""
    shared_users: Share = 0.3
    """Share of a smaller domain's users who also use the largest, under the same id."""
    shared_items: Share = 0.2
    """Share of a smaller domain's items that the largest also offers, under the same id."""
    twins: Share = 0.1
    """Share of a smaller domain's users who also use the largest under another id: the planted twins."""
    topics: int = Field(24, ge=2)
    """Topics that items belong to and tastes are made of."""
    seed: Seed = 7
    """Seed of the world."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.shared_users + self.twins > 1.0:
            raise ValueError(f"shared_users + twins is {self.shared_users + self.twins}, must be ≤ 1")
        if self.interactions < self.users:
            raise ValueError(f"interactions is {self.interactions}, must be ≥ users ({self.users})")
        return self
