"""The stages by name, and the contract that a role has."""

from __future__ import annotations

from data_contracts.contracts import CONTRACTS
from data_contracts.schema import Contract

STAGES = ("ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export")
"""Stages by their commands' names, in the order of a run; a generated world comes before them."""


def contract_of(role: str) -> Contract:
    """A role is a contract's name, and what tells it from others after a hyphen."""
    return CONTRACTS[role.split("-", maxsplit=1)[0]]
