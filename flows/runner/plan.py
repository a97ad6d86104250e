"""What a run will make: every artifact's key, known before anything is made."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from data_contracts.open_store import open_store
from data_contracts.schema import Contract
from data_contracts.settings import LogSource
from data_contracts.store.artifact import Artifact, artifact_key
from data_contracts.store.store import Store
from data_contracts.train_settings import checkpoint_inputs
from flows.config.run_config import RunConfig, store_place
from flows.runner.stages import contract_of
from flows.runner.update_base import SCRATCH, Before, last_made

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One artifact to be: its role in the run, the stage that makes it, and what its key follows from."""

    role: str
    stage: str
    contract: Contract
    settings: Mapping[str, Any]
    parents: Mapping[str, str]
    """Role → key of every parent; roles that end in `before` are of an earlier run of the name."""

    @property
    def key(self) -> str:
        """The artifact's key, equal to the one its stage will compute."""
        return artifact_key(self.contract, self.settings, self.parents)


class Plan:
    """The steps of a run by role, in an order in which parents come first."""

    def __init__(self, config: RunConfig, store: Store, logs: tuple[Any, ...] = (), before: Before = SCRATCH) -> None:
        self.config = config
        self.store = store
        self.logs = logs
        """The log files that ingest will read, as `pipeline.logs.discovery` lists them."""
        self.before = before
        """What an update goes on from."""
        self.steps: dict[str, Step] = {}

    def add(
        self,
        stage: str,
        role: str,
        settings: Mapping[str, Any],
        parents: Collection[str] = (),
        before: Collection[str] = (),
    ) -> None:
        """Add an artifact whose contract is its role's name; in an update also made from what was `before`."""
        keys = {parent: self.steps[parent].key for parent in parents}
        keys |= {f"{parent}-{BEFORE}": self.before[parent] for parent in before if parent in self.before}
        self.steps[role] = Step(role, stage, contract_of(role), settings, keys)

    def find(self, role: str) -> Artifact | None:
        """The role's artifact, where the store has it."""
        step = self.steps[role]
        return self.store.find(step.contract, step.key)

    def find_before(self, role: str) -> Artifact | None:
        """The artifact of that role that an update goes on from, where the store has it."""
        return self.store.find(contract_of(role), self.before[role]) if role in self.before else None

    def found(self) -> dict[str, Artifact]:
        """Every artifact of the run that exists, by role."""
        return {role: artifact for role in self.steps if (artifact := self.find(role))}

    def roles(self, stage: str | None = None) -> list[str]:
        """Roles of a stage, or, without one, of everything a full run makes."""
        skipped: tuple[str, ...] = ()
        if stage is None:
            skipped += () if self.config.aligns else (REACH.name, PAIRS.name)
            skipped += () if self.config.blend.evidence else (NEIGHBOURS.name,)
        return [role for role, step in self.steps.items() if stage in (None, step.stage) and role not in skipped]

    def own_parents(self, role: str) -> list[str]:
        """Roles that a step stands on and that are of this run, not of one before it."""
        return [parent for parent in self.steps[role].parents if parent in self.steps]

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
                waiting += [*self.own_parents(role), *([REJECTS.name] if role == INTERACTIONS.name else [])]
        return [role for role in self.steps if role in needed]


def make_plan(config: RunConfig) -> Plan:
    """The steps of a run.

    The keys follow from the content of the logs, and in an update from what the run's name had made before. So the plan
    of a generated world that is yet to be made has one step: the world. Where the logs are not here, but the run was
    recorded with the same, its record tells the keys.

    Raises:
        FileNotFoundError: a log pattern matches no file.
        ValueError: an update whose [ingest] is another than before.
    """
    store = open_store(store_place(config))
    world, logs = None, None
    if config.world is not None:
        world = Plan(config, store)
        world.add(WORLD.name, WORLD.name, config.world.keyed())
        artifact = world.find(WORLD.name)
        if artifact is None:
            return world
        logs = None if artifact.is_here else recorded_logs(config, store)
        logs = logs or _log_files(_world_logs(artifact))
    own = world.steps if world else {}
    logs = logs or _given_logs(config, store)
    if not config.update:
        return _full_plan(config, store, logs, SCRATCH, own)
    last = last_made(store, config.name)
    plan = _full_plan(config, store, logs, last.before, own)
    if plan.steps[INTERACTIONS.name].key == last.interactions:
        return plan
    return _full_plan(config, store, logs, last.following(config), own)


def _full_plan(
    config: RunConfig, store: Store, logs: tuple[Any, ...], before: Before, world: Mapping[str, Step]
) -> Plan:
    plan = Plan(config, store, logs, before)
    plan.steps |= world
    _add_preparation(plan)
    _add_model(plan)
    return plan


def _world_logs(world: Artifact) -> tuple[LogSource, ...]:
    from pipeline.synthetic import world_logs

    return tuple(world_logs(world))


