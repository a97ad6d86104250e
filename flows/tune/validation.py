"""The validation score of settings: of the checkpoints that runs train with them; the test split is never used."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

from data_contracts.contracts import CHECKPOINT, MACRO
from data_contracts.open_store import open_store
from data_contracts.roles import Role
from data_contracts.settings.base import Settings
from data_contracts.statistics import CheckpointStatistics
from data_contracts.store.artifact import Artifact
from flows.config.run_config import RunConfig, RunSpec, store_location
from flows.config.tune_settings import Value, default_space
from flows.output.console import Watch
from flows.runner.execute import Execution, Outcome, make_roles, no_watcher, run_stages
from flows.runner.plan import make_plan
from flows.tune.search import PrunedError, Report, Search, Values
from pipeline.logs.discovery import Digests

_NOT_SEARCHED = {"name", "store", "update", "compute", "tracking", "tune", "export", "serve"}
"""Settings that no validation score depends on."""

_SPARED_SHARE = 4
"""A trial is never pruned in the first quarter of its epochs, where small learning rates look worse than they are."""


class NothingToSearchError(ValueError):
    """A model has no settings to search for."""


def build_search(runs: Sequence[RunSpec], *, by_default: bool = False) -> Search:
    """Build the search that the first run's [tune] describes, and check it against every run.

    Args:
        runs: they are judged by their mean.
        by_default: search the model's default space, whatever [tune.space] says.

    Raises:
        ConfigError: an axis has a key or a value that a run may not have.
        NothingToSearchError: there is no space, and the first run's model has none.
        ValueError: the runs are selected by different scores.
    """
    configs = [run.config for run in runs]
    if len(scores := {config.train.score for config in configs}) > 1:
        raise ValueError(
            f"tune: runs are selected by {' and '.join(sorted(scores))}, must be by one; set train.select_by"
        )
    first, settings = configs[0], configs[0].tune
    space = None if by_default else settings.space
    if space is None:  # it has the present settings, so that the first trial can be these
        default = default_space(first.train, first.neighbours.weights)
        space = {key: axis.including(_current_value(first, key)) for key, axis in default.items()}
    if not space:
        raise NothingToSearchError(
            f"tune: nothing to search for train.model {first.train.model!r}; give it a [tune.space]"
        )
    for key, axis in space.items():
        for end in axis.ends:
            for run in runs:
                _ = run.with_overrides(_override(key, end)).config  # raises where a run may not have it
    current = {key: _current_value(first, key) for key in space}
    record = open_store(store_location(first)).root / "tune" / f"{'+'.join(config.name for config in configs)[:100]}.db"
    searched = [_searched_settings(config) for config in configs]
    text = json.dumps([searched, {key: axis.keyed() for key, axis in space.items()}, settings.seed], sort_keys=True)
    study = hashlib.sha256(text.encode()).hexdigest()[:20]
    has_epochs = settings.prune and "epochs" in first.train.keyed()
    spared = max(1, first.train.epochs // _SPARED_SHARE) if has_epochs else None
    return Search(space, current, settings.trials, settings.seed, record, study, spared)


def _searched_settings(config: RunConfig) -> dict[str, Any]:
    """What a score depends on, with the settings that enter the artifacts' keys, so that new ones keep old studies."""
    tables = {name: value for name, value in config if name not in _NOT_SEARCHED}
    keyed = {name: table.keyed() for name, table in tables.items() if isinstance(table, Settings)}
    logs = [source.keyed() for source in config.logs]
    others = {"protocol": config.protocol, "seeds": list(config.train.seeds), "evidence": config.blend.evidence}
    return {**keyed, "logs": logs, **others}


def overrides(values: Values) -> list[str]:
    """Settings as overrides of a run."""
    return [_override(key, value) for key, value in values.items()]


def as_options(values: Values) -> str:
    """Settings as options of a command line: `--set train.layers=2 --set …`."""
    return " ".join(f"--set {shlex.quote(override)}" for override in overrides(values))


@dataclass(frozen=True)
class ValidationScore:
    """Scores settings by training the runs with them; the mean over runs and seeds.

    Attributes:
        runs: with their overrides.
        watch: shows the progress of training.
        suffix: of the names of the runs that are trained, which must differ in processes that work side by side.
        digests: of log files that were read already.
    """

    runs: tuple[RunSpec, ...]
    watch: Watch = no_watcher
    suffix: str = "tune"
    digests: Digests = field(default_factory=Digests)

    def __call__(self, values: Values, report: Report) -> float:
        """Train and return the score; the epochs of the first run's first seed are reported.

        Raises:
            PrunedError: by `report`; what the training has left is removed.
            ArithmeticError: a training diverged.
            ValueError: a run has no validation rows.
        """
        trained = [self._train(number, values, report) for number in range(len(self.runs))]
        return _mean([_validation_score(outcome.config, outcome.artifacts) for outcome in trained])

    def _train(self, number: int, values: Values, report: Report) -> Outcome:
        """Train one of the runs; a training that was finished before is reported like one that is not."""
        run = self.runs[number]
        name = f"{run.config.name[: 99 - len(self.suffix)]}-{self.suffix}"
        spec = run.with_overrides(*overrides(values), f"name={name}")
        reported = str(Role(CHECKPOINT, spec.config.train.seeds[0])) if number == 0 else None

        def listen(role: str, measures: Sequence[tuple[int, str, str, float]]) -> None:
            if role == reported:
                for epoch, domain, metric, value in measures:
                    if (domain, metric) == (MACRO, "score"):
                        report(epoch, value)

        work = partial(make_roles, listener=listen)
        execution = Execution(work, self.watch, f"edda train {spec}", self.digests)
        try:
            outcome = run_stages(spec.config, "train", execution)
            if reported is not None:
                table = outcome.artifacts[reported].read(["epoch", "domain", "metric", "value"])
                listen(reported, [tuple(row.values()) for row in table.sort_by("epoch").to_pylist()])
        except PrunedError:
            if reported is not None:
                plan = make_plan(spec.config, self.digests)
                plan.store.discard_draft(CHECKPOINT, plan.steps[reported].key)
            raise
        return outcome


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
