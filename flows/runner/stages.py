"""The table of stages: what each makes and of what, which function makes it, and how people call it.

The plan, the commands, the Prefect flow and its deployments follow from this table. Functions are named, not imported,
so a command imports only the stages that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.contracts import (
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
    Role,
)
from data_contracts.schema import Contract
from data_contracts.settings import Settings
from data_contracts.train_settings import CheckpointSettings
from flows.config.run_config import RunConfig


def _always(_run: RunConfig) -> bool:
    return True


def _nothing(_run: RunConfig, _seed: int | None) -> Sequence[Role]:
    return ()


@dataclass(frozen=True)
class Product:
    """An artifact that a stage makes, or one for each training seed."""

    contract: Contract
    function: str
    """`package.module:function`; called with store, settings, parents, compute, progress and, where the product has
    any, `previous`."""
    settings: Callable[[RunConfig, int | None], Settings]
    """The function's settings, of a run and a seed."""
    parents: Callable[[RunConfig, int | None], Sequence[Role]] = _nothing
    """What it is made of."""
    key: Callable[[Any], Mapping[str, Any]] = lambda settings: settings.keyed()
    """What of the settings enters the artifact's key."""
    previous: tuple[Contract, ...] = ()
    """Artifacts of an earlier run that an update hands to the function: all of them or none."""
    keyed_previous: tuple[Contract, ...] = ()
    """Those that enter the key, because the content depends on them."""
    reads_logs: bool = False
    """The function gets the run's log files in place of parents, and their content enters the key."""
    per_seed: bool = False
    """There is one for each of `train.seeds`."""
    exists: Callable[[RunConfig], bool] = _always
    """The run has such an artifact."""
    in_full_run: Callable[[RunConfig], bool] = _always
    """A full run makes it; otherwise only the stage's own command, or a stage that needs it."""


@dataclass(frozen=True)
class Stage:
    """A step of a run, with a command of its own."""

    command: str
    help: str
    products: tuple[Product, ...]


def _prepared() -> list[Role]:
    return [Role(INTERACTIONS), Role(NODES), Role(GRAPH)]


def _evidence(run: RunConfig) -> list[Role]:
    return [Role(NEIGHBOURS)] if run.blend.evidence else []


def _of_checkpoint(run: RunConfig, seed: int | None) -> CheckpointSettings:
    return CheckpointSettings(train=run.train, seed=seed, validation=run.evaluate)


def _trained_on(run: RunConfig, _seed: int | None) -> list[Role]:
    aligned = [Role(PAIRS)] if run.aligns else []
    return [*_prepared(), *aligned, *(_evidence(run) if run.train.selects_by_ndcg else [])]


def _measured(run: RunConfig, _seed: int | None) -> list[Role]:
    checkpoints = [Role(CHECKPOINT, seed) for seed in run.train.seeds]
    blends = [Role(BLEND, seed) for seed in run.train.seeds] if run.blend.evidence else []
    return [*_prepared(), *_evidence(run), *checkpoints, *blends]


def _listed(run: RunConfig, _seed: int | None) -> list[Role]:
    blend = [Role(NODES), *_evidence(run), Role(BLEND, run.train.seeds[0])] if run.blend.evidence else []
    return [Role(GRAPH), Role(EMBEDDINGS), *blend]


def _world(run: RunConfig, _seed: int | None) -> Settings:
    if run.world is None:
        raise ValueError("the run's file has no [world] to generate")
    return run.world


WORLD_STAGE = Stage("world", "Generate the logs.", (Product(WORLD, "pipeline.synthetic:make_world", _world),))
"""Comes before the others where a run generates its logs; it has no command."""

_INGEST = "pipeline.ingest.stage:ingest"

STAGES = (
    Stage(
        "ingest",
        "Read the raw logs: interactions and rejects.",
        (
            Product(
                REJECTS, _INGEST, lambda run, _: run.ingest, reads_logs=True,
                previous=(NODES, INTERACTIONS), keyed_previous=(INTERACTIONS,),
            ),
            Product(
                INTERACTIONS, _INGEST, lambda run, _: run.ingest, reads_logs=True,
                previous=(NODES, INTERACTIONS), keyed_previous=(NODES, INTERACTIONS),
            ),
        ),
    ),
    Stage(
        "graph",
        "Number users and items and build each domain's train graph.",
        (
            Product(
                NODES, "pipeline.graph:number_nodes", lambda run, _: run.graph, lambda *_: [Role(INTERACTIONS)],
                previous=(NODES,),
            ),
            Product(
                GRAPH, "pipeline.graph:build_graph", lambda run, _: run.graph,
                lambda *_: [Role(INTERACTIONS), Role(NODES)], key=lambda _: {},
            ),
        ),
    ),
    Stage(
        "neighbours",
        "Find the items that three-step walks over all domains' train interactions tie each item to.",
        (
            Product(
                NEIGHBOURS, "pipeline.neighbours.stage:build_neighbours", lambda run, _: run.neighbours,
                lambda *_: [Role(NODES), Role(GRAPH)], in_full_run=lambda run: run.blend.evidence,
            ),
        ),
    ),
    Stage(
        "walk",
        "Describe each user and item by the anchors that random walks reach.",
        (
            Product(
                REACH, "pipeline.reach.stage:compute_reach", lambda run, _: run.reach,
                lambda *_: [Role(NODES), Role(GRAPH)], previous=(NODES, GRAPH, REACH),
                in_full_run=lambda run: run.aligns,
            ),
        ),
    ),
    Stage(
        "align",
        "Pair users and items of different domains that reach the same anchors.",
        (
            Product(
                PAIRS, "pipeline.pairs.stage:pair_domains", lambda run, _: run.pairs,
                lambda *_: [Role(NODES), Role(REACH)], previous=(NODES, REACH, PAIRS),
                in_full_run=lambda run: run.aligns,
            ),
        ),
    ),
    Stage(
        "train",
        "Train a checkpoint per seed, under torchrun by several processes; continues where it was interrupted.",
        (
            Product(
                CHECKPOINT, "model.training.stage:train", _of_checkpoint, _trained_on, per_seed=True,
                previous=(CHECKPOINT, INTERACTIONS, NODES, GRAPH),
                keyed_previous=(CHECKPOINT, INTERACTIONS, NODES, GRAPH),
            ),
        ),
    ),
    Stage(
        "blend",
        "Fit how much evidence from walks weighs beside the vectors, by domain.",
        (
            Product(
                BLEND, "model.evaluation.blend_stage:fit_blend", lambda run, _: run.blend,
                lambda run, seed: [*_prepared(), *_evidence(run), Role(CHECKPOINT, seed)],
                per_seed=True, exists=lambda run: run.blend.evidence,
            ),
        ),
    ),
    Stage(
        "evaluate",
        "Measure the checkpoints on held-out interactions.",
        (Product(METRICS, "model.evaluation.stage:evaluate", lambda run, _: run.evaluate, _measured),),
    ),
    Stage(
        "export",
        "Write embeddings and recommendations with the logs' own ids.",
        (
            Product(
                EMBEDDINGS, "model.serving.export:export_embeddings", lambda run, _: run.export,
                lambda run, _: [*_prepared(), Role(CHECKPOINT, run.train.seeds[0])],
            ),
            Product(
                RECOMMENDATIONS, "model.serving.export:export_recommendations", lambda run, _: run.export, _listed,
                key=lambda export: export.keyed_lists(),
            ),
        ),
    ),
)  # fmt: skip
"""In the order of a run."""

STAGE_NAMES = tuple(stage.command for stage in STAGES)
