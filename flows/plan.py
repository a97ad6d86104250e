"""What a run will make: every artifact's key, known before anything is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.artifact import Artifact, artifact_key
from data_contracts.contract import Contract
from data_contracts.contracts import (
    CHECKPOINT,
    CONTRACTS,
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
from data_contracts.settings import LogSource, checkpoint_inputs
from data_contracts.store import Store
from flows.config import RunConfig, store_folder

STAGES = ("ingest", "graph", "walk", "align", "train", "evaluate", "export")
"""Stages by their commands' names, in the order of a run; a generated world comes before them."""


@dataclass(frozen=True)
class Step:
    """One artifact to be: its role in the run, the stage that makes it, and what its key follows from."""

    role: str
    stage: str
    contract: Contract
    settings: Mapping[str, Any]
    parents: Mapping[str, str]
    """Role → key of every parent."""

    @property
    def key(self) -> str:
        """The artifact's key, equal to the one its stage will compute."""
        return artifact_key(self.contract, self.settings, self.parents)


class Plan:
    """The steps of a run by role, in an order in which parents come first."""

    def __init__(self, config: RunConfig, store: Store, logs: tuple[Any, ...] = ()) -> None:
        self.config = config
        self.store = store
        self.logs = logs
        """The log files that ingest will read, as `pipeline.logs` lists them."""
        self.steps: dict[str, Step] = {}

    def add(self, stage: str, role: str, settings: Mapping[str, Any], parents: Collection[str] = ()) -> None:
        """Add an artifact whose contract is its role's name, up to a first hyphen."""
        keys = {parent: self.steps[parent].key for parent in parents}
        self.steps[role] = Step(role, stage, CONTRACTS[role.split("-", maxsplit=1)[0]], settings, keys)

    def find(self, role: str) -> Artifact | None:
        """The role's artifact, where the store has it."""
        step = self.steps[role]
        return self.store.find(step.contract, step.key)

    def found(self) -> dict[str, Artifact]:
        """Every artifact of the run that exists, by role."""
        return {role: artifact for role in self.steps if (artifact := self.find(role))}

    def roles(self, stage: str | None = None) -> list[str]:
        """Roles of a stage, or, without one, of everything a full run makes."""
        skipped = () if stage or self.config.aligns else (REACH.name, PAIRS.name)
        return [role for role, step in self.steps.items() if stage in (None, step.stage) and role not in skipped]

    def missing(self, wanted: Collection[str]) -> list[str]:
        """Roles that must be made to have the wanted ones, parents first; what exists needs no parents.

        Rejects come with the interactions, from the same reading of the logs.
        """
        needed: set[str] = set()
        waiting = list(wanted)
        while waiting:
            role = waiting.pop()
            if role not in needed and self.find(role) is None:
                needed.add(role)
                waiting += [*self.steps[role].parents, *([REJECTS.name] if role == INTERACTIONS.name else [])]
        return [role for role in self.steps if role in needed]


def make_plan(config: RunConfig) -> Plan:
    """The steps of a run.

    The keys follow from the content of the logs. So the plan of a generated world that is yet to be made has one
    step: the world.

    Raises:
        FileNotFoundError: a log pattern matches no file.
    """
    store = Store(store_folder(config))
    world, sources = None, config.logs
    if config.world is not None:
        world = Plan(config, store)
        world.add(WORLD.name, WORLD.name, config.world.keyed())
        artifact = world.find(WORLD.name)
        if artifact is None:
            return world
        sources = _world_logs(artifact)
    plan = Plan(config, store, _log_files(sources, Path.cwd()))
    plan.steps = world.steps if world else {}
    _add_preparation(plan)
    _add_model(plan)
    return plan


def _world_logs(world: Artifact) -> tuple[LogSource, ...]:
    from pipeline.world import world_logs

    return tuple(world_logs(world))


def _log_files(sources: tuple[LogSource, ...], folder: Path) -> tuple[Any, ...]:
    from pipeline.logs import find_logs

    return tuple(find_logs(sources, folder))


def _add_preparation(plan: Plan) -> None:
    from pipeline.interactions import ingest_inputs

    config = plan.config
    inputs = ingest_inputs(config.ingest, plan.logs)
    plan.add("ingest", REJECTS.name, inputs)
    plan.add("ingest", INTERACTIONS.name, inputs)
    plan.add("graph", NODES.name, config.graph.keyed(), [INTERACTIONS.name])
    plan.add("graph", GRAPH.name, {}, [INTERACTIONS.name, NODES.name])
    plan.add("walk", REACH.name, config.reach.keyed(), [NODES.name, GRAPH.name])
    plan.add("align", PAIRS.name, config.pairs.keyed(), [NODES.name, REACH.name])


def _add_model(plan: Plan) -> None:
    config = plan.config
    prepared = [INTERACTIONS.name, NODES.name, GRAPH.name]
    aligned = [PAIRS.name] if config.aligns else []
    checkpoints = [f"{CHECKPOINT.name}-{seed}" for seed in config.train.seeds]
    for seed, role in zip(config.train.seeds, checkpoints, strict=True):
        plan.add("train", role, checkpoint_inputs(config.train, seed, config.evaluate), [*prepared, *aligned])
    plan.add("evaluate", METRICS.name, config.evaluate.keyed(), [*prepared, *checkpoints])
    plan.add("export", EMBEDDINGS.name, config.export.keyed(), [*prepared, checkpoints[0]])
    plan.add("export", RECOMMENDATIONS.name, config.export.keyed(), [GRAPH.name, EMBEDDINGS.name])
