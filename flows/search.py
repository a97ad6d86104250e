"""The search itself: Optuna proposes settings, a record on disk remembers every trial."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.claims import alone
from flows.search_space import Axis, Value

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
