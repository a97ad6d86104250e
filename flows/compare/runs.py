"""Runs side by side: accuracy by domain and seed, differences to the first run, settings, what training cost."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from data_contracts.contracts import INTERACTIONS, METRICS
from data_contracts.store.store import Store
from flows.runner.lookup import RunView, recorded_run

log = logging.getLogger(__name__)

_NOT_COMPARED = ("name", "store", "compute", "export", "tune")
"""Settings that make no difference to accuracy."""


@dataclass(frozen=True)
class Difference:
    """A run's value minus the first run's: the mean over the seeds both have, else of the two values.

    `p` is that of a two-sided t test paired by seed; None where fewer than two seeds are common.
    """

    value: float
    p: float | None
    seeds: int


def evaluated_run(name: str, store: Store) -> RunView:
    """A run that the store knows by name.

    Raises:
        FileNotFoundError: the store has no such run.
        ValueError: it was not evaluated.
    """
    run = recorded_run(name, store)
    if METRICS.name not in run.artifacts:
        raise ValueError(f"run {name!r} has no metrics yet; {run.missing or 'make them with: edda evaluate RUN.toml'}")
    if run.missing:
        log.warning("%s; what is compared was made before", run.missing)
    return run


def difference(run: RunView, first: RunView, place: tuple[str, str]) -> Difference | None:
    """Compare one (domain, metric); None where one of the runs has no value."""
    if place not in run.values or place not in first.values:
        return None
    mine, theirs = run.by_seed[place], first.by_seed[place]
    paired = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    if not paired:
        return Difference(run.values[place]["value"] - first.values[place]["value"], None, 0)
    return Difference(math.fsum(paired) / len(paired), _p_of_zero_mean(paired), len(paired))


def cautions(runs: Sequence[RunView]) -> list[str]:
    """What makes runs unlike in more than the model: other interactions, other candidates."""
    found = []
    for run in runs[1:]:
        for role, what in ((INTERACTIONS.name, "interactions"), (METRICS.name, "candidates or metrics")):
            if _measured_on(run, role) != _measured_on(runs[0], role):
                found.append(f"{run.name} was measured on other {what} than {runs[0].name}")
    return found


def cost(run: RunView) -> dict[str, float | None]:
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


def changes(run: RunView, first: RunView) -> dict[str, Any]:
    """Settings of the run, by dotted key, that the first run has otherwise."""
    settings, others = _compared_settings(run), _compared_settings(first)
    return {key: settings.get(key) for key in {**others, **settings} if settings.get(key) != others.get(key)}


def _compared_settings(run: RunView) -> dict[str, Any]:
    """Settings that may make a difference, by dotted key."""
    return dict(flat({key: value for key, value in run.config.items() if key not in _NOT_COMPARED}))


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _measured_on(run: RunView, role: str) -> Any:
    artifact = run.artifacts.get(role)
    if artifact is None or role == INTERACTIONS.name:
        return artifact and artifact.key
    return artifact.manifest.settings


def _p_of_zero_mean(values: Sequence[float]) -> float | None:
    """Of a two-sided t test; without any spread the mean is surely zero, or surely not. None for fewer than two."""
    if len(values) < 2:
        return None
    if math.isclose(min(values), max(values), rel_tol=1e-12):
        return float(values[0] == 0.0)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
