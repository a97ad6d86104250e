"""Run a plan stage by stage: what exists is left alone, what is missing is made, the run is recorded."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from data_contracts.contracts import (
    BEFORE,
    BLEND,
    CHECKPOINT,
    EMBEDDINGS,
    GRAPH,
    INDEX,
    INTERACTIONS,
    METRICS,
    NEIGHBOURS,
    NODES,
    PAIRS,
    REACH,
    RECOMMENDATIONS,
    REJECTS,
    WORLD,
)
from data_contracts.open_store import open_store
from data_contracts.progress import Progress, silent
from data_contracts.remote.run_lock import claimed
from data_contracts.remote.store import RemoteStore
from data_contracts.resources import peak_memory_mib, resident_memory
from data_contracts.settings import ComputeSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.claims import is_held
from data_contracts.store.files import require_writable
from data_contracts.store.runs import Attempt, attempt_of, begin
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig, store_place
from flows.output.console import Watch
from flows.runner.plan import Plan, Step, make_plan
from flows.runner.stages import STAGES, contract_of
from flows.runner.torchrun import columns
from flows.runner.update_base import gone_error
from model.serving.scorer import served_artifacts

log = logging.getLogger(__name__)


def nobody(_role: str) -> AbstractContextManager[Progress]:
    """Watches nothing."""
    return nullcontext(silent)


watch: ContextVar[Watch] = ContextVar("watch", default=nobody)
"""Who watches the work of this process: bars on a terminal, log lines elsewhere."""

Work = Callable[[Plan, str, list[str]], dict[str, Artifact]]
"""Make the named missing roles (perhaps none) of one stage."""


@dataclass(frozen=True)
class Cost:
    """What a stage took: seconds, and the process's largest resident size meanwhile, without a cluster's workers."""

    seconds: float
    memory_mib: int


@dataclass(frozen=True)
class Outcome:
    """What a run has and what of it is new."""

    plan: Plan
    artifacts: dict[str, Artifact]
    """Every artifact of the run that exists, by role."""
    made: list[str]
    """Roles that were made just now, in order."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """Stage → what it cost the last time that the run's name made its artifacts."""

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.plan.config


def make_roles(plan: Plan, stage: str, roles: list[str]) -> dict[str, Artifact]:
    """The plain way to work on a stage: make its missing roles one after another."""
    made = {}
    for role in roles:
        if plan.find(role) is None:  # else it came with the role before
            log.info("%s: making %s", stage, role)
        try:
            with watch.get()(role) as progress:
                made[role] = make_step(plan, role, progress)
        except Exception as error:
            error.add_note(f"{stage} of run {plan.config.name!r} stopped while making {role}")
            raise
    return made


def file_with_options(path: Path, overrides: Sequence[str]) -> str:
    """A run's file with its overrides, as a command line takes them from any folder."""
    return shlex.join([str(path.absolute()), *(word for override in overrides for word in ("--set", override))])


def is_finished(plan: Plan, stage: str | None = None) -> bool:
    """Nothing is left to do for a stage, or for the full run."""
    wanted = plan.roles(stage)
    return bool(wanted) and (WORLD.name not in plan.steps or len(plan.steps) > 1) and not plan.missing(wanted)


def run_stages(config: RunConfig, stage: str | None = None, work: Work = make_roles, file: str = "RUN.toml") -> Outcome:
    """Bring a run, or one stage of it and what that needs, up to date, and record it under the run's name.

    Args:
        config: the run.
        stage: its name as in `STAGES`; all of them by default.
        work: does the work of one stage; a scheduler wraps its own task around `make_roles` here.
        file: the run's file with its options, as a command line takes them: the record says so how to go on.
    """
    with _only_one(open_store(store_place(config)), config.name):
        return _run_stages(config, stage, work, f"edda {stage or 'run'} {file}")


def _run_stages(config: RunConfig, stage: str | None, work: Work, command: str) -> Outcome:
    costs: dict[str, Cost] = {}
    made: list[str] = []
    plan = make_plan(config)
    if config.world is not None:
        _begin(plan, WORLD.name, command, costs)
        _do(plan, WORLD.name, plan.missing([WORLD.name]), work, costs)
        made += [] if len(plan.steps) > 1 else [WORLD.name]
        plan = make_plan(config)
    missing = plan.missing(plan.roles(stage))
    for name in stages_needed(plan, stage):
        roles = [role for role in missing if plan.steps[role].stage == name]
        _begin(plan, stage, command, costs)
        _do(plan, name, roles, work, costs)
        made += roles
    found = plan.found()
    outcome = Outcome(plan, found, made, costs_before(plan, found) | costs)
    if made or not is_recorded(outcome):
        record(outcome)
    return outcome


