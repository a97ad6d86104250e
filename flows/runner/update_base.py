"""The base of an update: the artifacts that the run's name had before its logs changed.

Monday's logs, from scratch: makes A                 base: none
Tuesday's logs, update: makes B                      base: A
Tuesday's logs, again or with another [train]        base: still A, so that existing artifacts are found
Wednesday's logs, update: makes C                    base: B
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from data_contracts.contracts import CHECKPOINT, GRAPH, INTERACTIONS, NODES, PAIRS, REACH
from data_contracts.store.artifact import Artifact
from data_contracts.store.runs import generation_id
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig
from flows.output.tables import domain_sizes

_REUSABLE = (INTERACTIONS, NODES, GRAPH, REACH, PAIRS, CHECKPOINT)

UpdateBase = Mapping[str, str]
"""Role → key of the artifacts that an update continues from."""

NO_BASE: UpdateBase = MappingProxyType({})
"""The base of a run from scratch."""


@dataclass(frozen=True)
class PreviousRun:
    """The last recorded run of a name.

    Attributes:
        artifacts: those that an update can use, by role; empty if no run is recorded.
        base: the base that they were updated from.
    """

    artifacts: Mapping[str, Artifact]
    base: UpdateBase

    @property
    def interactions(self) -> str | None:
        """Key of its interactions: an update that makes the same ones has the same base."""
        interactions = self.artifacts.get(INTERACTIONS.name)
        return interactions.folder.name if interactions else None

    def base_for(self, config: RunConfig) -> UpdateBase:
        """The base of a run with other interactions: this run, or its own base if it lacks a role that the base has.

        Raises:
            ValueError: ingest has other settings than in this run, so rows that were trained on could now be held out;
                or the interactions or nodes of the base follow another version of their contract.
            FileNotFoundError: the interactions or nodes of the base were deleted.
        """
        if not self.artifacts or not self.artifacts.keys() >= self.base.keys():
            return self.base
        for role in (INTERACTIONS.name, NODES.name):
            if role in self.artifacts and not _exists(self.artifacts[role]):
                raise missing_base_error(config.name, self.artifacts[role].address)
            if role in self.artifacts and not self.artifacts[role].is_readable:
                raise ValueError(
                    f"update: run {config.name!r} continues from {self.artifacts[role].address}, which another version "
                    "of edda has made, must be made by this one; run it once with update = false"
                )
        base_settings = self.artifacts[INTERACTIONS.name].manifest.settings["settings"]
        if base_settings != config.ingest.keyed():
            raise ValueError(
                f"update: [ingest] of run {config.name!r} is {config.ingest.keyed()}, must be {base_settings} as in "
                "the run that it continues from, or rows that were trained on could be held out; run it once with "
                "update = false"
            )
        return {role: artifact.folder.name for role, artifact in self.artifacts.items()}


def lost_domains(store: Store, config: RunConfig, interactions: Artifact) -> dict[str, int]:
    """Domains that the last run of a name had and new interactions lack, with their rows.

    Only where the new run continues the last one: as its update, or by the same configuration on other logs.
    """
    record = store.record(config.name)
    is_same = record is not None and record.generation == generation_id(config.model_dump(mode="json"))
    last = previous_run(store, config.name).artifacts.get(INTERACTIONS.name)
    if last is None or not (is_same or config.update):
        return {}
    with suppress(OSError, ValueError):  # it was deleted or damaged
        before, now = (domain_sizes({INTERACTIONS.name: artifact}) for artifact in (last, interactions))
        return {domain: rows for domain, rows in before.items() if domain not in now}
    return {}


def missing_base_error(name: str, address: str) -> FileNotFoundError:
    """The error for a deleted artifact of an update's base."""
    return FileNotFoundError(
        f"update: run {name!r} continues from {address}, which does not exist, must exist; run it once with "
        "update = false"
    )


def _exists(artifact: Artifact) -> bool:
    """The artifact exists, in whatever version."""
    try:
        return bool(artifact.manifest)
    except FileNotFoundError:
        return False
    except ValueError:
        return True


def previous_run(store: Store, name: str) -> PreviousRun:
    """Read the last run of a name from its record."""
    record = store.record(name)
    if record is None:
        return PreviousRun({}, NO_BASE)
    useful = {role: artifact for role, artifact in store.recorded(record).items() if artifact.contract in _REUSABLE}
    return PreviousRun(useful if INTERACTIONS.name in useful else {}, record.before)
