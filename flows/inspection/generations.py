"""The generations of a run's name: when they were made, how accurate they are, and by which settings they differ."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from data_contracts.contracts import MACRO, METRICS
from data_contracts.store.files import DamagedFileError
from data_contracts.store.runs import Attempt, RunRecord, generation_id
from data_contracts.store.store import Store
from flows.config.run_config import flatten
from flows.output.tables import Table, metric_values

log = logging.getLogger(__name__)

_MEASURE = "full_ndcg@20"
_NEVER_SHOWN = ("name", "store", "update")
_CHANGE_NOTHING = ("compute.", "tracking.", "serve.")


def describe_all(store: Store) -> list[dict[str, Any]]:
    """Every generation of every name; a name whose records cannot be read has a row that says so, and a warning."""
    described = []
    for name in store.run_names():
        try:
            described += describe_generations(name, store)
        except DamagedFileError as error:
            log.warning("%s", error)
            described.append({"run": name, "state": "damaged", "at": None, _MEASURE: None, "settings": {}})
    return described


def describe_generations(name: str, store: Store) -> list[dict[str, Any]]:
    """Every generation of a name, the present one first, and an attempt that did not end as one.

    Raises:
        FileNotFoundError: no run of that name.
    """
    present, *others = store.generations(name)
    described = [_describe(record, present, store) for record in (present, *others) if record.config is not None]
    if present.attempt and generation_id(present.attempt.config) != present.generation:
        described.append(_describe_attempt(present.attempt, present))
    return described


def _describe(record: RunRecord, present: RunRecord, store: Store) -> dict[str, Any]:
    metrics = store.recorded(record).get(METRICS.name)
    values = metric_values(metrics) if metrics and metrics.is_readable else {}
    state = "present" if record is present else "complete" if record.is_whole else "partial"
    return {
        "run": f"{record.name}@{record.generation}",
        "state": state,
        "at": record.at or None,
        _MEASURE: values.get((MACRO, _MEASURE), {}).get("value"),
        "settings": _differences(record.config or {}, present),
    }


def _describe_attempt(attempt: Attempt, present: RunRecord) -> dict[str, Any]:
    return {
        "run": f"{present.name}@{generation_id(attempt.config)}",
        "state": "not finished",
        "at": attempt.at,
        _MEASURE: None,
        "settings": _differences(attempt.config, present),
    }


def _differences(config: Mapping[str, Any], present: RunRecord) -> dict[str, Any]:
    """Settings that differ from those of the present generation."""
    settings = dict(flatten(present.config or {}))
    return {
        key: value
        for key, value in flatten(config)
        if settings.get(key) != value and key not in _NEVER_SHOWN and not key.startswith(_CHANGE_NOTHING)
    }


def generations_table(store: Store, generations: list[dict[str, Any]]) -> Table:
    """The table that `edda runs` prints."""
    header = ("run", "state", "recorded", f"{MACRO} {_MEASURE}", "settings that differ from the present one's")
    rows = tuple(
        (
            row["run"],
            row["state"],
            row["at"] or "–",
            "–" if row[_MEASURE] is None else f"{row[_MEASURE]:.4f}",
            ", ".join(f"{key}={value}" for key, value in row["settings"].items()) or "–",
        )
        for row in generations
    )
    return Table(f"Runs in {store}", header, rows, left=True)