def _begin(plan: Plan, stage: str | None, command: str, costs: Mapping[str, Cost]) -> None:
    """Record what a run is about to make, before it makes it: killed then, nothing of it is garbage."""
    missing = plan.missing(plan.roles(stage))
    if not missing:
        return
    found, stages = plan.found(), {WORLD.name, *stages_needed(plan, stage)}
    roles = [role for role, step in plan.steps.items() if step.stage in stages and (role in found or role in missing)]
    planned = {role: (plan.steps[role].contract.name, plan.steps[role].key) for role in roles}
    so_far = {**costs_before(plan, found), **costs}
    settings = plan.config.model_dump(mode="json")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    attempt = Attempt(command, now, settings, planned, {stage: asdict(cost) for stage, cost in so_far.items()})
    begin(plan.store, plan.config.name, attempt)


def run_lock(store: Store, name: str) -> FileLock:
    """Held while a run of that name works in a store."""
    return FileLock(store.root / "runs" / f".{name}.lock")


@contextmanager
def _only_one(store: Store, name: str) -> Iterator[None]:
    """One run of a name works in a store at a time, whoever started it: the next waits. A killed one holds no lock."""
    require_writable(store.root, f"work on run {name!r}", "name another by --store, or do it as somebody who may")
    (store.root / "runs").mkdir(parents=True, exist_ok=True)
    lock = run_lock(store, name)
    if is_held(lock):
        log.info("waiting for another run named %r, which works in %s", name, store)
    with lock:
        if isinstance(store, RemoteStore):
            with claimed(store.remote, name, Path(lock.lock_file).with_suffix(".claim")):
                yield
        else:
            yield


def stages_needed(plan: Plan, stage: str | None) -> list[str]:
    """Stages that a stage (or the full run) stands on, itself included, in order."""
    waiting = plan.roles(stage)
    needed: set[str] = set()
    while waiting:
        step = plan.steps[waiting.pop()]
        needed.add(step.stage)
        waiting += plan.own_parents(step.role)
    return [name for name in STAGES if name in needed]


def record(outcome: Outcome) -> None:
    """Link the run's artifacts under its name, with its settings and what each artifact cost; no attempt is left."""
    details = {
        "config": outcome.config.model_dump(mode="json"),
        "seconds": {role: artifact.manifest.made["seconds"] for role, artifact in outcome.artifacts.items()},
        "made": outcome.made,
        "before": dict(outcome.plan.before),
        "log_versions": {log_file.name: log_file.version for log_file in outcome.plan.logs},
        "costs": {stage: asdict(cost) for stage, cost in outcome.costs.items()},
        "peak_memory_mib": peak_memory_mib(),
    }
    outcome.plan.store.link_run(outcome.config.name, outcome.artifacts, details)
    _let_go_of_index(outcome)


def _let_go_of_index(outcome: Outcome) -> None:
    """An index of what the run no longer serves is of no use, and would keep that from being garbage."""
    store, name = outcome.plan.store, outcome.config.name
    index = store.link_target(name, INDEX.name)
    if index is None or EMBEDDINGS.name not in outcome.artifacts:
        return
    served = {role: artifact.folder.name for role, artifact in served_artifacts(outcome.artifacts).items()}
    if not index.is_readable or index.manifest.parents != served:
        store.unlink(name, INDEX.name)
        log.info("the index of run %r was of other vectors; make one of these with: edda index %s", name, name)


def is_recorded(outcome: Outcome) -> bool:
    """The run's record names these artifacts already, and nothing that is yet to be made."""
    recorded = outcome.plan.store.find_run(outcome.config.name)
    return recorded is not None and recorded[0] == outcome.artifacts and attempt_of(recorded[1]) is None


def costs_before(plan: Plan, found: Mapping[str, Artifact]) -> dict[str, Cost]:
    """What stages had cost when the run's name was last recorded or begun, where their artifacts are the same."""
    before, details = plan.store.find_run(plan.config.name) or ({}, {})
    known = [({role: artifact.folder.name for role, artifact in before.items()}, details.get("costs", {}))]
    if begun := attempt_of(details):
        known.append(({role: key for role, (_, key) in begun.planned.items()}, begun.costs))
    costs: dict[str, Cost] = {}
    for keys, of_stages in known:
        other = {plan.steps[role].stage for role in found if keys.get(role) != plan.steps[role].key}
        costs |= {stage: Cost(**cost) for stage, cost in of_stages.items() if stage not in other}
    return costs


def _do(plan: Plan, stage: str, roles: list[str], work: Work, costs: dict[str, Cost]) -> None:
    started = time.monotonic()
    with resident_memory() as peak:
        work(plan, stage, roles)
    if roles:
        costs[stage] = Cost(round(time.monotonic() - started, 1), peak())


