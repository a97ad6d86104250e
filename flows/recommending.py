"""Look up what a run recommends to one user."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import RECOMMENDATIONS
from flows.inspection import find_run

log = logging.getLogger(__name__)


class UnknownError(ValueError):
    """A domain or user that the run does not have, with the nearest it has."""


def best_items(run: str, domain: str, user: str, top: int, store: Path | None) -> list[tuple[int, str, float]]:
    """The best items for a user as rank, item id and score, best first.

    Args:
        run: a run's name in the store, or its TOML file.
        domain: domain to recommend in.
        user: the user's id as in the logs.
        top: most items to return.
        store: folder of all artifacts; without it the file's, else the default.

    Raises:
        UnknownError: the run has no recommendations, or none of this domain or user.
    """
    _, artifacts, missing = find_run(run, store)
    if RECOMMENDATIONS.name not in artifacts:
        remedy = missing or "make them with: edda export RUN.toml"
        raise UnknownError(f"run {run} has no recommendations yet; {remedy}")
    if missing:
        log.warning("%s; what follows was made before", missing)
    rows = _rows(artifacts[RECOMMENDATIONS.name], domain, user)
    if top > artifacts[RECOMMENDATIONS.name].manifest.settings["top"]:
        rows = _scored(artifacts, domain, user, top)
    return [(row["rank"], row["item_id"], row["score"]) for row in rows[:top]]


def _scored(artifacts: dict[str, Artifact], domain: str, user: str, top: int) -> list[dict[str, Any]]:
    """More than was exported: from the embeddings."""
    from model.export import recommend

    found: list[dict[str, Any]] = recommend(artifacts, domain, user, top).to_pylist()
    return found


def _rows(recommendations: Artifact, domain: str, user: str) -> list[dict[str, Any]]:
    domains = [partition["domain"] for partition in recommendations.partitions()]
    if domain not in domains:
        raise UnknownError(f"domain {domain!r} is unknown; known: {', '.join(domains)}")
    table = recommendations.read(["user_id", "item_id", "score", "rank"], domain=domain)
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["user_id"], user)).sort_by("rank").to_pylist()
    if not rows:
        users = pc.unique(table["user_id"]).to_pylist()
        near = difflib.get_close_matches(user, users[:100_000], n=3) or users[:3]
        raise UnknownError(f"user {user!r} is not in domain {domain!r} ({len(users):,} users); near: {', '.join(near)}")
    return rows
