"""Execute a plan stage by stage: make what is missing, leave what exists, and record the run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pkgutil import resolve_name
from typing import Any

from data_contracts.contracts import CHECKPOINT, EMBEDDINGS, INDEX, INTERACTIONS, WORLD
from data_contracts.open_store import open_store
from data_contracts.progress import Progress, silent
from data_contracts.resources import peak_memory_mib, resident_memory
from data_contracts.roles import Role
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.runs import Attempt, Cost, RunRecord
from flows.config.run_config import RunConfig, store_location
from flows.output.console import Watch
from flows.runner.compilation import announce_compilation
from flows.runner.plan import Plan, Step, make_plan
from flows.runner.stages import STAGE_NAMES
from flows.runner.torchrun import group
from flows.runner.update_base import lost_domains, missing_base_error
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)


def no_watcher(_role: str) -> AbstractContextManager[Progress]:
    """Show no progress."""
    return nullcontext(silent)


Work = Callable[[Plan, str, list[str], Watch], Mapping[str, Artifact]]
"""Makes the given missing roles, perhaps none, of one stage, and shows progress."""


@dataclass(frozen=True)
class Outcome:
    """The result of bringing a run up to date."""

    plan: Plan
    artifacts: dict[str, Artifact]
    """Every artifact of the run that exists, by role."""
    made: list[str]
    """Roles that were made just now, in order."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """Stage → its cost the last time that a run of the name made its artifacts."""

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.plan.config

    @cached_property
    def is_complete(self) -> bool:
        """Nothing of the full run is missing."""
        return is_finished(self.plan)


Listener = Callable[[str, Sequence[tuple[int, str, str, float]]], None]
"""Takes the role of a checkpoint in the making, and the measures of its last epochs: epoch, domain, metric, value."""


def make_roles(
    plan: Plan, stage: str, roles: list[str], watch: Watch = no_watcher, listener: Listener | None = None
) -> dict[str, Artifact]:
    """Make the missing roles of a stage, one after another, as plain function calls."""
    made = {}
    for role in roles:
        if plan.find(role) is None:  # otherwise it was made together with an earlier role
            log.info("%s: making %s", stage, role)
        try:
            with watch(role) as progress:
                made[role] = make_step(plan, role, progress, listener)
        except Exception as error:
            error.add_note(f"{stage} of run {plan.config.name!r} stopped while making {role}")
            raise
    return made


def make_step(plan: Plan, role: str, progress: Progress = silent, listener: Listener | None = None) -> Artifact:
    """Make one artifact of a run, whose parents exist.

    Raises:
        RuntimeError: the stage's artifact has another key than planned: the table of stages and the function disagree.
        FileNotFoundError: an artifact of the update's base was deleted.
    """
    if existing := plan.find(role):  # it was made together with an earlier role
        return existing
    step = plan.steps[role]
    product, parents = step.product, _find_parents(plan, step)
    options: dict[str, Any] = _training_options(plan, step, listener) if product.contract is CHECKPOINT else {}
    if product.previous:
        options["previous"] = _find_previous(plan, step)
    log.debug("%s: key %s, from %s, settings %s", role, step.key, dict(step.parents), dict(step.settings))
    function = resolve_name(product.function)
    announce_compilation()
    made = function(
        plan.store,
        product.settings(plan.config, step.role.seed),
        plan.logs if product.reads_logs else parents,
        plan.config.compute,
        progress,
        **options,
    )
    artifact = made if isinstance(made, Artifact) else made[role]
    if artifact.key != step.key:
        raise RuntimeError(f"{role}: planned key is {step.key}, the stage made {artifact.key}; their settings differ")
    return artifact


def _find_parents(plan: Plan, step: Step) -> dict[str, Artifact]:
    """The step's parents by role, without those of the update's base, which must only exist."""
    roles = {text: Role.parse(text) for text in step.parents}
    artifacts = {text: plan.store.find(role.contract, step.parents[text]) for text, role in roles.items()}
    absent = [text for text, artifact in artifacts.items() if artifact is None]
    if absent_previous := [text for text in absent if roles[text].is_previous]:
        text = absent_previous[0]
        address = f"{plan.store}/{roles[text].contract.name}/{step.parents[text]}"
        raise missing_base_error(plan.config.name, address)
    if absent:
        raise RuntimeError(f"{step.role}: its parents {', '.join(absent)} must exist and do not")
    return {text: artifact for text, artifact in artifacts.items() if artifact and not roles[text].is_previous}


def _find_previous(plan: Plan, step: Step) -> dict[str, Artifact]:
    """Artifacts of the update's base that the stage gets; none unless all of them exist."""
    roles = plan.previous_roles(step.role, step.product)
    artifacts = {str(role): artifact for role in roles if (artifact := plan.find_previous(role))}
    return artifacts if len(artifacts) == len(roles) else {}


