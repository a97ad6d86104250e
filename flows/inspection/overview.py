"""An overview of a store: its runs, their sizes and accuracy, and what is missing of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_contracts.contracts import INTERACTIONS, MACRO, METRICS
from data_contracts.open_store import open_store
from data_contracts.store.store import Store
from flows.config.run_config import store_location
from flows.output.tables import Table, metric_values
from flows.runner.lookup import recorded_run

_AUC = MACRO, "auc"


def resolve_store(location: str, store: str | None) -> Store | None:
    """The store to list, or None.

    Args:
        location: a folder with runs or an address; another text names no store; an empty one names `store`.
        store: the store of the command's options; by default $EDDA_STORE or ./edda-store.
    """
    if not location:
        return open_store(store or store_location())
    return open_store(location) if "://" in location or (Path(location) / "runs").is_dir() else None


def overview(store: Store) -> dict[str, Any]:
    """The store's address and its runs, by name."""
    return {"store": str(store), "runs": [_describe_run(name, store) for name in store.run_names()]}


def overview_text(store: Mapping[str, Any], width: int | None = None) -> str:
    """An overview as text, for a terminal of this width."""
    header = "run", "made", "domains", "interactions", "macro test auc", "artifacts", "MiB"
    rows = tuple(
        (
            run["name"],
            run["made"] or "–",
            _number(run["domains"], "{:,}"),
            _number(run["interactions"], "{:,}"),
            _number(run["auc"], "{:.3f}"),
            str(run["artifacts"]),
            f"{run['bytes'] / 2**20:,.1f}",
        )
        for run in store["runs"]
    )
    title = f"Runs in {store['store']}{'' if rows else ': none'}"
    unfinished = [f"UNFINISHED: {run['unfinished']}" for run in store["runs"] if run["unfinished"]]
    return "\n".join([Table(title, header, rows).plain(width) if rows else title, *unfinished])


def _describe_run(name: str, store: Store) -> dict[str, Any]:
    view = recorded_run(name, store)
    artifacts = {role: artifact for role, artifact in view.artifacts.items() if artifact.is_readable}
    manifests = {role: artifact.manifest for role, artifact in artifacts.items()}
    interactions, metrics = artifacts.get(INTERACTIONS.name), artifacts.get(METRICS.name)
    return {
        "name": name,
        "made": max((manifest.made["at"] for manifest in manifests.values()), default=None),
        "domains": len(interactions.partitions()) if interactions else None,
        "interactions": manifests[INTERACTIONS.name].rows if interactions else None,
        "auc": metric_values(metrics).get(_AUC, {}).get("value") if metrics else None,
        "artifacts": len(artifacts),
        "bytes": sum(entry.size for manifest in manifests.values() for entry in manifest.files),
        "unfinished": view.missing,
    }


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
