"""Which peers can be imported."""

# mypy: ignore-errors
from __future__ import annotations

import importlib.util
import sys


def has_peer(name: str) -> bool:
    """Whether a peer can be imported; prints a line if not."""
    if importlib.util.find_spec(name) is None:
        print(f"{name} is not installed and is left out", file=sys.stderr)
        return False
    return True
