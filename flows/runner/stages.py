"""The table of stages: what each stage makes, from which artifacts, by which function, and its command.

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
    RANKS,
    REACH,
    RECOMMENDATIONS,
    REJECTS,
    WORLD,
)
from data_contracts.roles import Role
from data_contracts.schema import Contract
from data_contracts.settings.base import Settings
from data_contracts.settings.train import CheckpointSettings
from flows.config.run_config import RunConfig


def _always(_run: RunConfig) -> bool:
    return True


def _no_parents(_run: RunConfig, _seed: int | None) -> Sequence[Role]:
    return ()


@dataclass(frozen=True)
class Product:
    """An artifact that a stage makes, or one for each training seed."""

    contract: Contract
    function: str
    """`package.module:function`; called with store, settings, parents, compute, progress and, if the product has any,
    `previous`."""
    settings: Callable[[RunConfig, int | None], Settings]
    """Returns the function's settings for a run and a seed."""
    parents: Callable[[RunConfig, int | None], Sequence[Role]] = _no_parents
    """Returns the roles that it is made from."""
    key: Callable[[Any], Mapping[str, Any]] = lambda settings: settings.keyed()
    """Returns the settings that enter the artifact's key."""
    previous: tuple[Contract, ...] = ()
    """Artifacts of the update's base that the function gets: all of them or none."""
    keyed_previous: tuple[Contract, ...] = ()
    """Those that enter the key, because the content depends on them."""
    reads_logs: bool = False
    """The function gets the run's log files in place of parents, and their content enters the key."""
    per_seed: bool = False
    """There is one for each of `train.seeds`."""
    exists: Callable[[RunConfig], bool] = _always
    """Says whether the run has such an artifact."""
    in_full_run: Callable[[RunConfig], bool] = _always
    """Says whether a full run makes it; if not, only the stage's own command does, or a stage that needs it."""


@dataclass(frozen=True)
class Stage:
    """A stage of a run, with its own command."""

    command: str
    help: str
    products: tuple[Product, ...]


def _prepared_roles() -> list[Role]:
    return [Role(INTERACTIONS), Role(NODES), Role(GRAPH)]


def _evidence_roles(run: RunConfig) -> list[Role]:
    return [Role(NEIGHBOURS)] if run.blend.evidence else []


def _checkpoint_settings(run: RunConfig, seed: int | None) -> CheckpointSettings:
    return CheckpointSettings(train=run.train, seed=seed, validation=run.evaluate)


def _training_parents(run: RunConfig, _seed: int | None) -> list[Role]:
    pairs = [Role(PAIRS)] if run.reads_pairs else []
    return [*_prepared_roles(), *pairs, *(_evidence_roles(run) if run.train.selects_by_ndcg else [])]


def _evaluation_parents(run: RunConfig, _seed: int | None) -> list[Role]:
    checkpoints = [Role(CHECKPOINT, seed) for seed in run.train.seeds]
    blends = [Role(BLEND, seed) for seed in run.train.seeds] if run.blend.evidence else []
    return [*_prepared_roles(), *_evidence_roles(run), *checkpoints, *blends]


def _recommendation_parents(run: RunConfig, _seed: int | None) -> list[Role]:
    blend = [Role(NODES), *_evidence_roles(run), Role(BLEND, run.train.seeds[0])] if run.blend.evidence else []
    return [Role(GRAPH), Role(EMBEDDINGS), *blend]


def _world_settings(run: RunConfig, _seed: int | None) -> Settings:
    if run.world is None:
        raise ValueError("the run's file has no [world] to generate")
    return run.world


WORLD_STAGE = Stage("world", "Generate the logs.", (Product(WORLD, "pipeline.synthetic:make_world", _world_settings),))
"""Comes before the others if a run generates its logs; it has no command."""

_INGEST = "pipeline.ingest.stage:ingest"
_EVALUATE = "model.evaluation.stage:evaluate"

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
                in_full_run=lambda run: run.reads_pairs,
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
                in_full_run=lambda run: run.reads_pairs,
            ),
        ),
    ),
    Stage(
        "train",
        "Train a checkpoint per seed, in several processes under torchrun; continues where it was interrupted.",
        (
            Product(
                CHECKPOINT, "model.training.stage:train", _checkpoint_settings, _training_parents, per_seed=True,
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
                lambda run, seed: [*_prepared_roles(), *_evidence_roles(run), Role(CHECKPOINT, seed)],
                per_seed=True, exists=lambda run: run.blend.evidence,
            ),
        ),
    ),
    Stage(
        "evaluate",
        "Measure the checkpoints on held-out interactions.",
        (
            Product(METRICS, _EVALUATE, lambda run, _: run.evaluate, _evaluation_parents),
            Product(RANKS, _EVALUATE, lambda run, _: run.evaluate, _evaluation_parents),
        ),
    ),
    Stage(
        "export",
        "Write embeddings and recommendations with the logs' own ids.",
        (
            Product(
                EMBEDDINGS, "model.serving.export:export_embeddings", lambda run, _: run.export,
                lambda run, _: [*_prepared_roles(), Role(CHECKPOINT, run.train.seeds[0])],
            ),
            Product(
                RECOMMENDATIONS, "model.serving.export:export_recommendations", lambda run, _: run.export,
                _recommendation_parents, key=lambda export: export.keyed_lists(),
            ),
        ),
    ),
)  # fmt: skip
"""In the order of a run."""

STAGE_NAMES = tuple(stage.command for stage in STAGES)
