"""The plan of a run: the keys of all its artifacts, known before anything is made."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.contracts import CHECKPOINT, INTERACTIONS, REJECTS, WORLD
from data_contracts.open_store import open_store
from data_contracts.roles import Role
from data_contracts.schema import Contract
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import LogSource
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import DamagedFileError
from data_contracts.store.manifest import artifact_key
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig, store_location
from flows.runner.stages import STAGES, WORLD_STAGE, Product, Stage
from flows.runner.update_base import NO_BASE, UpdateBase, previous_run
from pipeline.ingest.inputs import ingest_inputs
from pipeline.logs.discovery import Digests, LogFile, MissingLogsError, find_logs, remote_versions
from pipeline.synthetic import world_logs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One artifact of the run, whether or not it exists yet."""

    role: Role
    stage: str
    product: Product
    settings: Mapping[str, Any]
    """Settings that enter the key."""
    parents: Mapping[str, str]
    """Role → key of every parent; roles that end in `-before` are of the update's base."""

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
        self, config: RunConfig, store: Store, logs: tuple[LogFile, ...] = (), base: UpdateBase = NO_BASE
    ) -> None:
        self.config = config
        self.store = store
        self.logs = logs
        """The log files that ingest will read."""
        self.base = base
        """Role → key of the artifacts that an update continues from."""
        self.steps: dict[str, Step] = {}

    def add(self, stage: Stage) -> None:
        """Add the artifacts of a stage, after those that they are made from."""
        for product in stage.products:
            if product.exists(self.config):
                for seed in self.config.train.seeds if product.per_seed else (None,):
                    self._add(stage.command, product, Role(product.contract, seed))

    def _add(self, stage: str, product: Product, role: Role) -> None:
        settings = product.settings(self.config, role.seed)
        key = product.key(settings)
        if product.reads_logs:
            key = ingest_inputs(product.contract, self.config.ingest, self.logs)
        parents = {str(parent): self.steps[str(parent)].key for parent in product.parents(self.config, role.seed)}
        parents |= {
            str(earlier.previous): self.base[str(earlier)]
            for earlier in self.previous_roles(role, product)
            if earlier.contract in product.keyed_previous
        }
        self.steps[str(role)] = Step(role, stage, product, key, parents)

    def previous_roles(self, role: Role, product: Product) -> list[Role]:
        """Roles of the base that the product's function gets: all that it can use, or none."""
        roles = [Role(contract, role.seed if contract is CHECKPOINT else None) for contract in product.previous]
        if any(str(earlier) not in self.base for earlier in roles):
            return []
        return [] if role.contract is CHECKPOINT and not self._starts_warm(role) else roles

    def _starts_warm(self, role: Role) -> bool:
        """The base has a checkpoint of the seed, of the same model, with tables of the same width."""
        train, earlier = self.config.train, self.find_previous(role)
        trained = earlier.manifest.settings if earlier else {}
        if train.model != "edda" or trained.get("model") != "edda":
            return False
        intra_width = trained.get("intra_width") if trained["tables"] == "both" else None
        return (trained["width"], intra_width or trained["width"]) == train.widths  # old ones have no intra_width

    def find(self, role: str) -> Artifact | None:
        """The role's artifact; None if the store does not have it."""
        step = self.steps[role]
        return self.store.find(step.contract, step.key)

    def find_previous(self, role: Role) -> Artifact | None:
        """The base's artifact of a role; None if there is none, or the store does not have it in this version."""
        if str(role) not in self.base:
            return None
        try:
            return self.store.find(role.contract, self.base[str(role)])
        except DamagedFileError:
            raise
        except ValueError:  # made by another version of edda, whose contract differs
            return None

    def existing(self) -> dict[str, Artifact]:
        """Every artifact of the run that exists, by role."""
        return {role: artifact for role in self.steps if (artifact := self.find(role))}

    def roles(self, stage: str | None = None) -> list[str]:
        """Roles of a stage; by default of everything that a full run makes."""
        if stage is None:
            return [role for role, step in self.steps.items() if step.product.in_full_run(self.config)]
        return [role for role, step in self.steps.items() if stage == step.stage]

    def own_parents(self, role: str) -> list[str]:
        """Parents of a role that belong to this run, not to the update's base."""
        return [parent for parent in self.steps[role].parents if parent in self.steps]

    def damage(self, role: str) -> str | None:
        """What is wrong with the files of the role's artifact, and what to do; None if it is whole or not there."""
        try:
            self.find(role)
        except OSError as error:
            return str(error)
        return None

    def missing(self, wanted: Collection[str], damaged: Collection[str] = ()) -> list[str]:
        """Roles that must be made to get the wanted ones, parents first; what exists needs no parents.

        Ingest makes rejects and interactions together, so rejects are missing if interactions are.

        Args:
            wanted: roles.
            damaged: roles that count as missing.
        """
        needed: set[str] = set()
        waiting = list(wanted)
        while waiting:
            role = waiting.pop()
            if role not in needed and (role in damaged or self.find(role) is None):
                needed.add(role)
                waiting += [*self.own_parents(role), *([REJECTS.name] if role == INTERACTIONS.name else [])]
        return [role for role in self.steps if role in needed]


