"""The settings of what comes after training: blend, metrics, recommendations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from data_contracts.settings.base import Protocol, Seed, Settings


class BlendSettings(Settings):
    """Checkpoint and neighbours → how much evidence from walks weighs beside the vectors."""

    evidence: bool = True
    """Rank by vectors and by walks from the items a user knows; false: by vectors alone, as in [EDDA]."""
    users: int = Field(20_000, ge=1)
    """Validation users of each domain, at most, by whom the weight is fitted; drawn where there are more."""
    seed: Seed = 2022
    """Seed of that draw."""

    def keyed(self) -> dict[str, Any]:
        """The settings that the fit depends on. Without evidence there is no fit, so `evidence` is left out."""
        return self.model_dump(mode="json", exclude={"evidence"})


class EvaluateSettings(Settings):
    """Checkpoint → metrics."""

    protocol: Protocol = "clean"
    """clean: candidates exclude the user's known positives; released: they may be among them."""
    candidates: int = Field(10, ge=1)
    """Random items ranked against each held-out item."""
    candidate_seed: Seed = 2022
    """Seed of the candidates."""
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3)
    """Cut-offs among the candidates."""
    full_at: tuple[Annotated[int, Field(ge=1)], ...] = (20,)
    """Cut-offs among all items of the domain, train items masked."""
    resamples: int = Field(200, ge=2)
    """Bootstrap resamples of the held-out rows behind the 95 % intervals."""
    users: int | None = Field(None, ge=1)
    """Users of each domain who are measured on a held-out split, at most, drawn where there are more; all by default.
    For logs of many millions of rows, where ranking all items for everybody takes hours."""

    def keyed(self) -> dict[str, Any]:
        """All settings, without `users` at its default: keys are those of versions without it."""
        return self.model_dump(mode="json", exclude={"users"} if self.users is None else set())


class ExportSettings(Settings):
    """Checkpoint → embeddings and recommendations."""

    top: int = Field(20, ge=1)
    """Recommendations per user and domain."""
    why: bool = False
    """Fill the columns of recommendations that say why: items of the user's history, their domains and shares."""

    def keyed(self) -> dict[str, Any]:
        """The settings that enter the key of embeddings; `why` only adds to lists."""
        return self.model_dump(mode="json", exclude={"why"})

    def keyed_lists(self) -> dict[str, Any]:
        """The settings that enter the key of recommendations."""
        return self.model_dump(mode="json")
