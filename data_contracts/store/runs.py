"""Attempts: what a run is about to make, in its record from before anything is made until all of it is there.

The record `runs/<name>/run.json` keeps what the name's last finished run used, and beside it the attempt: so a run that
works or was interrupted takes nothing away from readers, and what it has made so far is nobody's garbage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data_contracts.contracts import CONTRACTS
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store


@dataclass(frozen=True)
class Attempt:
    """A run that was begun and not yet recorded as finished.

    Attributes:
        command: what goes on with it.
        at: when it began, ISO 8601.
        config: the run's settings, as JSON.
        planned: role → contract and key of what it makes and needs, parents first.
        costs: stage → what it took, for the stages that are finished.
    """

    command: str
    at: str
    config: Mapping[str, Any]
    planned: Mapping[str, tuple[str, str]]
    costs: Mapping[str, Mapping[str, Any]]

    def found(self, store: Store) -> dict[str, Artifact]:
        """What of it the store has, by role."""
        found = {role: store.find(CONTRACTS[kind], key) for role, (kind, key) in self.planned.items()}
        return {role: artifact for role, artifact in found.items() if artifact}

    def missing(self, store: Store) -> list[str]:
        """Roles that are yet to be made, parents first."""
        found = self.found(store)
        return [role for role in self.planned if role not in found]


def begin(store: Store, name: str, attempt: Attempt) -> None:
    """Put an attempt into a run's record; `Store.link_run` takes it out again."""
    record = store.record(name) or {"name": name, "artifacts": {}}
    store.write_record(name, {**record, "attempt": asdict(attempt)})


def attempt_of(record: Mapping[str, Any]) -> Attempt | None:
    """The attempt in a run's record, None where its last run is finished."""
    return Attempt(**record["attempt"]) if "attempt" in record else None
