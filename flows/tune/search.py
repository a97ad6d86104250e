"""A search for settings with a better score: trials that Optuna proposes, prunes and records in a file.

A trial depends on what is recorded and on nothing else: its draws on the seed, its number and the ended trials; whether
it is pruned on its own scores by epoch and on those of the finished trials. So a search of one trial at a time that was
killed continues as if it had not been. With several at a time, which trials have ended when another one is drawn or
pruned depends on how fast each of them is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.store.claims import exclusive_lock
from data_contracts.store.files import one_line, require_writable
from flows.config.tune_settings import Axis, Value

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

Values = dict[str, Value]
"""A trial's settings, by dotted key."""

Report = Callable[[int, float], None]
"""Takes an epoch, from 0 up, and its validation score; raises PrunedError if the trial shall end there."""

Score = Callable[[Values, Report], float]
"""Tries settings and returns their score, of which more is better."""

_TRIALS_BEFORE_PRUNING = 5
"""Finished trials whose median is taken seriously."""


class PrunedError(Exception):
    """A trial ends after an epoch, because it scores below the median of the finished ones at that epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


class NoScoreError(ValueError, ArithmeticError):
    """All trials of a search failed."""


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
        spared: epochs of every trial that cannot be pruned; None if no trial is pruned.
    """

    space: Mapping[str, Axis]
    current: Values
    trials: int
    seed: int
    record: Path
    study: str
    spared: int | None = None


@dataclass(frozen=True)
class Trial:
    """One trial: its number from 0, its settings, its score (None if it was pruned or failed), and its duration."""

    number: int
    values: Values
    score: float | None
    seconds: float
    pruned: bool = False


def run_search(search: Search, score: Score) -> list[Trial]:
    """Try settings, one after another, until the search has all of its trials.

    Settings that diverge (an ArithmeticError) count as a trial without a score, and so does a trial that is pruned.

    Returns:
        All trials, in order, including those of earlier calls.
    """
    with open_study(search) as study:
        while study.wants_another:
            trial = study.begin_trial()
            trial.end(*attempt(score, trial.values, trial.report))
        return study.trials()


def attempt(score: Score, values: Values, report: Report) -> tuple[float | None, str]:
    """The score of settings, or None and why there is none: `pruned at epoch 7`, `failed: …`."""
    try:
        return score(values, report), ""
    except PrunedError as error:
        return None, f"pruned at epoch {error.epoch}"
    except ArithmeticError as error:
        return None, f"failed: {error}"


