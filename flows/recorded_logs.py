"""The log files of a recorded run: enough for the keys of all that follows, on a machine that has no logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.contracts import INTERACTIONS, REJECTS
from data_contracts.settings import LogSource
from data_contracts.store import Store
from flows.config import RunConfig

_SAME = ("logs", "world", "ingest")
"""Settings that decide what ingest reads, and how."""


def recorded_logs(config: RunConfig, store: Store) -> tuple[Any, ...] | None:
    """The log files that ingest read for the run's record; their content is not at hand.

    Returns:
        As `pipeline.logs.find_logs`. None where the run is not recorded, was recorded with other logs or settings of
        ingest, or where what ingest made of them is not in the store any more: then they must be read.
    """
    from pipeline.logs import LogFile

    artifacts, details = store.find_run(config.name) or ({}, {})
    now = config.model_dump(mode="json")
    if not {REJECTS.name, INTERACTIONS.name} <= artifacts.keys():
        return None
    if any(details["config"].get(key) != now[key] for key in _SAME):
        return None
    rejects, interactions = (store.find(c, artifacts[c.name].folder.name) for c in (REJECTS, INTERACTIONS))
    if rejects is None or interactions is None:
        return None
    versions = details.get("log_versions", {})
    return tuple(
        LogFile(
            Path(file["name"]),
            size=0,
            version=versions.get(file["name"], ""),
            **{**file, "source": LogSource(path=file["name"], **file["source"])},
        )
        for file in interactions.manifest.settings["files"]
    )
