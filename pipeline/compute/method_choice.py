"""The method that a computation uses, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodChoice:
    """A method of those that the settings allow.

    Attributes:
        method: its name in the settings: exact, pruned or walk.
        reason: why it was chosen, with the predicted costs, as people read it.
    """

    method: str
    reason: str


ASKED_FOR = "asked for"
"""The reason where the settings name the method."""