@dataclass(frozen=True)
class Job:
    """What a stage function needs to make one artifact: the plan it belongs to, its step, its parents, who listens."""

    plan: Plan
    step: Step
    parents: Mapping[str, Artifact]
    progress: Progress

    @property
    def rest(self) -> tuple[Mapping[str, Artifact], ComputeSettings, Progress]:
        """The arguments that end every stage's signature."""
        return self.parents, self.plan.config.compute, self.progress

    def before(self, *roles: str) -> dict[str, Artifact]:
        """What an update may copy from, by role; nothing where not all of it is there."""
        found = {role: artifact for role in roles if (artifact := self.plan.find_before(role))}
        return found if len(found) == len(roles) else {}


def _world(job: Job) -> Artifact:
    from pipeline.synthetic import make_world

    settings = job.plan.config.world
    if settings is None:
        raise ValueError("the run's file has no [world] to generate")
    return make_world(job.plan.store, settings, job.plan.config.compute, job.progress)


def _ingest(job: Job) -> Artifact:
    from pipeline.ingest.stage import ingest

    plan = job.plan
    before = job.before(NODES.name, INTERACTIONS.name)
    made = ingest(plan.store, plan.config.ingest, plan.logs, plan.config.compute, job.progress, before)
    return made[job.step.contract.name]


def _nodes(job: Job) -> Artifact:
    from pipeline.graph import number_nodes

    return number_nodes(job.plan.store, job.plan.config.graph, *job.rest, job.plan.find_before(NODES.name))


def _graph(job: Job) -> Artifact:
    from pipeline.graph import build_graph

    return build_graph(job.plan.store, *job.rest)


def _neighbours(job: Job) -> Artifact:
    from pipeline.neighbours.stage import build_neighbours

    return build_neighbours(job.plan.store, job.plan.config.neighbours, *job.rest)


def _reach(job: Job) -> Artifact:
    from pipeline.reach.stage import describe_reach

    before = job.before(NODES.name, GRAPH.name, REACH.name)
    return describe_reach(job.plan.store, job.plan.config.reach, *job.rest, before)


def _pairs(job: Job) -> Artifact:
    from pipeline.pairs.stage import pair_domains

    before = job.before(NODES.name, REACH.name, PAIRS.name)
    return pair_domains(job.plan.store, job.plan.config.pairs, *job.rest, before)


def _checkpoint(job: Job) -> Artifact:
    from model.compute.column_parallel import SINGLE_PROCESS
    from model.training.stage import train
    from model.training.tracking import Tracking

    config, step = job.plan.config, job.step
    seen = Tracking(config.tracking, config.name, f"{step.role}-{step.key}"), columns.get() or SINGLE_PROCESS
    return train(job.plan.store, config.train, step.settings["seed"], config.evaluate, *job.rest, *seen)


def _blend(job: Job) -> Artifact:
    from model.evaluation.blend_stage import fit_blend

    return fit_blend(job.plan.store, job.plan.config.blend, *job.rest)


def _metrics(job: Job) -> Artifact:
    from model.evaluation.stage import evaluate

    return evaluate(job.plan.store, job.plan.config.evaluate, *job.rest)


def _embeddings(job: Job) -> Artifact:
    from model.serving.export import export_embeddings

    return export_embeddings(job.plan.store, job.plan.config.export, *job.rest)


def _recommendations(job: Job) -> Artifact:
    from model.serving.export import export_recommendations

    return export_recommendations(job.plan.store, job.plan.config.export, *job.rest)


_MAKERS: dict[str, Callable[[Job], Artifact]] = {
    WORLD.name: _world,
    REJECTS.name: _ingest,
    INTERACTIONS.name: _ingest,
    NODES.name: _nodes,
    GRAPH.name: _graph,
    NEIGHBOURS.name: _neighbours,
    REACH.name: _reach,
    PAIRS.name: _pairs,
    CHECKPOINT.name: _checkpoint,
    BLEND.name: _blend,
    METRICS.name: _metrics,
    EMBEDDINGS.name: _embeddings,
    RECOMMENDATIONS.name: _recommendations,
}


def make_step(plan: Plan, role: str, progress: Progress = silent) -> Artifact:
    """Make one artifact of a run; its parents exist.

    Raises:
        RuntimeError: the stage's artifact has another key than planned: `flows.runner.plan` and the stage disagree.
        FileNotFoundError: what an update goes on from was deleted.
    """
    step = plan.steps[role]
    parents = {parent: plan.store.find(contract_of(parent), key) for parent, key in step.parents.items()}
    absent = [parent for parent, artifact in parents.items() if artifact is None]
    for parent in absent:
        if parent.endswith(f"-{BEFORE}"):
            raise gone_error(plan.config.name, f"{plan.store}/{contract_of(parent).name}/{step.parents[parent]}")
    if absent:
        raise RuntimeError(f"{role}: {', '.join(absent)} must exist before it, and does not")
    made = _MAKERS[step.contract.name](Job(plan, step, {p: a for p, a in parents.items() if a}, progress))
    if made.key != step.key:
        raise RuntimeError(f"{role}: planned key is {step.key}, the stage made {made.key}; their settings differ")
    return made