def _given_logs(config: RunConfig, store: Store) -> tuple[Any, ...]:
    from pipeline.logs.discovery import MissingLogsError, remote_versions

    try:
        versions = remote_versions(config.logs)
        found = recorded_logs(config, store) if versions else None
        if found and {file.version for file in found} == versions:
            return found
        return _log_files(config.logs)
    except MissingLogsError:
        found = recorded_logs(config, store)
        if found is None:
            raise
        log.warning("the logs are not here: going by what ingest made of them for run %r in %s", config.name, store)
        return found


def _log_files(sources: tuple[LogSource, ...]) -> tuple[Any, ...]:
    from pipeline.logs.discovery import find_logs

    return tuple(find_logs(sources, Path.cwd()))


def _add_preparation(plan: Plan) -> None:
    from pipeline.ingest.stage import ingest_inputs

    config = plan.config
    inputs = ingest_inputs(config.ingest, plan.logs)
    plan.add("ingest", REJECTS.name, inputs, before=[INTERACTIONS.name])
    plan.add("ingest", INTERACTIONS.name, inputs, before=[NODES.name, INTERACTIONS.name])
    plan.add("graph", NODES.name, config.graph.keyed(), [INTERACTIONS.name])
    plan.add("graph", GRAPH.name, {}, [INTERACTIONS.name, NODES.name])
    plan.add("neighbours", NEIGHBOURS.name, config.neighbours.keyed(), [NODES.name, GRAPH.name])
    plan.add("walk", REACH.name, config.reach.keyed(), [NODES.name, GRAPH.name])
    plan.add("align", PAIRS.name, config.pairs.keyed(), [NODES.name, REACH.name])


def _starts_warm(plan: Plan, role: str) -> bool:
    """There is an earlier checkpoint of the seed whose tables fit."""
    train, earlier = plan.config.train, plan.find_before(role)
    had = earlier.manifest.settings if earlier else {}
    if train.model != "edda" or had.get("model") != "edda":
        return False
    intra_width = had.get("intra_width") if had["tables"] == "both" else None
    return (had["width"], intra_width or had["width"]) == train.widths  # once intra tables had no width of their own


def _add_model(plan: Plan) -> None:
    config = plan.config
    prepared = [INTERACTIONS.name, NODES.name, GRAPH.name]
    aligned = [PAIRS.name] if config.aligns else []
    evidence = [NEIGHBOURS.name] if config.blend.evidence else []
    selecting = evidence if config.train.selects_by_ndcg else []
    checkpoints = [f"{CHECKPOINT.name}-{seed}" for seed in config.train.seeds]
    for seed, role in zip(config.train.seeds, checkpoints, strict=True):
        inputs = checkpoint_inputs(config.train, seed, config.evaluate)
        before = [role, *prepared] if _starts_warm(plan, role) else []
        plan.add("train", role, inputs, [*prepared, *aligned, *selecting], before)
    blends = [f"{BLEND.name}-{seed}" for seed in config.train.seeds] if evidence else []
    for blend, checkpoint in zip(blends, checkpoints, strict=False):
        plan.add("blend", blend, config.blend.keyed(), [*prepared, *evidence, checkpoint])
    plan.add("evaluate", METRICS.name, config.evaluate.keyed(), [*prepared, *evidence, *checkpoints, *blends])
    plan.add("export", EMBEDDINGS.name, config.export.keyed(), [*prepared, checkpoints[0]])
    served = [NODES.name, *evidence, blends[0]] if evidence else []
    plan.add("export", RECOMMENDATIONS.name, config.export.keyed_lists(), [GRAPH.name, EMBEDDINGS.name, *served])


_SAME = ("logs", "world", "ingest")
"""Settings that decide what ingest reads, and how."""


def recorded_logs(config: RunConfig, store: Store) -> tuple[Any, ...] | None:
    """The log files that ingest read for the run's record; their content is not at hand.

    Returns:
        As `pipeline.logs.discovery.find_logs`. None where the run is not recorded, was recorded with other logs or
        settings of ingest, or where what ingest made of them is not in the store any more: then they must be read.
    """
    from pipeline.logs.discovery import LogFile

    artifacts, details = store.find_run(config.name) or ({}, {})
    now = config.model_dump(mode="json")
    if not {REJECTS.name, INTERACTIONS.name} <= artifacts.keys():
        return None
    if any(details["config"].get(key) != now[key] for key in _SAME):
        return None
    rejects, interactions = (store.find(c, artifacts[c.name].folder.name) for c in (REJECTS, INTERACTIONS))
    if rejects is None or interactions is None:
        return None
    versions = details.get("log_versions", {})
    return tuple(
        LogFile(
            Path(file["name"]),
            size=0,
            version=versions.get(file["name"], ""),
            **{**file, "source": LogSource(path=file["name"], **file["source"])},
        )
        for file in interactions.manifest.settings["files"]
    )
