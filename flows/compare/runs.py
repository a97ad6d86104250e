"""Runs side by side: accuracy by domain and seed, differences to the first run, settings, what training cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from data_contracts.contracts import ALL, INTERACTIONS, METRICS
from data_contracts.statistics import CheckpointStatistics
from data_contracts.store.store import Store
from flows.config.run_config import flatten
from flows.runner.lookup import RunView, recorded_run

log = logging.getLogger(__name__)

_NOT_COMPARED = ("name", "store", "compute", "tracking", "export", "tune", "serve")
"""Settings that have no effect on accuracy."""


@dataclass(frozen=True)
class Difference:
    """A run's value minus the first run's: the mean over the seeds both have, else of the two values.

    `p` is from a two-sided t test paired by seed; None for fewer than two common seeds.
    """

    value: float
    p: float | None
    seeds: int

    def __str__(self) -> str:
        """The value with its sign; what rounds to 0 has the sign +."""
        return f"{self.value:+z.4f}"


def evaluated_run(name: str, store: Store) -> RunView:
    """Look up a run that is to be compared, by its name.

    Raises:
        FileNotFoundError: the store has no such run.
        ValueError: it was not evaluated.
    """
    run = recorded_run(name, store)
    if METRICS.name not in run.artifacts:
        raise ValueError(f"run {name!r} has no metrics yet; {run.missing or 'make them with: edda evaluate RUN.toml'}")
    if run.missing:
        log.warning("%s; comparing what was made before", run.missing)
    return run


def difference(run: RunView, first: RunView, measure: tuple[str, str], stratum: str = ALL) -> Difference | None:
    """Compare two runs by one measure, a (domain, metric), in a stratum; None if one of them has no value."""
    estimate, first_estimate = (view.values_by_stratum.get(stratum, {}).get(measure) for view in (run, first))
    if estimate is None or first_estimate is None:
        return None
    values, first_values = (view.seeds_by_stratum.get(stratum, {}).get(measure, {}) for view in (run, first))
    paired = [values[seed] - first_values[seed] for seed in sorted(values.keys() & first_values.keys())]
    if not paired:
        return Difference(estimate["value"] - first_estimate["value"], None, 0)
    return Difference(math.fsum(paired) / len(paired), _p_value_of_zero_mean(paired), len(paired))


def cautions(runs: Sequence[RunView]) -> list[str]:
    """Warnings about runs that differ from the first in more than the model: what they are measured on, epochs."""
    bases = [
        f"{run.name} was measured on other {what} than {runs[0].name}"
        for run in runs[1:]
        for role, what in ((INTERACTIONS.name, "interactions"), (METRICS.name, "candidates or metrics"))
        if _measurement_basis(run, role) != _measurement_basis(runs[0], role)
    ]
    limits = {run.name: run.config.get("train", {}).get("epochs") for run in runs}
    epochs = [
        f"{run.name} had at most {limits[run.name]} epochs, {runs[0].name} had {limits[runs[0].name]}"
        for run in runs[1:]
        if limits[run.name] != limits[runs[0].name] and None not in (limits[run.name], limits[runs[0].name])
    ]
    return [*bases, *epochs]


def cost(run: RunView) -> dict[str, float | None]:
    """Cost of a checkpoint, as means over seeds; for a resumed training, seconds are estimated from its last epochs."""
    trainings = [checkpoint.statistics_as(CheckpointStatistics) for checkpoint in run.checkpoints]
    seconds_by_epoch = [training["epoch_seconds"] for training in trainings if training["epoch_seconds"]]
    epoch_seconds = _mean([sum(seconds) / len(seconds) for seconds in seconds_by_epoch])
    epochs = _mean([training["epochs"] for training in trainings])
    sizes = [sum(entry.size for entry in checkpoint.manifest.files) / 2**20 for checkpoint in run.checkpoints]
    return {
        "seeds": len(trainings),
        "best_epoch": _mean([training["epoch"] for training in trainings]),
        "epochs": epochs,
        "seconds": None if epoch_seconds is None or epochs is None else epoch_seconds * epochs,
        "epoch_seconds": epoch_seconds,
        "memory_mib": _mean([training["memory_mib"] for training in trainings if "memory_mib" in training]),
        "checkpoint_mib": _mean(sizes),
    }


def changes(run: RunView, first: RunView) -> dict[str, Any]:
    """Settings of the run, by dotted key, that differ from the first run's."""
    settings, first_settings = _compared_settings(run), _compared_settings(first)
    keys = {**first_settings, **settings}
    return {key: settings.get(key) for key in keys if settings.get(key) != first_settings.get(key)}


def _compared_settings(run: RunView) -> dict[str, Any]:
    """Settings that may have an effect on accuracy, by dotted key."""
    return dict(flatten({key: value for key, value in run.config.items() if key not in _NOT_COMPARED}))


def _measurement_basis(run: RunView, role: str) -> Any:
    """What two runs must have in common to be comparable: the key of interactions, or the settings of metrics."""
    artifact = run.artifacts.get(role)
    if artifact is None or role == INTERACTIONS.name:
        return artifact and artifact.key
    return artifact.manifest.settings


def _p_value_of_zero_mean(values: Sequence[float]) -> float | None:
    """p of a two-sided t test, None for fewer than two values; equal values have a mean of zero for certain, or not."""
    if len(values) < 2:
        return None
    if math.isclose(min(values), max(values), rel_tol=1e-12):
        return float(values[0] == 0.0)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
