"""From a planned step to the stage function that makes it; what is not needed is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from data_contracts.artifact import Artifact
from data_contracts.contracts import (
    BEFORE,
    BLEND,
    CHECKPOINT,
    EMBEDDINGS,
    GRAPH,
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
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings
from flows.plan import Plan, Step, contract_of
from flows.previous import gone_error
from flows.ranks import columns


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


def make_step(plan: Plan, role: str, progress: Progress = silent) -> Artifact:
    """Make one artifact of a run; its parents exist.

    Raises:
        RuntimeError: the stage's artifact has another key than planned: `flows.plan` and the stage disagree.
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


def _world(job: Job) -> Artifact:
    from pipeline.world import make_world

    settings = job.plan.config.world
    if settings is None:
        raise ValueError("the run's file has no [world] to generate")
    return make_world(job.plan.store, settings, job.plan.config.compute, job.progress)


def _ingest(job: Job) -> Artifact:
    from pipeline.interactions import ingest

    plan = job.plan
    before = job.before(NODES.name, INTERACTIONS.name)
    made = ingest(plan.store, plan.config.ingest, plan.logs, plan.config.compute, job.progress, before)
    return made[job.step.contract.name]


def _nodes(job: Job) -> Artifact:
    from pipeline.nodes import number_nodes

    return number_nodes(job.plan.store, job.plan.config.graph, *job.rest, job.plan.find_before(NODES.name))


def _graph(job: Job) -> Artifact:
    from pipeline.graph import build_graph

    return build_graph(job.plan.store, *job.rest)


def _neighbours(job: Job) -> Artifact:
    from pipeline.neighbours.stage import build_neighbours

    return build_neighbours(job.plan.store, job.plan.config.neighbours, *job.rest)


def _reach(job: Job) -> Artifact:
    from pipeline.reach import describe_reach

    before = job.before(NODES.name, GRAPH.name, REACH.name)
    return describe_reach(job.plan.store, job.plan.config.reach, *job.rest, before)


def _pairs(job: Job) -> Artifact:
    from pipeline.pairs import pair_domains

    before = job.before(NODES.name, REACH.name, PAIRS.name)
    return pair_domains(job.plan.store, job.plan.config.pairs, *job.rest, before)


def _checkpoint(job: Job) -> Artifact:
    from model.columns import ALONE
    from model.tracking import Tracking
    from model.train import train

    config, step = job.plan.config, job.step
    seen = Tracking(config.tracking, config.name, f"{step.role}-{step.key}"), columns.get() or ALONE
    return train(job.plan.store, config.train, step.settings["seed"], config.evaluate, *job.rest, *seen)


def _blend(job: Job) -> Artifact:
    from model.evaluation.blend_stage import fit_blend

    return fit_blend(job.plan.store, job.plan.config.blend, *job.rest)


def _metrics(job: Job) -> Artifact:
    from model.evaluate import evaluate

    return evaluate(job.plan.store, job.plan.config.evaluate, *job.rest)


def _embeddings(job: Job) -> Artifact:
    from model.export import export_embeddings

    return export_embeddings(job.plan.store, job.plan.config.export, *job.rest)


def _recommendations(job: Job) -> Artifact:
    from model.export import export_recommendations

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
