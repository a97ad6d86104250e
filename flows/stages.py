"""From a planned step to the stage function that makes it; what is not needed is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from data_contracts.artifact import Artifact
from data_contracts.contracts import (
    CHECKPOINT,
    EMBEDDINGS,
    GRAPH,
    INTERACTIONS,
    METRICS,
    NODES,
    PAIRS,
    REACH,
    RECOMMENDATIONS,
    REJECTS,
    WORLD,
)
from data_contracts.progress import Progress, silent
from flows.plan import Plan, Step

Parents = Mapping[str, Artifact]


def make_step(plan: Plan, role: str, progress: Progress = silent) -> Artifact:
    """Make one artifact of a run; its parents exist.

    Raises:
        RuntimeError: the stage's artifact has another key than planned: `flows.plan` and the stage disagree.
    """
    step = plan.steps[role]
    parents = {parent: plan.store.find(plan.steps[parent].contract, key) for parent, key in step.parents.items()}
    absent = [parent for parent, artifact in parents.items() if artifact is None]
    if absent:
        raise RuntimeError(f"{role}: {', '.join(absent)} must exist before it, and does not")
    made = _MAKERS[step.contract.name](plan, step, {p: a for p, a in parents.items() if a}, progress)
    if made.key != step.key:
        raise RuntimeError(f"{role}: planned key is {step.key}, the stage made {made.key}; their settings differ")
    return made


def _world(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.world import make_world

    assert plan.config.world is not None
    return make_world(plan.store, plan.config.world, plan.config.compute, progress)


def _ingest(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.interactions import ingest

    config = plan.config
    return ingest(plan.store, config.ingest, plan.logs, config.compute, progress)[step.contract.name]


def _nodes(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.nodes import number_nodes

    return number_nodes(plan.store, plan.config.graph, parents, plan.config.compute, progress)


def _graph(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.graph import build_graph

    return build_graph(plan.store, parents, plan.config.compute, progress)


def _reach(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.reach import describe_reach

    return describe_reach(plan.store, plan.config.reach, parents, plan.config.compute, progress)


def _pairs(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from pipeline.pairs import align_domains

    return align_domains(plan.store, plan.config.pairs, parents, plan.config.compute, progress)


def _checkpoint(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from model.train import train

    config, seed = plan.config, step.settings["seed"]
    return train(plan.store, config.train, seed, config.evaluate, parents, config.compute, progress)


def _metrics(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from model.evaluate import evaluate

    return evaluate(plan.store, plan.config.evaluate, parents, plan.config.compute, progress)


def _embeddings(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from model.export import export_embeddings

    return export_embeddings(plan.store, plan.config.export, parents, plan.config.compute, progress)


def _recommendations(plan: Plan, step: Step, parents: Parents, progress: Progress) -> Artifact:
    from model.export import export_recommendations

    return export_recommendations(plan.store, plan.config.export, parents, plan.config.compute, progress)


_MAKERS: dict[str, Callable[[Plan, Step, Parents, Progress], Artifact]] = {
    WORLD.name: _world,
    REJECTS.name: _ingest,
    INTERACTIONS.name: _ingest,
    NODES.name: _nodes,
    GRAPH.name: _graph,
    REACH.name: _reach,
    PAIRS.name: _pairs,
    CHECKPOINT.name: _checkpoint,
    METRICS.name: _metrics,
    EMBEDDINGS.name: _embeddings,
    RECOMMENDATIONS.name: _recommendations,
}