@contextmanager
def open_study(search: Search) -> Iterator[Study]:
    """Open the record's study, locked by this process; trials that a kill has left unfinished count as failed.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        BlockingIOError: another process has opened it.
        PermissionError: the store is read-only.
        OSError: the record is damaged, or cannot be written.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ModuleNotFoundError("edda tune: optuna is not installed; run `pip install -e '.[tune]'`")
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    require_writable(search.record.parent.parent, "keep the record of the search", "choose another with --store")
    search.record.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(search.record.with_suffix(".lock"), f"{search.record}: another process is searching"):
        storage = None
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{search.record.absolute()}")
            study = optuna.create_study(
                storage=storage,
                study_name=search.study,
                direction="maximize",
                pruner=_pruner(search),
                load_if_exists=True,
            )
            for trial in study.get_trials(deepcopy=False, states=(_states().RUNNING,)):
                study.tell(trial.number, state=_states().FAIL)
            yield Study(search, study)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
            remedy = "free space if the disk is full, otherwise delete it to search again"
            raise OSError(f"{search.record} cannot be used: {one_line(cause)}; {remedy}") from error
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()


def _pruner(search: Search) -> Any:
    import optuna

    if search.spared is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, search.spared + 1, n_min_trials=_TRIALS_BEFORE_PRUNING)


class Study:
    """The recorded trials of a search, and those in progress."""

    def __init__(self, search: Search, study: optuna.Study) -> None:
        self.search = search
        self._study = study

    def trials(self) -> list[Trial]:
        """The ended trials in the order of their draws; one that was killed and drawn again has its old place."""
        ended = [trial for _, trial in sorted(enumerate(self._ended()), key=lambda placed: _draw_number(*placed))]
        return [self._build_trial(number, trial) for number, trial in enumerate(ended)]

    @property
    def wants_another(self) -> bool:
        """Fewer trials have ended or are in progress than the search shall have."""
        return len(self._begun()) < self.search.trials

    def begin_trial(self) -> OpenTrial:
        """Draw the settings of another trial.

        The sampler is seeded by the least number that no trial had, so a trial that was killed is drawn again.
        """
        import optuna

        search, begun = self.search, self._begun()
        number = min(set(range(len(begun) + 1)) - {_draw_number(place, trial) for place, trial in enumerate(begun)})
        digest = hashlib.sha256(f"{search.seed} {number}".encode()).digest()
        self._study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "little"))
        is_waiting = bool(self._study.get_trials(deepcopy=False, states=(_states().WAITING,)))
        on_axes = all(axis.has(search.current[key]) for key, axis in search.space.items())
        if number == 0 and on_axes and not is_waiting:
            self._study.enqueue_trial(search.current)
        trial = self._study.ask({key: _distribution(axis, search.current[key]) for key, axis in search.space.items()})
        trial.set_user_attr(_DRAW, number)
        values = _round_values(trial.params, search)
        shown = ", ".join(f"{key} {value}" for key, value in values.items())
        log.info("trial %d of %d: %s", number + 1, search.trials, shown)
        return OpenTrial(self, trial, number, values)

    def end_trial(self, trial: optuna.trial.Trial, score: float | None, note: str) -> None:
        """Record how a trial ended."""
        number = trial.user_attrs[_DRAW] + 1
        if score is None:
            trial.set_user_attr(_NOTE, note)
            self._study.tell(trial, state=_states().PRUNED)
            log.info("trial %d of %d %s", number, self.search.trials, note)
            return
        self._study.tell(trial, score)
        best = max(ended.value for ended in self._ended() if ended.value is not None)
        log.info("trial %d of %d: score %.5f, best so far %.5f", number, self.search.trials, score, best)

    def _ended(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(_states().COMPLETE, _states().PRUNED))

    def _begun(self) -> list[optuna.trial.FrozenTrial]:
        states = _states().COMPLETE, _states().PRUNED, _states().RUNNING
        return self._study.get_trials(deepcopy=False, states=states)

    def _build_trial(self, number: int, trial: optuna.trial.FrozenTrial) -> Trial:
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        is_pruned = str(trial.user_attrs.get(_NOTE, "")).startswith("pruned")
        score = None if trial.state == _states().PRUNED else trial.value
        return Trial(number, _round_values(trial.params, self.search), score, seconds, is_pruned)


_DRAW, _NOTE = "draw", "note"
"""Attributes of a recorded trial: the number that seeded its draws, and why it has no score."""


class OpenTrial:
    """A trial in progress."""

    def __init__(self, study: Study, trial: optuna.trial.Trial, number: int, values: Values) -> None:
        self.number = number
        self.values = values
        self._study = study
        self._trial = trial
        self._reported = -1

    def report(self, epoch: int, score: float) -> None:
        """Record the score of an epoch that comes after all that were reported; an earlier one is ignored.

        Raises:
            PrunedError: the trial shall end after this epoch.
        """
        if epoch <= self._reported:
            return
        self._trial.report(score, epoch)
        self._reported = epoch
        if self._trial.should_prune():
            raise PrunedError(epoch)

    def end(self, score: float | None, note: str = "") -> None:
        """Record how the trial ended."""
        self._study.end_trial(self._trial, score, note)


def _draw_number(place: int, trial: optuna.trial.FrozenTrial) -> int:
    """The number that seeded a trial's draws; in records from before it was kept, its place among the ended ones."""
    return int(trial.user_attrs.get(_DRAW, place))


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
    """Drawn settings in the space's order; decimals drawn from an interval are rounded to three digits inside it."""
    values: Values = {}
    for key, axis in search.space.items():
        value: Value = params[key]
        if isinstance(value, float) and not axis.choices and value != search.current[key]:
            low, high = (float(end) for end in axis.ends)
            value = min(max(float(f"{value:.3g}"), low), high)
        values[key] = value
    return values


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the best score, the first one if several are equal.

    Raises:
        NoScoreError: no trial has a score.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        raise NoScoreError("tune: every trial failed; narrow [tune.space], e.g. a smaller train.learning_rate")
    return max(scored, key=lambda trial: trial.score or 0.0)
