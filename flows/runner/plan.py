"""What a run will make: every artifact's key, known before anything is made."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.contracts import CHECKPOINT, INTERACTIONS, REJECTS, WORLD, Role
from data_contracts.open_store import open_store
from data_contracts.schema import Contract
from data_contracts.settings import LogSource
from data_contracts.store.artifact import Artifact, artifact_key
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig, store_place
from flows.runner.stages import STAGES, WORLD_STAGE, Product, Stage
from flows.runner.update_base import SCRATCH, Before, previous_run
from pipeline.ingest.stage import ingest_inputs
from pipeline.logs.discovery import Digests, LogFile, MissingLogsError, find_logs, remote_versions
from pipeline.synthetic import world_logs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One artifact of the run, made or yet to be made."""

    role: Role
    stage: str
    product: Product
    settings: Mapping[str, Any]
    """What enters the key beside the parents."""
    parents: Mapping[str, str]
    """Role → key of every parent; roles that end in `-before` are of an earlier run of the name."""

    @property
    def contract(self) -> Contract:
        """The artifact's contract."""
        return self.product.contract

    @property
    def key(self) -> str:
        """The artifact's key, equal to the one that its stage will compute."""
        return artifact_key(self.contract, self.settings, self.parents)


class Plan:
    """The steps of a run by role, in an order in which parents come first."""

    def __init__(
        self, config: RunConfig, store: Store, logs: tuple[LogFile, ...] = (), before: Before = SCRATCH
    ) -> None:
        self.config = config
        self.store = store
        self.logs = logs
        """The log files that ingest will read."""
        self.before = before
        """Role → key of what an update goes on from."""
        self.steps: dict[str, Step] = {}

    def add(self, stage: Stage) -> None:
        """Add the artifacts of a stage; those that it needs are there."""
        for product in stage.products:
            if product.exists(self.config):
                for seed in self.config.train.seeds if product.per_seed else (None,):
                    self._add(stage.command, product, Role(product.contract, seed))

    def _add(self, stage: str, product: Product, role: Role) -> None:
        settings = product.settings(self.config, role.seed)
        key = ingest_inputs(self.config.ingest, self.logs) if product.reads_logs else product.key(settings)
        parents = {str(parent): self.steps[str(parent)].key for parent in product.parents(self.config, role.seed)}
        parents |= {
            str(earlier.previous): self.before[str(earlier)]
            for earlier in self.previous_roles(role, product)
            if earlier.contract in product.keyed_previous
        }
        self.steps[str(role)] = Step(role, stage, product, key, parents)

    def previous_roles(self, role: Role, product: Product) -> list[Role]:
        """Roles of the earlier run that an update hands to the function of a product: all that it can use, or none."""
        roles = [Role(contract, role.seed if contract is CHECKPOINT else None) for contract in product.previous]
        if any(str(earlier) not in self.before for earlier in roles):
            return []
        return [] if role.contract is CHECKPOINT and not self._starts_warm(role) else roles

    def _starts_warm(self, role: Role) -> bool:
        """There is an earlier checkpoint of the seed, of the same model, with tables of the same width."""
        train, earlier = self.config.train, self.find_previous(role)
        trained = earlier.manifest.settings if earlier else {}
        if train.model != "edda" or trained.get("model") != "edda":
            return False
        intra_width = trained.get("intra_width") if trained["tables"] == "both" else None
        return (trained["width"], intra_width or trained["width"]) == train.widths  # older ones have no intra_width

    def find(self, role: str) -> Artifact | None:
        """The role's artifact, where the store has it."""
        step = self.steps[role]
        return self.store.find(step.contract, step.key)

    def find_previous(self, role: Role) -> Artifact | None:
        """The artifact of that role that an update goes on from, where the store has it."""
        return self.store.find(role.contract, self.before[str(role)]) if str(role) in self.before else None

    def existing(self) -> dict[str, Artifact]:
        """Every artifact of the run that exists, by role."""
        return {role: artifact for role in self.steps if (artifact := self.find(role))}

    def roles(self, stage: str | None = None) -> list[str]:
        """Roles of a stage, or, without one, of everything that a full run makes."""
        if stage is None:
            return [role for role, step in self.steps.items() if step.product.in_full_run(self.config)]
        return [role for role, step in self.steps.items() if stage == step.stage]

    def own_parents(self, role: str) -> list[str]:
        """Roles that a step is made of and that belong to this run, not to an earlier one."""
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


def make_plan(config: RunConfig, digests: Digests | None = None) -> Plan:
    """The steps of a run.

    The keys follow from the content of the logs, and in an update from what the run's name had made before. So the plan
    of a generated world that does not exist yet has one step: the world. Where the logs are not on this machine, but
    the run was recorded with the same settings, its record has the keys.

    Args:
        config: the run.
        digests: of log files that this process has read already; without them every log file is read.

    Raises:
        FileNotFoundError: a log pattern matches no file.
        ValueError: an update whose [ingest] is another than before.
    """
    digests = digests or Digests()
    store = open_store(store_place(config))
    world, logs = Plan(config, store), None
    if config.world is not None:
        world.add(WORLD_STAGE)
        artifact = world.find(WORLD.name)
        if artifact is None:
            return world
        logs = None if artifact.is_here else recorded_logs(config, store)
        logs = logs or tuple(find_logs(world_logs(artifact), Path.cwd(), digests))
    logs = logs or _given_logs(config, store, digests)
    if not config.update:
        return _full_plan(world, logs, SCRATCH)
    last = previous_run(store, config.name)
    plan = _full_plan(world, logs, last.before)
    if plan.steps[INTERACTIONS.name].key == last.interactions:
        return plan
    return _full_plan(world, logs, last.following(config))


def _full_plan(world: Plan, logs: tuple[LogFile, ...], before: Before) -> Plan:
    plan = Plan(world.config, world.store, logs, before)
    plan.steps |= world.steps
    for stage in STAGES:
        plan.add(stage)
    return plan


def _given_logs(config: RunConfig, store: Store, digests: Digests) -> tuple[LogFile, ...]:
    try:
        versions = remote_versions(config.logs)
        recorded = recorded_logs(config, store) if versions else None
        if recorded and {file.version for file in recorded} == versions:
            return recorded
        return tuple(find_logs(config.logs, Path.cwd(), digests))
    except MissingLogsError:
        recorded = recorded_logs(config, store)
        if recorded is None:
            raise
        log.warning("the logs are not here: going by what ingest made of them for run %r in %s", config.name, store)
        return recorded


_SAME = ("logs", "world", "ingest")
"""Settings that decide what ingest reads, and how."""


def recorded_logs(config: RunConfig, store: Store) -> tuple[LogFile, ...] | None:
    """The log files that ingest read for the run's record: enough for the keys of everything that follows.

    Returns:
        As `find_logs`, without content. None where the run is not recorded, was recorded with other logs or settings of
        ingest, or where what ingest made of them is not in the store any more: then they must be read.
    """
    record, settings = store.record(config.name), config.model_dump(mode="json")
    if record is None or record.config is None or not {REJECTS.name, INTERACTIONS.name} <= record.artifacts.keys():
        return None
    if any(record.config.get(key) != settings[key] for key in _SAME):
        return None
    rejects, interactions = (store.find(one, record.artifacts[one.name][1]) for one in (REJECTS, INTERACTIONS))
    if rejects is None or interactions is None:
        return None
    return tuple(
        LogFile(
            Path(file["name"]),
            size=0,
            version=record.log_versions.get(file["name"], ""),
            **{**file, "source": LogSource(path=file["name"], **file["source"])},
        )
        for file in interactions.manifest.settings["files"]
    )