def _training_options(plan: Plan, step: Step, listener: Listener | None) -> dict[str, Any]:
    """Where a training shows its curves, and the processes that share the work."""
    from model.compute.column_parallel import SINGLE_PROCESS
    from model.training.tracking import Tracking

    track = partial(listener, str(step.role)) if listener else None
    tracking = Tracking(plan.config.tracking, plan.config.name, f"{step.role}-{step.key}", track)
    return {"tracking": tracking, "processes": group.get() or SINGLE_PROCESS}


def is_finished(plan: Plan, stage: str | None = None) -> bool:
    """Nothing is left to do for a stage, or by default for the full run."""
    wanted = plan.roles(stage)
    return bool(wanted) and (WORLD.name not in plan.steps or len(plan.steps) > 1) and not plan.missing(wanted)


@dataclass(frozen=True)
class Execution:
    """How to execute a run.

    Attributes:
        work: makes the missing roles of a stage; a scheduler wraps its own task around `make_roles`.
        watch: shows the progress of each role: bars on a terminal, log lines elsewhere.
        command: resumes the run if it is interrupted; kept in its record.
        digests: of the log files that this process has read.
    """

    work: Work = make_roles
    watch: Watch = no_watcher
    command: str = "edda run RUN.toml"
    digests: Digests = field(default_factory=Digests)


def run_stages(config: RunConfig, stage: str | None = None, execution: Execution | None = None) -> Outcome:
    """Bring a run, or one of its stages and what that needs, up to date, and record it under the run's name.

    Args:
        config: the run.
        stage: a stage's command; all stages by default.
        execution: by default as plain function calls, without progress.
    """
    execution = execution or Execution()
    with open_store(store_location(config)).lock_run(config.name):
        return _run_stages(config, stage, execution)


def _run_stages(config: RunConfig, stage: str | None, execution: Execution) -> Outcome:
    costs: dict[str, Cost] = {}
    made: list[str] = []
    plan = make_plan(config, execution.digests)
    if config.world is not None:
        missing = plan.missing([WORLD.name])
        _record_attempt(plan, WORLD.name, execution, costs)
        _run_stage(plan, WORLD.name, missing, execution, costs)
        made += missing
        if missing:  # the logs are there now, and all keys follow from them
            plan = make_plan(config, execution.digests)
    missing = plan.missing(plan.roles(stage))
    if any(plan.steps[role].contract is CHECKPOINT for role in missing):
        _require_device(config.train)
    for name in stages_needed(plan, stage):
        roles = [role for role in missing if plan.steps[role].stage == name]
        _record_attempt(plan, stage, execution, costs)
        _run_stage(plan, name, roles, execution, costs)
        made += roles
    artifacts = plan.existing()
    if INTERACTIONS.name in made:
        _say_lost_domains(plan, artifacts[INTERACTIONS.name])
    outcome = Outcome(plan, artifacts, made, known_costs(plan, artifacts) | costs)
    if made or not is_recorded(outcome):
        record(outcome)
    return outcome


def _require_device(train: TrainSettings) -> None:
    """Refuse, before the stages that need neither, a training whose device or engine is not there.

    Raises:
        ValueError: torch finds no CUDA device.
        ModuleNotFoundError: torch-sparse is not installed.
    """
    if train.device == "cuda" or train.engine == "torch-sparse":  # otherwise torch is imported when it is needed
        from model.compute.device import require_device
        from model.sparse.matrix import require_engine

        require_device(train.device)
        require_engine(train.engine)


def _say_lost_domains(plan: Plan, interactions: Artifact) -> None:
    lost = lost_domains(plan.store, plan.config, interactions)
    if lost:
        log.warning(
            "the last run %r had %s, which the logs do not have any more; if a file is missing, bring it back and run "
            "again",
            *(plan.config.name, ", ".join(f"domain {name!r} ({rows:,} interactions)" for name, rows in lost.items())),
        )


def _run_stage(plan: Plan, stage: str, roles: list[str], execution: Execution, costs: dict[str, Cost]) -> None:
    """Make the missing roles of a stage and add its cost to `costs`."""
    started = time.monotonic()
    with resident_memory() as peak:
        execution.work(plan, stage, roles, execution.watch)
    if roles:
        cost = costs[stage] = Cost(seconds=round(time.monotonic() - started, 1), memory_mib=peak())
        log.debug("%s: %s s, at most %s MiB", stage, cost.seconds, f"{cost.memory_mib:,}")


