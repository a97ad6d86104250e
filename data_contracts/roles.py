"""What an artifact is to a run: its contract, its training seed, whether it is of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from data_contracts.contracts import CONTRACTS
from data_contracts.schema import Contract

BEFORE = "before"
"""Suffix, after a hyphen, of the role of an artifact that an update continues from: it is of an earlier run."""


@dataclass(frozen=True)
class Role:
    """The role of an artifact in a run: `nodes`, `checkpoint-2022`, or among an update's parents `nodes-before`."""

    contract: Contract
    seed: int | None = None
    """Training seed, if a run has one artifact of the contract for each seed."""
    is_previous: bool = False
    """The artifact is of an earlier run, which an update continues from."""

    @property
    def previous(self) -> Role:
        """The same role in an earlier run."""
        return replace(self, is_previous=True)

    def __str__(self) -> str:
        """The role as in records, manifests and commands."""
        seed = [] if self.seed is None else [str(self.seed)]
        return "-".join([self.contract.name, *seed, *([BEFORE] if self.is_previous else [])])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a role.

        Raises:
            KeyError: the text does not begin with a contract's name.
            ValueError: what follows the name is neither a seed nor `before`.
        """
        name, *suffixes = text.split("-")
        is_previous = suffixes[-1:] == [BEFORE]
        seeds = [int(suffix) for suffix in suffixes[: len(suffixes) - is_previous]]
        if len(seeds) > 1:
            raise ValueError(f"role {text!r}: must be a contract's name, a seed and {BEFORE!r}, the last two optional")
        return cls(CONTRACTS[name], seeds[0] if seeds else None, is_previous)
