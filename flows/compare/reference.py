"""The popularity run of a store: the reference that every accuracy is read against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flows.output.tables import Table
from flows.runner.lookup import RunView

REFERENCE = "popularity, mean"
"""First cell of a reference row."""


def ranks_by_popularity(config: Mapping[str, Any]) -> bool:
    """Whether a run with these settings ranks by nothing but popularity."""
    evidence = config.get("blend", {}).get("evidence", False)
    return config.get("train", {}).get("model") == "popularity" and not evidence


def find_popularity(runs: Iterable[RunView]) -> RunView | None:
    """The first of some runs that ranks by popularity alone."""
    return next((run for run in runs if ranks_by_popularity(run.config)), None)


def knows_each_domain_alone(config: Mapping[str, Any]) -> bool:
    """Whether a run with these settings is EDDA's model without anything from other domains."""
    train = config.get("train", {})
    if train.get("model") != "edda" or train.get("tables") != "intra":
        return False
    evidence = config.get("blend", {}).get("evidence", False)
    return not evidence or config.get("neighbours", {}).get("scope") == "domain"


def with_reference(table: Table, cells: Iterable[str]) -> Table:
    """The same table with popularity's means as the last row."""
    return Table(table.title, table.header, (*table.rows, (REFERENCE, *cells)), table.left)
