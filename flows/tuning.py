"""Search for settings that validate better, over one run or the mean of several; the test split is never looked at."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from data_contracts.contracts import CHECKPOINT
from data_contracts.remote_store import open_store
from flows.baselines import Run
from flows.config import RunConfig, load_config, store_place
from flows.console import Watch
from flows.search import Search, Trial, Values, search
from flows.search_space import DEFAULT_SPACE, Value
from flows.summary import Table
from flows.update import bring_up_to_date

_NOT_SEARCHED = ("name", "store", "compute", "tune", "export")
"""Settings that no validation score depends on."""


def search_settings(runs: Sequence[Run], watcher: Watch) -> list[Trial]:
    """Search for the settings with the best mean of the runs' validation scores.

    Args:
        runs: TOML files with their overrides; [tune] of the first holds for all.
        watcher: is told how far the training is.

    Returns:
        All trials so far, in order, those of earlier calls among them.

    Raises:
        ConfigError: an axis has a key or a value that a run may not have.
        ModuleNotFoundError: Optuna is not installed.
        BlockingIOError: another process searches the same.
    """
    return search(search_of(runs), lambda values: _score(runs, values, watcher))


def search_of(runs: Sequence[Run]) -> Search:
    """The search that the first run's [tune] describes, checked against every run."""
    configs = [load_config(path, overrides) for path, overrides in runs]
    if len(scores := {config.train.score for config in configs}) > 1:
        raise ValueError(
            f"tune: runs are selected by {' and '.join(sorted(scores))}, must be by one; set train.select_by"
        )
    settings = configs[0].tune
    space = DEFAULT_SPACE[configs[0].train.model] if settings.space is None else settings.space
    if not space:
        raise ValueError(f"tune: nothing to search for train.model {configs[0].train.model!r}; give it a [tune.space]")
    for key, axis in space.items():
        for end in axis.ends:
            for path, overrides in runs:
                load_config(path, [*overrides, _override(key, end)])
    present = {key: _value_of(configs[0], key) for key in space}
    store = open_store(store_place(configs[0]))
    record = store.root / "tune" / f"{'+'.join(config.name for config in configs)[:100]}.db"
    searched = [config.model_dump(mode="json", exclude=set(_NOT_SEARCHED)) for config in configs]
    text = json.dumps([searched, {key: axis.keyed() for key, axis in space.items()}, settings.seed], sort_keys=True)
    study = hashlib.sha256(text.encode()).hexdigest()[:20]
    return Search(space, present, settings.trials, settings.seed, record, study)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the best score, the first of equals.

    Raises:
        ValueError: no trial has a score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        raise ValueError("tune: every trial failed; narrow [tune.space], e.g. a smaller train.learning_rate")
    return max(scored, key=lambda trial: trial.score or 0.0)


def trials_table(trials: Sequence[Trial], score: str) -> Table:
    """All trials by their validation score, the best first, those without one last.

    Args:
        trials: of a search.
        score: the measure that selected each trial's epoch.
    """
    ordered = sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0)))
    keys = list(trials[0].values)
    rows = tuple(
        (
            str(trial.number + 1),
            "failed" if trial.score is None else f"{trial.score:.5f}",
            f"{trial.seconds:,.1f}",
            *(str(trial.values[key]) for key in keys),
        )
        for trial in ordered
    )
    title = f"Trials by validation score ({score} of the best epoch, mean over domains, seeds and runs)"
    return Table(title, ("trial", "score", "seconds", *keys), rows)


def as_options(values: Values) -> str:
    """Settings as a command line takes them: `--set train.layers=2 --set …`."""
    return " ".join(f"--set {shlex.quote(_override(key, value))}" for key, value in values.items())


def _score(runs: Sequence[Run], values: Values, watcher: Watch) -> float:
    trial = [(path, [*overrides, *(_override(*value) for value in values.items())]) for path, overrides in runs]
    named = [(path, [*more, f"name={load_config(path, more).name[:95]}-tune"]) for path, more in trial]
    outcomes = bring_up_to_date(named, "train", watcher, prefect=False)
    return _mean([_validation_score(outcome.config, outcome.artifacts) for outcome in outcomes])


def _validation_score(config: RunConfig, artifacts: Mapping[str, Any]) -> float:
    scores = [artifacts[f"{CHECKPOINT.name}-{seed}"].statistics["score"] for seed in config.train.seeds]
    if None in scores:
        raise ValueError(f"tune: run {config.name} has no validation rows to score by; see [ingest.split]")
    return _mean(scores)


def _value_of(config: RunConfig, key: str) -> Value:
    value: Value = reduce(getattr, key.split("."), config)  # type: ignore[assignment]
    return value


def _override(key: str, value: Value) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
