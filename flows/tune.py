"""Search for settings that validate better, for one run or the mean of several; the test split is never used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.contracts import CHECKPOINT, Role
from data_contracts.open_store import open_store
from data_contracts.statistics import CheckpointStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.claims import exclusive_lock
from flows.config.run_config import RunConfig, RunSpec, store_location
from flows.config.tune_settings import Axis, Value, default_space
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import Watch
from flows.output.tables import Table

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

Values = dict[str, Value]
"""A trial's settings, by dotted key."""


@dataclass(frozen=True)
class Search:
    """A search for settings.

    Attributes:
        space: axes by dotted key.
        current: the file's own values, tried first.
        trials: number of trials, over all calls.
        seed: of the sampler.
        record: SQLite file of all trials.
        study: name in the record; it differs for other runs or another space.
    """

    space: Mapping[str, Axis]
    current: Values
    trials: int
    seed: int
    record: Path
    study: str


@dataclass(frozen=True)
class Trial:
    """One trial: its number from 0, its settings, its score (None if it failed), and its duration."""

    number: int
    values: Values
    score: float | None
    seconds: float


def run_search(search: Search, score: Callable[[Values], float]) -> list[Trial]:
    """Try settings until the search has all of its trials.

    A trial's draws depend on the seed and the number of trials before it, so a search that was killed continues as if
    it had not been interrupted. Settings that diverge (an ArithmeticError) count as a trial without a score.
    """
    with _open_study(search) as study:
        while (done := len(_ended_trials(study))) < search.trials:
            trial, values = _draw_settings(study, search, done)
            shown = ", ".join(f"{key} {value}" for key, value in values.items())
            log.info("trial %d of %d: %s", done + 1, search.trials, shown)
            try:
                value = score(values)
            except ArithmeticError as error:
                log.info("trial %d of %d failed: %s", done + 1, search.trials, error)
                study.tell(trial, state=_states().PRUNED)
                continue
            study.tell(trial, value)
            best = max(ended.value or 0.0 for ended in _ended_trials(study) if ended.value is not None)
            log.info("trial %d of %d: score %.5f, best so far %.5f", done + 1, search.trials, value, best)
        return [_build_trial(number, ended, search) for number, ended in enumerate(_ended_trials(study))]


@contextmanager
def _open_study(search: Search) -> Iterator[optuna.Study]:
    """Open the record's study, locked by this process; trials that a kill has left unfinished count as failed."""
    if importlib.util.find_spec("optuna") is None:
        raise ModuleNotFoundError("edda tune: optuna is not installed; run `pip install -e '.[tune]'`")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search.record.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(search.record.with_suffix(".lock"), f"{search.record}: another process is searching"):
        storage = optuna.storages.RDBStorage(f"sqlite:///{search.record.absolute()}")
        try:
            study = optuna.create_study(
                storage=storage, study_name=search.study, direction="maximize", load_if_exists=True
            )
            for trial in study.get_trials(deepcopy=False, states=(_states().RUNNING,)):
                study.tell(trial.number, state=_states().FAIL)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _draw_settings(study: optuna.Study, search: Search, done: int) -> tuple[optuna.trial.Trial, Values]:
    import optuna

    digest = hashlib.sha256(f"{search.seed} {done}".encode()).digest()
    study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "little"))
    if done == 0 and all(_is_on_axis(axis, search.current[key]) for key, axis in search.space.items()):
        study.enqueue_trial(search.current)
    trial = study.ask({key: _distribution(axis, search.current[key]) for key, axis in search.space.items()})
    return trial, _round_values(trial.params, search)


def _distribution(axis: Axis, current: Value) -> Any:
    import optuna

    if axis.choices:
        return optuna.distributions.CategoricalDistribution(axis.choices)
    if axis.low is None or axis.high is None:
        raise ValueError("an axis has low and high, or choices")
    if isinstance(current, int):
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _round_values(params: Mapping[str, Any], search: Search) -> Values:
    """Drawn settings in the space's order; decimals drawn from an interval are rounded to three digits."""
    values: Values = {}
    for key, axis in search.space.items():
        value: Value = params[key]
        drawn = isinstance(value, float) and not axis.choices and value != search.current[key]
        values[key] = float(f"{value:.3g}") if drawn else value
    return values