def make_plan(config: RunConfig, digests: Digests | None = None) -> Plan:
    """Plan a run.

    The keys depend on the content of the logs, and in an update on the last run of the same name. So if the logs are
    generated and do not exist yet, the plan has only one step: the world. If the logs are not on this machine, but the
    run was recorded with the same settings, its record has the keys.

    Args:
        config: the run.
        digests: of log files that this process has read already; by default every log file is read.

    Raises:
        FileNotFoundError: a log pattern matches no file.
        ValueError: the run is an update, and its [ingest] differs from the last run's.
    """
    digests = digests or Digests()
    store = open_store(store_location(config))
    world, logs = Plan(config, store), None
    if config.world is not None:
        world.add(WORLD_STAGE)
        artifact = world.find(WORLD.name)
        if artifact is None:
            return world
        logs = None if artifact.is_local else recorded_logs(config, store)
        logs = logs or tuple(find_logs(world_logs(artifact), Path.cwd(), digests))
    logs = logs or _find_given_logs(config, store, digests)
    if not config.update:
        return _plan_all_stages(world, logs, NO_BASE)
    last = previous_run(store, config.name)
    plan = _plan_all_stages(world, logs, last.base)
    if plan.steps[INTERACTIONS.name].key == last.interactions:
        return plan
    return _plan_all_stages(world, logs, last.base_for(config))


def _plan_all_stages(world: Plan, logs: tuple[LogFile, ...], base: UpdateBase) -> Plan:
    plan = Plan(world.config, world.store, logs, base)
    plan.steps |= world.steps
    for stage in STAGES:
        plan.add(stage)
    return plan


def _find_given_logs(config: RunConfig, store: Store, digests: Digests) -> tuple[LogFile, ...]:
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
        log.warning("the logs are not here: using what ingest made of them for run %r in %s", config.name, store)
        return recorded


_INGEST_SETTINGS = ("logs", "world", "ingest")
"""Settings that decide what ingest reads, and how."""


def recorded_logs(config: RunConfig, store: Store) -> tuple[LogFile, ...] | None:
    """The log files that ingest read when the run was recorded, which are enough to compute all keys.

    Returns:
        Log files as from `find_logs`, without content. None if the logs must be read: the run is not recorded, was
        recorded with other logs or settings of ingest, or its rejects or interactions are not in the store any more.
    """
    record, settings = store.record(config.name), config.model_dump(mode="json")
    if record is None or record.config is None or not {REJECTS.name, INTERACTIONS.name} <= record.artifacts.keys():
        return None
    # Settings that were added since the run was recorded had their defaults.
    recorded = {**record.config, "ingest": IngestSettings().model_dump(mode="json") | record.config.get("ingest", {})}
    if any(recorded.get(key) != settings[key] for key in _INGEST_SETTINGS):
        return None
    rejects = store.find(REJECTS, record.artifacts[REJECTS.name][1])
    interactions = store.find(INTERACTIONS, record.artifacts[INTERACTIONS.name][1])
    if rejects is None or interactions is None or not (rejects.is_readable and interactions.is_readable):
        return None
    return tuple(
        LogFile(
            Path(file["name"]),
            size=0,
            version=record.log_versions.get(file["name"], ""),
            **{name: file[name] for name in ("name", "sha256", "domain", "split")},
            source=LogSource(path=file["name"], **file["source"]),
        )
        for file in rejects.manifest.settings["files"]
    )
