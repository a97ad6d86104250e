"""Search for settings that validate better, over one run or the mean of several; the test split is never looked at."""

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
from data_contracts.store.claims import alone
from flows.config.run_config import RunConfig, RunSpec, store_place
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
    """What is searched: the space, how long, from which seed and settings, and the name of its record.

    Attributes:
        space: axes by dotted key.
        present: the file's own values, tried first.
        trials: how many to try, in all calls together.
        seed: of the sampler.
        record: SQLite file of all trials.
        study: name in the record; another for other runs or another space.
    """

    space: Mapping[str, Axis]
    present: Values
    trials: int
    seed: int
    record: Path
    study: str


@dataclass(frozen=True)
class Trial:
    """One trial: its number from 0, its settings, its score (None: it failed), how long it took."""

    number: int
    values: Values
    score: float | None
    seconds: float


def search(wanted: Search, score: Callable[[Values], float]) -> list[Trial]:
    """Try settings until there are as many trials as wanted.

    A trial's draws are named by the seed and the number of trials before it, so a search that was killed goes on as
    if it had not been. Settings that diverge (an ArithmeticError) count as a trial without a score.
    """
    with _study(wanted) as study:
        while (done := len(_ended(study))) < wanted.trials:
            trial, values = _ask(study, wanted, done)
            log.info("trial %d of %d: %s", done + 1, wanted.trials, _shown(values))
            try:
                value = score(values)
            except ArithmeticError as error:
                log.info("trial %d of %d failed: %s", done + 1, wanted.trials, error)
                study.tell(trial, state=_states().PRUNED)
                continue
            study.tell(trial, value)
            best = max(found.value or 0.0 for found in _ended(study) if found.value is not None)
            log.info("trial %d of %d: score %.5f, best so far %.5f", done + 1, wanted.trials, value, best)
        return [_as_trial(number, found, wanted) for number, found in enumerate(_ended(study))]


@contextmanager
def _study(wanted: Search) -> Iterator[optuna.Study]:
    """The record's study, open and for this process alone; trials that a kill left unfinished are set aside."""
    if importlib.util.find_spec("optuna") is None:
        raise ModuleNotFoundError("edda tune: optuna is not installed; run `pip install -e '.[tune]'`")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    wanted.record.parent.mkdir(parents=True, exist_ok=True)
    with alone(wanted.record.with_suffix(".lock"), f"{wanted.record}: another process is searching"):
        storage = optuna.storages.RDBStorage(f"sqlite:///{wanted.record.absolute()}")
        try:
            study = optuna.create_study(
                storage=storage, study_name=wanted.study, direction="maximize", load_if_exists=True
            )
            for trial in study.get_trials(deepcopy=False, states=(_states().RUNNING,)):
                study.tell(trial.number, state=_states().FAIL)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _ask(study: optuna.Study, wanted: Search, done: int) -> tuple[optuna.trial.Trial, Values]:
    import optuna

    draws = hashlib.sha256(f"{wanted.seed} {done}".encode()).digest()
    study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(draws[:4], "little"))
    if done == 0 and all(_allowed(axis, wanted.present[key]) for key, axis in wanted.space.items()):
        study.enqueue_trial(wanted.present)
    trial = study.ask({key: _distribution(axis, wanted.present[key]) for key, axis in wanted.space.items()})
    return trial, _values(trial.params, wanted)


def _distribution(axis: Axis, present: Value) -> Any:
    import optuna

    if axis.choices:
        return optuna.distributions.CategoricalDistribution(axis.choices)
    if axis.low is None or axis.high is None:
        raise ValueError("an axis has low and high, or choices")
    if isinstance(present, int):
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return optuna.distributions.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _values(params: Mapping[str, Any], wanted: Search) -> Values:
    """Drawn settings in the space's order; decimals drawn from an interval have three digits, enough to be told."""
    values: Values = {}
    for key, axis in wanted.space.items():
        value: Value = params[key]
        drawn = isinstance(value, float) and not axis.choices and value != wanted.present[key]
        values[key] = float(f"{value:.3g}") if drawn else value
    return values


def _allowed(axis: Axis, value: Value) -> bool:
    if axis.choices:
        return value in axis.choices
    return axis.low is not None and axis.high is not None and axis.low <= float(value) <= axis.high


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(_states().COMPLETE, _states().PRUNED))


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState


def _as_trial(number: int, found: optuna.trial.FrozenTrial, wanted: Search) -> Trial:
    seconds = found.duration.total_seconds() if found.duration else 0.0
    return Trial(number, _values(found.params, wanted), found.value, seconds)


def _shown(values: Values) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


_NOT_SEARCHED = ("name", "store", "compute", "tune", "export")
"""Settings that no validation score depends on."""


def search_settings(runs: Sequence[RunSpec], watcher: Watch) -> list[Trial]:
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


def search_of(runs: Sequence[RunSpec]) -> Search:
    """The search that the first run's [tune] describes, checked against every run."""
    configs = [run.config for run in runs]
    if len(scores := {config.train.score for config in configs}) > 1:
        raise ValueError(
            f"tune: runs are selected by {' and '.join(sorted(scores))}, must be by one; set train.select_by"
        )
    settings = configs[0].tune
    space = settings.space
    if space is None:
        space = default_space(configs[0].train.model, configs[0].neighbours.weights)
    if not space:
        raise ValueError(f"tune: nothing to search for train.model {configs[0].train.model!r}; give it a [tune.space]")
    for key, axis in space.items():
        for end in axis.ends:
            for run in runs:
                _ = run.with_overrides(_override(key, end)).config  # raises where a run may not have it
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


def _score(runs: Sequence[RunSpec], values: Values, watcher: Watch) -> float:
    trial = [run.with_overrides(*(_override(*value) for value in values.items())) for run in runs]
    named = [run.with_overrides(f"name={run.config.name[:95]}-tune") for run in trial]
    outcomes = bring_up_to_date(named, "train", watcher, prefect=False)
    return _mean([_validation_score(outcome.config, outcome.artifacts) for outcome in outcomes])


def _validation_score(config: RunConfig, artifacts: Mapping[str, Any]) -> float:
    scores = [artifacts[str(Role(CHECKPOINT, seed))].statistics["score"] for seed in config.train.seeds]
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