def _is_on_axis(axis: Axis, value: Value) -> bool:
    if axis.choices:
        return value in axis.choices
    return axis.low is not None and axis.high is not None and axis.low <= float(value) <= axis.high


def _ended_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(_states().COMPLETE, _states().PRUNED))


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState


def _build_trial(number: int, trial: optuna.trial.FrozenTrial, search: Search) -> Trial:
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return Trial(number, _round_values(trial.params, search), trial.value, seconds)


_NOT_SEARCHED = ("name", "store", "compute", "tune", "export")
"""Settings that no validation score depends on."""


def search_settings(runs: Sequence[RunSpec], watch: Watch) -> list[Trial]:
    """Search for the settings with the best mean of the runs' validation scores.

    Args:
        runs: TOML files with their overrides; [tune] of the first applies to all.
        watch: shows the progress of training.

    Returns:
        All trials so far, in order, including those of earlier calls.

    Raises:
        ConfigError: an axis has a key or a value that a run may not have.
        ModuleNotFoundError: Optuna is not installed.
        BlockingIOError: another process runs the same search.
    """
    return run_search(build_search(runs), lambda values: _score(runs, values, watch))


def build_search(runs: Sequence[RunSpec]) -> Search:
    """Build the search that the first run's [tune] describes, and check it against every run."""
    configs = [run.config for run in runs]
    if len(scores := {config.train.score for config in configs}) > 1:
        raise ValueError(
            f"tune: runs are selected by {' and '.join(sorted(scores))}, must be by one; set train.select_by"
        )
    settings = configs[0].tune
    space = settings.space
    if space is None:
        space = default_space(configs[0].train, configs[0].neighbours.weights)
    if not space:
        raise ValueError(f"tune: nothing to search for train.model {configs[0].train.model!r}; give it a [tune.space]")
    for key, axis in space.items():
        for end in axis.ends:
            for run in runs:
                _ = run.with_overrides(_override(key, end)).config  # raises where a run may not have it
    current = {key: _current_value(configs[0], key) for key in space}
    store = open_store(store_location(configs[0]))
    record = store.root / "tune" / f"{'+'.join(config.name for config in configs)[:100]}.db"
    searched = [config.model_dump(mode="json", exclude=set(_NOT_SEARCHED)) for config in configs]
    text = json.dumps([searched, {key: axis.keyed() for key, axis in space.items()}, settings.seed], sort_keys=True)
    study = hashlib.sha256(text.encode()).hexdigest()[:20]
    return Search(space, current, settings.trials, settings.seed, record, study)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the best score, the first one if several are equal.

    Raises:
        ValueError: no trial has a score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        raise ValueError("tune: every trial failed; narrow [tune.space], e.g. a smaller train.learning_rate")
    return max(scored, key=lambda trial: trial.score or 0.0)


def trials_table(trials: Sequence[Trial], score: str) -> Table:
    """A table of all trials, the best validation score first, failed trials last.

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
    """Settings as options of a command line: `--set train.layers=2 --set …`."""
    return " ".join(f"--set {shlex.quote(_override(key, value))}" for key, value in values.items())


def _score(runs: Sequence[RunSpec], values: Values, watch: Watch) -> float:
    overrides = [_override(key, value) for key, value in values.items()]
    trials = [run.with_overrides(*overrides, f"name={run.config.name[:95]}-tune") for run in runs]
    outcomes = bring_up_to_date(trials, "train", watch, prefect=False)
    return _mean([_validation_score(outcome.config, outcome.artifacts) for outcome in outcomes])


def _validation_score(config: RunConfig, artifacts: Mapping[str, Artifact]) -> float:
    checkpoints = [artifacts[str(Role(CHECKPOINT, seed))] for seed in config.train.seeds]
    scores = [checkpoint.statistics_as(CheckpointStatistics)["score"] for checkpoint in checkpoints]
    if None in scores:
        raise ValueError(f"tune: run {config.name} has no validation rows to score by; see [ingest.split]")
    return _mean([score for score in scores if score is not None])


def _current_value(config: RunConfig, key: str) -> Value:
    value: Value = reduce(getattr, key.split("."), config)  # type: ignore[assignment]
    return value


def _override(key: str, value: Value) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
