"""Previous: what an update goes on from, the artifacts that the run's name had before its logs changed.

logs of monday ─ from scratch ─ A            before: nothing
logs of tuesday ─ update ─ B                 before: A
logs of tuesday, again or with other [train] before: A still, so that what exists is found
logs of wednesday ─ update ─ C               before: B
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from data_contracts.contracts import CHECKPOINT, GRAPH, INTERACTIONS, NODES, PAIRS, REACH
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig

_OF_USE = (INTERACTIONS, NODES, GRAPH, REACH, PAIRS, CHECKPOINT)

Before = Mapping[str, str]
"""Role → key of the artifacts that an update goes on from."""

SCRATCH: Before = MappingProxyType({})
"""Nothing: the run is from scratch."""


@dataclass(frozen=True)
class PreviousRun:
    """What a run's name made last.

    Attributes:
        artifacts: those of use to an update, by role; empty where nothing was recorded.
        before: what they were updated from.
    """

    artifacts: Mapping[str, Artifact]
    before: Before

    @property
    def interactions(self) -> str | None:
        """Key of its interactions: an update that makes the same ones goes on from `before`."""
        found = self.artifacts.get(INTERACTIONS.name)
        return found.folder.name if found else None

    def following(self, config: RunConfig) -> Before:
        """What a run with other interactions goes on from: what was made last, if that got as far as what it is from.

        Raises:
            ValueError: ingest has other settings than it had, so rows that were trained on may now be held out; or the
                interactions or nodes to go on from keep another version of their contract.
            FileNotFoundError: the interactions or nodes to go on from were deleted.
        """
        if not self.artifacts or not self.artifacts.keys() >= self.before.keys():
            return self.before
        for role in (INTERACTIONS.name, NODES.name):
            if role in self.artifacts and not _exists(self.artifacts[role]):
                raise missing_base_error(config.name, self.artifacts[role].address)
            if role in self.artifacts and not self.artifacts[role].is_readable:
                raise ValueError(
                    f"update: run {config.name!r} goes on from {self.artifacts[role].address}, made by another version "
                    "of edda, must be made by this one; run it once with update = false"
                )
        had = self.artifacts[INTERACTIONS.name].manifest.settings["settings"]
        if had != config.ingest.keyed():
            raise ValueError(
                f"update: [ingest] of run {config.name!r} is {config.ingest.keyed()}, must be {had} as in what it goes "
                "on from, or rows that were trained on could be held out; run it once with update = false"
            )
        return {role: artifact.folder.name for role, artifact in self.artifacts.items()}


def missing_base_error(name: str, address: str) -> FileNotFoundError:
    """The error for an artifact that an update goes on from and that was deleted."""
    return FileNotFoundError(
        f"update: run {name!r} goes on from {address}, which is not there, must be; run it once with update = false"
    )


def _exists(artifact: Artifact) -> bool:
    """Whether it is there, in whatever version."""
    try:
        return bool(artifact.manifest)
    except FileNotFoundError:
        return False
    except ValueError:
        return True


def previous_run(store: Store, name: str) -> PreviousRun:
    """What the run's name made last, by its record."""
    record = store.record(name)
    if record is None:
        return PreviousRun({}, SCRATCH)
    useful = {role: artifact for role, artifact in store.recorded(record).items() if artifact.contract in _OF_USE}
    return PreviousRun(useful if INTERACTIONS.name in useful else {}, record.before)