def _record_attempt(plan: Plan, stage: str | None, execution: Execution, costs: Mapping[str, Cost]) -> None:
    """Record what a run is about to make, so that it is not garbage if the run is killed."""
    missing = plan.missing(plan.roles(stage))
    if not missing:
        return
    existing, stages = plan.existing(), {WORLD.name, *stages_needed(plan, stage)}
    wanted = [role for role, step in plan.steps.items() if step.stage in stages]
    planned = {role: plan.steps[role] for role in wanted if role in existing or role in missing}
    attempt = Attempt(
        command=execution.command,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=plan.config.model_dump(mode="json"),
        planned={role: (step.contract.name, step.key) for role, step in planned.items()},
        costs={**known_costs(plan, existing), **costs},
    )
    plan.store.begin_attempt(plan.config.name, attempt)


def stages_needed(plan: Plan, stage: str | None) -> list[str]:
    """Stages that a stage (or the full run) needs, itself included, in order."""
    waiting = plan.roles(stage)
    needed: set[str] = set()  # stages
    while waiting:
        role = waiting.pop()
        needed.add(plan.steps[role].stage)
        waiting += plan.own_parents(role)
    return [name for name in STAGE_NAMES if name in needed]


def record(outcome: Outcome) -> None:
    """Record a finished run under its name: its artifacts, settings and costs; the record of the attempt is removed.

    The name goes on to mean a complete generation until another one is complete.
    """
    store, name = outcome.plan.store, outcome.config.name
    finished = RunRecord.build(
        outcome.config.name,
        outcome.artifacts,
        config=outcome.config.model_dump(mode="json"),
        seconds={role: artifact.manifest.made["seconds"] for role, artifact in outcome.artifacts.items()},
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        is_complete=outcome.is_complete,
        made=outcome.made,
        before=dict(outcome.plan.base),
        log_versions={file.name: file.version for file in outcome.plan.logs},
        costs=outcome.costs,
        peak_memory_mib=peak_memory_mib(),
    )
    present = store.record(name)
    if present and present.is_whole and not finished.is_whole:
        store.end_attempt(name)
        if finished.artifacts.items() <= present.artifacts.items():
            return
        store.keep_generation(finished)
        log.info(
            "%r stays generation %s, because %s is not complete; `edda run` with the same settings completes it",
            name,
            present.generation,
            finished.generation,
        )
        return
    if present and present.is_whole and present.generation != finished.generation:
        store.keep_generation(present.model_copy(update={"attempt": None}))
        log.info("run %r is generation %s now; %s is kept", name, finished.generation, present.generation)
    store.link_run(finished)
    _unlink_stale_index(outcome)


def _unlink_stale_index(outcome: Outcome) -> None:
    """Unlink an index of vectors that the run no longer serves; the link would only keep them from being garbage."""
    store, name = outcome.plan.store, outcome.config.name
    index = store.link_target(name, INDEX.name)
    if index is None or EMBEDDINGS.name not in outcome.artifacts:
        return
    from model.serving.scorer import served_artifacts

    served = {role: artifact.folder.name for role, artifact in served_artifacts(outcome.artifacts).items()}
    if not index.is_readable or index.manifest.parents != served:
        store.unlink(name, INDEX.name)
        log.info("the index of run %r was built from other vectors; build a new one with: edda index %s", name, name)


def is_recorded(outcome: Outcome) -> bool:
    """A record of the run's name already names exactly these artifacts, and no attempt."""
    store, name = outcome.plan.store, outcome.config.name
    if store.record(name) is None:
        return False
    present, *others = store.generations(name)
    if present.attempt is not None:
        return False
    if outcome.is_complete or not present.is_whole:
        return store.recorded(present) == outcome.artifacts
    return any(store.recorded(record).items() >= outcome.artifacts.items() for record in (present, *others))


def known_costs(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, Cost]:
    """Costs of stages from the last record and attempt of the run's name, if their artifacts are still the same."""
    recorded = plan.store.record(plan.config.name)
    if recorded is None:
        return {}
    sources: Sequence[tuple[Mapping[str, tuple[str, str]], Mapping[str, Cost]]] = [(recorded.artifacts, recorded.costs)]
    if recorded.attempt:
        sources = [*sources, (recorded.attempt.planned, recorded.attempt.costs)]
    costs: dict[str, Cost] = {}
    for recorded_artifacts, recorded_costs in sources:
        keys = {role: key for role, (_, key) in recorded_artifacts.items()}
        changed = {step.stage for role, step in plan.steps.items() if role in artifacts and keys.get(role) != step.key}
        costs |= {stage: cost for stage, cost in recorded_costs.items() if stage not in changed}
    return costs
