"""How long work tells how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called with the units done so far and in all."""

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Tell."""


def silent(done: int, total: int, unit: str) -> None:
    """Nobody listens."""
