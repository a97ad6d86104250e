"""The scoreboard of a data set: models tuned by equal trials and evaluated with several seeds; resumable anywhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.compare.experiments import require_cutoff
from flows.compare.scoreboard import Board, Entry
from flows.config.presets import other_evidence, with_walks
from flows.config.run_config import ConfigError, RunSpec
from flows.orchestration.up_to_date import Refusal, bring_each_up_to_date, bring_up_to_date
from flows.output.console import Watch
from flows.runner.lookup import build_view
from flows.runner.plan import make_plan
from flows.tune.models import BestSettings, Model, compared_models, read_best, tune_models, tuned_run
from pipeline.logs.discovery import Digests, MissingLogsError

log = logging.getLogger(__name__)

DATA_SETS = ("demo", "aliad", "aliccp", "amazon", "ml-1m")
"""Runs of the package that the scoreboard has by default."""


@dataclass(frozen=True)
class Contest:
    """What all models of a scoreboard have in common.

    Attributes:
        trials: that each model is tuned by; with 0, settings that were kept before are used, if there are any.
        seeds: that each is trained with.
        baselines: names of presets.
        parallel: trials at a time.
        prefect: evaluate as Prefect flows.
    """

    trials: int
    seeds: Sequence[int]
    baselines: Sequence[str]
    parallel: int = 1
    prefect: bool = False


@dataclass(frozen=True)
class _Contender:
    label: str
    run: RunSpec
    best: BestSettings | None = None
    is_opponent: bool = True


def absence(run: RunSpec, digests: Digests | None = None) -> str | None:
    """Why the run's data are not on this machine; None if they are, or are generated."""
    try:
        make_plan(run.config, digests)
    except MissingLogsError as error:
        return str(error)
    except ConfigError as error:
        if all("needs the environment variable" in problem for problem in error.problems):
            return str(error)
        raise
    return None


def make_board(run: RunSpec, contest: Contest, watch: Watch, digests: Digests | None = None) -> Board:
    """Tune, train and evaluate all models of a run; what exists is kept.

    Args:
        run: the default.
        contest: what all models have in common.
        watch: shows progress.
        digests: of log files that this process has read already.

    Raises:
        ValueError: the run does not evaluate what the rows are ordered by.
        Exception: the run itself cannot be made.
    """
    require_cutoff(run.config, "edda scoreboard")
    models = compared_models([run.with_overrides(f"tune.trials={max(1, contest.trials)}")], contest.baselines)
    digests = digests or Digests()
    best, refusals = _tune(models, contest, watch, digests)
    contenders = [_rename(contender, contest.seeds) for contender in _contenders(run, models, best)]
    first, *others = contenders
    outcomes = bring_up_to_date([first.run], "evaluate", watch, prefect=contest.prefect, digests=digests)
    specs = [contender.run for contender in others]
    results = bring_each_up_to_date(specs, "evaluate", watch, prefect=contest.prefect, digests=digests)
    entries = []
    for contender, result in zip(contenders, [*outcomes, *results], strict=True):
        if isinstance(result, Refusal):
            refusals.append(Refusal(contender.label, result.reason))
            continue
        best_settings = contender.best
        trials, seconds = (best_settings.trials, best_settings.seconds) if best_settings else (0, 0.0)
        entries.append(Entry(contender.label, build_view(result), trials, seconds, contender.is_opponent))
    return Board(run.config.name, entries, [f"{refusal.name} is left out: {refusal.reason}" for refusal in refusals])


def _tune(
    models: Sequence[Model], contest: Contest, watch: Watch, digests: Digests
) -> tuple[dict[Model, BestSettings | None], list[Refusal]]:
    """The best settings, if there are any, of each model that can be tuned, and the models that cannot be."""
    if not contest.trials:
        searches = {model: model.search() for model in models}
        return {model: read_best(search) if search else None for model, search in searches.items()}, []
    results = list(tune_models(models, watch, contest.parallel, digests))
    refusals = [result for result in results if isinstance(result, Refusal)]
    return {item.model: item.best for item in results if not isinstance(item, Refusal)}, refusals


def _contenders(run: RunSpec, models: Sequence[Model], best: Mapping[Model, BestSettings | None]) -> list[_Contender]:
    """The default, its tuned form and its form without evidence (or with it), then baselines without and with it."""
    own, *baselines = models
    contenders = [_Contender("default", run, is_opponent=False)]
    if tuned := best.get(own):
        contenders.append(_Contender("default, tuned", tuned_run(run, tuned), tuned, is_opponent=False))
    evidence = "without" if run.config.blend.evidence else "with"
    contenders.append(_Contender(f"default {evidence} evidence", other_evidence(run), is_opponent=False))
    for model in (model for model in baselines if model in best):
        settings = best[model]
        baseline = tuned_run(model.runs[0], settings) if settings else model.runs[0]
        contenders.append(_Contender(model.name, baseline, settings))
        contenders += [_Contender(f"{model.name} + evidence", beside, settings) for beside in with_walks(baseline)]
    return contenders


def _rename(contender: _Contender, seeds: Sequence[int]) -> _Contender:
    """With the seeds of the contest, and a name of its own, so that records of the user's runs stay."""
    name = f"{contender.run.config.name[:89]}-scoreboard"
    run = contender.run.with_overrides(f"train.seeds={list(seeds)}", f"name={name}")
    return _Contender(contender.label, run, contender.best, contender.is_opponent)
