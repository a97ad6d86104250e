"""A run and its baselines, each tuned by the same number of trials; the best settings are kept in the store."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_contracts.settings.base import Settings
from data_contracts.store.files import DamagedFileError, write_alone
from data_contracts.store.json_files import parse_json, read_description
from flows.config.presets import FIXED_BASELINES, baseline_runs
from flows.config.run_config import RunSpec
from flows.config.tune_settings import Value
from flows.orchestration.up_to_date import CANNOT_BE_MADE, Refusal
from flows.output.console import Watch
from flows.output.tables import Table
from flows.tune.parallel import run_parallel_search
from flows.tune.search import Search, Trial, best_trial, run_search
from flows.tune.validation import NothingToSearchError, ValidationScore, build_search, overrides
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)


class BestSettings(Settings):
    """What a search has found: `<store>/tune/<run>.json`, beside its record."""

    study: str
    """Digest of what was searched: the run's settings, the space and the sampler's seed."""
    measure: str
    """The validation score."""
    score: float
    """Of the best trial."""
    first_score: float | None
    """Of the first trial, the file's or the preset's own settings; None if it failed."""
    trials: int
    """Trials that the best was chosen from."""
    pruned: int
    """Trials of these that were ended early."""
    failed: int
    """Trials of these that diverged."""
    seconds: float
    """Duration of these, added up."""
    values: dict[str, Value]
    """Settings of the best trial, by dotted key."""

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial], measure: str) -> BestSettings:
        """The best of the first trials of a search, as many as it shall have.

        Raises:
            NoScoreError: all of them failed.
        """
        trials = trials[: search.trials]
        best = best_trial(trials)
        pruned = sum(trial.pruned for trial in trials)
        return cls(
            study=search.study,
            measure=measure,
            score=best.score or 0.0,
            first_score=trials[0].score,
            trials=len(trials),
            pruned=pruned,
            failed=sum(trial.score is None for trial in trials) - pruned,
            seconds=round(sum(trial.seconds for trial in trials), 1),
            values=best.values,
        )


@dataclass(frozen=True)
class Model:
    """A model that is compared with others: the runs themselves, or a baseline of each.

    Attributes:
        name: of the baseline, or of the first run.
        runs: judged together, by their mean.
        is_baseline: it is searched by its own space, whatever [tune.space] says.
        is_fixed: its settings are what it stands for, so they are not searched.
    """

    name: str
    runs: tuple[RunSpec, ...]
    is_baseline: bool = False
    is_fixed: bool = False

    def search(self) -> Search | None:
        """The search for its settings; None if there is nothing to search."""
        try:
            return None if self.is_fixed else build_search(self.runs, by_default=self.is_baseline)
        except NothingToSearchError:
            return None


def compared_models(runs: Sequence[RunSpec], baselines: Sequence[str]) -> list[Model]:
    """The runs themselves, then these baselines."""
    by_run = [baseline_runs(run, baselines) for run in runs]
    models = [
        Model(name, tuple(of_runs), is_baseline=True, is_fixed=name in FIXED_BASELINES)
        for name, *of_runs in zip(baselines, *by_run, strict=True)
    ]
    return [Model(runs[0].config.name, tuple(runs)), *models]


@dataclass(frozen=True)
class Tuned:
    """A tuned model: its trials and the best of them; no trial and no best if there was nothing to search."""

    model: Model
    trials: Sequence[Trial] = ()
    best: BestSettings | None = None


def tune_models(
    models: Sequence[Model], watch: Watch, parallel: int = 1, digests: Digests | None = None
) -> Iterator[Tuned | Refusal]:
    """Tune models one after another, each by `tune.trials` of its runs, and keep what is best.

    What was tried before is not tried again. A model that cannot be made, or all of whose trials fail, is left out.

    Args:
        models: to be tuned.
        watch: shows the progress of training, if one trial is in progress at a time.
        parallel: trials at a time.
        digests: of log files that this process has read already.
    """
    digests = digests or Digests()
    for number, model in enumerate(models, 1):
        search = model.search()
        if search is None:
            log.info("model %d of %d: %s has nothing to search for", number, len(models), model.name)
            yield Tuned(model)
            continue
        log.info("model %d of %d: %s, %d trials", number, len(models), model.name, search.trials)
        try:
            yield tune_model(model, search, watch, parallel, digests)
        except CANNOT_BE_MADE as error:
            yield Refusal(model.name, "; ".join(str(error).splitlines()))


def tune_model(model: Model, search: Search, watch: Watch, parallel: int = 1, digests: Digests | None = None) -> Tuned:
    """Tune one model, and keep what is best."""
    if parallel > 1:
        trials = run_parallel_search(search, _scores(model.runs, parallel))
    else:
        trials = run_search(search, ValidationScore(model.runs, watch, digests=digests or Digests()))
    best = BestSettings.of(search, trials, model.runs[0].config.train.score)
    write_alone(_path(search), best.model_dump_json(indent=2).encode() + b"\n")
    return Tuned(model, trials, best)


def _scores(runs: tuple[RunSpec, ...], parallel: int) -> list[ValidationScore]:
    """A score for each process; they share the processors, unless `compute.threads` is set."""
    share = max(1, len(os.sched_getaffinity(0)) // parallel)
    sharing = tuple(
        run if run.config.compute.threads else run.with_overrides(f"compute.threads={share}") for run in runs
    )
    return [ValidationScore(sharing, suffix=f"tune-{number}") for number in range(1, parallel + 1)]


_REMEDY = "delete it and tune again"


def read_best(search: Search) -> BestSettings | None:
    """What was kept of a search; None if there is nothing, or it is of other settings or another space.

    Raises:
        ValueError: the file is damaged.
    """
    path = _path(search)
    if not path.exists():
        return None
    best = parse_json(read_description(path), BestSettings, path, _REMEDY)
    if best.study != search.study:
        return None
    if best.values.keys() != search.space.keys():
        raise DamagedFileError(f"{path} is damaged: values are not those of the space; {_REMEDY}")
    return best


def tuned_run(run: RunSpec, best: BestSettings) -> RunSpec:
    """The run with its best settings, named `…-tuned`."""
    return run.with_overrides(*overrides(best.values), f"name={run.config.name[:94]}-tuned")


def _path(search: Search) -> Path:
    return search.record.with_suffix(".json")


def trials_table(trials: Sequence[Trial], score: str) -> Table:
    """A table of all trials, the best validation score first, those without one last.

    Args:
        trials: of a search.
        score: the measure that selected each trial's epoch.
    """
    ordered = sorted(trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0)))
    keys = list(trials[0].values)
    rows = tuple(
        (
            str(trial.number + 1),
            ("pruned" if trial.pruned else "failed") if trial.score is None else f"{trial.score:.5f}",
            f"{trial.seconds:,.1f}",
            *(str(trial.values[key]) for key in keys),
        )
        for trial in ordered
    )
    title = f"Trials by validation score ({score} of the best epoch, mean over seeds and runs)"
    return Table(title, ("trial", "score", "seconds", *keys), rows)


def models_table(results: Sequence[Tuned | Refusal]) -> Table:
    """What the trials of each model have brought: first score, best score, best settings, or why it was not made."""
    rows = []
    tuned = [result for result in results if isinstance(result, Tuned)]
    for item in results:
        if isinstance(item, Refusal):
            rows.append((item.name, *["–"] * 6, f"not made: {item.reason}"))
            continue
        best = item.best
        if best is None:
            rows.append((item.model.name, "0", *[""] * 5, "nothing to search for"))
            continue
        first = "failed" if best.first_score is None else f"{best.first_score:.5f}"
        settings = "  ".join(overrides(best.values))
        numbers = (str(best.trials), str(best.pruned), str(best.failed), f"{best.seconds:,.0f}")
        rows.append((item.model.name, *numbers, first, f"{best.score:.5f}", settings))
    measure = next((item.best.measure for item in tuned if item.best), "score")
    header = ("model", "trials", "pruned", "failed", "seconds", "first", "best", "best settings")
    return Table(f"Models by validation {measure}, each tuned by as many trials", header, tuple(rows), left=True)
