"""Runs side by side: accuracy by domain and seed, differences to the first run, settings, what training cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
from scipy import stats

from data_contracts.contracts import CHECKPOINT, INTERACTIONS, METRICS, TEST
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.output.tables import metric_values
from flows.runner.execute import Outcome
from flows.runner.lookup import run_by_name, what_is_missing

log = logging.getLogger(__name__)

_NOT_COMPARED = ("name", "store", "compute", "export", "tune")
"""Settings that make no difference to accuracy."""


@dataclass(frozen=True)
class Compared:
    """One run of a comparison: its name, its settings as JSON, its artifacts by role."""

    name: str
    config: Mapping[str, Any]
    artifacts: Mapping[str, Artifact]

    @cached_property
    def by_seed(self) -> dict[tuple[str, str], dict[int, float]]:
        """Test value of every (domain, metric) by training seed."""
        table = self.artifacts[METRICS.name].read()
        table = table.filter(pc.and_(pc.equal(table["split"], TEST), pc.is_valid(table["seed"])))
        found: dict[tuple[str, str], dict[int, float]] = {}
        for row in table.to_pylist():
            found.setdefault((row["domain"], row["metric"]), {})[row["seed"]] = row["value"]
        return found

    @cached_property
    def values(self) -> dict[tuple[str, str], dict[str, float]]:
        """Test value and 95 % interval of every (domain, metric): over seeds, or of the held-out rows for one seed."""
        return metric_values(self.artifacts[METRICS.name])

    @cached_property
    def checkpoints(self) -> list[Artifact]:
        """One for each seed."""
        return [found for role, found in self.artifacts.items() if role.split("-", 1)[0] == CHECKPOINT.name]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that may make a difference, by dotted key."""
        return dict(flat({key: value for key, value in self.config.items() if key not in _NOT_COMPARED}))


@dataclass(frozen=True)
class Difference:
    """A run's value minus the first run's: the mean over the seeds both have, else of the two values.

    `p` is that of a two-sided t test paired by seed; None where fewer than two seeds are common.
    """

    value: float
    p: float | None
    seeds: int


def finished(outcome: Outcome) -> Compared:
    """A run that was just brought up to date."""
    return Compared(outcome.config.name, outcome.config.model_dump(mode="json"), outcome.artifacts)


def recorded(name: str, store: Store) -> Compared:
    """A run that the store knows by name.

    Raises:
        FileNotFoundError: the store has no such run.
        ValueError: it was not evaluated.
    """
    artifacts, record = run_by_name(name, store)
    missing = what_is_missing(name, store)
    if METRICS.name not in artifacts:
        raise ValueError(f"run {name!r} has no metrics yet; {missing or 'make them with: edda evaluate RUN.toml'}")
    if missing:
        log.warning("%s; what is compared was made before", missing)
    return Compared(name, record["config"], artifacts)


def difference(run: Compared, first: Compared, place: tuple[str, str]) -> Difference | None:
    """Compare one (domain, metric); None where one of the runs has no value."""
    if place not in run.values or place not in first.values:
        return None
    mine, theirs = run.by_seed[place], first.by_seed[place]
    paired = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    if not paired:
        return Difference(run.values[place]["value"] - first.values[place]["value"], None, 0)
    return Difference(math.fsum(paired) / len(paired), _p_of_zero_mean(paired), len(paired))


def cautions(runs: Sequence[Compared]) -> list[str]:
    """What makes runs unlike in more than the model: other interactions, other candidates."""
    found = []
    for run in runs[1:]:
        for role, what in ((INTERACTIONS.name, "interactions"), (METRICS.name, "candidates or metrics")):
            if _measured_on(run, role) != _measured_on(runs[0], role):
                found.append(f"{run.name} was measured on other {what} than {runs[0].name}")
    return found


def cost(run: Compared) -> dict[str, float | None]:
    """What a checkpoint cost, as means over seeds; seconds of an interrupted training from the epochs it counted."""
    of = [checkpoint.statistics for checkpoint in run.checkpoints]
    pace = [sum(one["epoch_seconds"]) / len(one["epoch_seconds"]) for one in of if one.get("epoch_seconds")]
    epochs = _mean([one["epochs"] for one in of if "epochs" in one])
    each = _mean(pace)
    sizes = [sum(entry.size for entry in found.manifest.files) / 2**20 for found in run.checkpoints]
    return {
        "seeds": len(of),
        "best_epoch": _mean([one["epoch"] for one in of if "epoch" in one]),
        "epochs": epochs,
        "seconds": None if each is None or epochs is None else each * epochs,
        "epoch_seconds": each,
        "memory_mib": _mean([one["memory_mib"] for one in of if "memory_mib" in one]),
        "checkpoint_mib": _mean(sizes),
    }


def changes(run: Compared, first: Compared) -> dict[str, Any]:
    """Settings of the run, by dotted key, that the first run has otherwise."""
    keys = dict.fromkeys([*first.settings, *run.settings])
    return {key: run.settings.get(key) for key in keys if run.settings.get(key) != first.settings.get(key)}


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _measured_on(run: Compared, role: str) -> Any:
    artifact = run.artifacts.get(role)
    if artifact is None or role == INTERACTIONS.name:
        return artifact and artifact.key
    return artifact.manifest.settings


def _p_of_zero_mean(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    if error == 0.0:
        return float(mean == 0.0)
    return float(2.0 * stats.t.sf(abs(mean) / error, len(values) - 1))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
