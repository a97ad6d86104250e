"""The settings of ingest: how logs become interactions."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from data_contracts.settings.base import Protocol, Seed, Settings, Share
from data_contracts.settings.cut_offs import CutOff, is_later


class SplitSettings(Settings):
    """How interactions are divided into train, valid and test."""

    method: Literal["given", "random", "time", "leave-last-out"] = "random"
    """given: by column or path; random: per user and domain; time: by cut-offs; leave-last-out: a user's last two in a
    domain. A pair that lives in several domains: docs/data/logs.md."""
    valid_share: Share = 0.1
    """random: share of a user's interactions for validation."""
    test_share: Share = 0.2
    """random: share of a user's interactions for test."""
    seed: Seed = 2022
    """Seed of the draw: of random, and of the order of pairs at the same time in leave-last-out."""
    valid_from: CutOff | None = None
    """time: first time of the validation split: a number in the unit of the log, a date or ISO 8601 text (UTC), or how
    long before the log's last time it is, such as "30d" (s, m, h, d or w)."""
    test_from: CutOff | None = None
    """time: first time of the test split, as `valid_from`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "time" and (self.valid_from is None or self.test_from is None):
            raise ValueError("method 'time' needs valid_from and test_from")
        if self.method == "time" and is_later(self.valid_from, self.test_from):
            raise ValueError(f"valid_from is {self.valid_from}, must be ≤ test_from ({self.test_from})")
        if self.valid_share + self.test_share >= 1.0:
            raise ValueError(f"valid_share + test_share is {self.valid_share + self.test_share}, must be < 1")
        return self


class IngestSettings(Settings):
    """Raw logs → interactions and rejects."""

    protocol: Protocol = "clean"
    """clean: a pair held out in one domain is trained in none; released: each domain alone, repeated pairs stay."""
    split: SplitSettings = SplitSettings()
    """How interactions are divided."""
    cold: Literal["drop", "keep"] = "drop"
    """Held-out rows whose user or item has no train row in the domain."""
    rejected_share_at_most: Share = 0.01
    """The run fails if a larger share of the raw rows is malformed: of all rows, or of those of a source or domain
    that has ten or more."""
    kept_share_at_least: Share = 0.5
    """The run fails if a smaller share of the rows of a source, file or domain become interactions, or none at all; 0
    lets them vanish. Rows that are rated too low do not count, nor do leaked and cold rows of a file or of a split by
    random or leave-last-out."""
    line_bytes_at_most: int = Field(16 << 20, ge=1 << 10, le=1 << 30)
    """Longer lines of a log, and longer rows of Parquet, are rejected; memory grows with this, not with the file."""

    def keyed(self) -> dict[str, Any]:
        """All settings, without newer ones that have their default: keys are those of versions without them."""
        keyed = self.model_dump(mode="json")
        for name in ("line_bytes_at_most", "kept_share_at_least"):
            if getattr(self, name) == IngestSettings.model_fields[name].default:
                del keyed[name]
        return keyed
