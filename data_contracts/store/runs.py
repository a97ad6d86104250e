"""Run records: what a run used, what it cost, and what it is about to make (`runs/<name>/run.json`).

A record has what the last finished run of the name used and, separately, the attempt that has started since. So readers
still see the finished run while the next one is in progress or was interrupted, and garbage collection keeps what that
has made so far.

A name has a generation for each configuration it was run with. The record is that of the present one; those of the
others lie in `runs/<name>/generations/`. Another generation becomes the present one when all of its artifacts are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from data_contracts.contracts import CONTRACTS, RECOMMENDATIONS
from data_contracts.store.artifact import Artifact
from data_contracts.store.json_files import DIGEST, json_digest, parse_json, require_digest


def _is_known(entry: tuple[str, str]) -> tuple[str, str]:
    contract, key = entry
    if contract not in CONTRACTS or not (key.isascii() and key.isalnum()):
        raise ValueError(f"it names {contract!r} with key {key!r}, which this edda does not know")
    return entry


NamedArtifact = Annotated[tuple[str, str], AfterValidator(_is_known)]
"""Contract and key of an artifact."""


class Cost(BaseModel):
    """Cost of a stage: seconds, and the process's largest resident size during it, without a cluster's workers."""

    model_config = ConfigDict(frozen=True)
    seconds: float
    memory_mib: int


_NO_PART_OF_A_GENERATION = ("store", "update", "compute", "tracking", "serve")
"""Settings that results do not depend on, or that say how they are made."""


def generation_id(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that identify a configuration of a run's name."""
    return json_digest({key: value for key, value in config.items() if key not in _NO_PART_OF_A_GENERATION})[:8]


class Attempt(BaseModel):
    """A run that was started and is not yet recorded as finished."""

    model_config = ConfigDict(frozen=True)
    command: str
    """Command that resumes it."""
    at: str
    """When it was started, ISO 8601."""
    config: dict[str, Any]
    """The run's settings."""
    planned: dict[str, NamedArtifact]
    """Role → contract and key of everything that the run makes and needs, parents first."""
    costs: dict[str, Cost]
    """Stage → its cost, for the stages that are finished."""


class RunRecord(BaseModel):
    """The record of a run's name. Keys that this program does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = ""
    artifacts: dict[str, NamedArtifact] = {}
    """Role → contract and key of what the last finished run used; empty if none is finished."""
    config: dict[str, Any] | None = None
    """Its settings; None if no run of the name is finished."""
    seconds: dict[str, float] = {}
    """Role → seconds that it took to make the artifact, whichever run made it."""
    at: str = ""
    """When it was recorded, ISO 8601."""
    is_complete: bool | None = None
    """All artifacts that a run of all stages makes exist; None in records of earlier versions."""
    made: list[str] = []
    """Roles that this run made itself."""
    before: dict[str, str] = {}
    """Role → key of the earlier artifacts that the run, an update, continued from."""
    log_versions: dict[str, str] = {}
    """Log file → version on object storage, or an empty string."""
    costs: dict[str, Cost] = {}
    """Stage → its cost the last time that a run of the name made its artifacts."""
    peak_memory_mib: int | None = None
    """Largest resident size of the process."""
    attempt: Attempt | None = None
    """The run that was started since."""

    @classmethod
    def build(cls, name: str, artifacts: Mapping[str, Artifact], **details: Any) -> Self:
        """Build the record of a finished run; `details` are other fields."""
        used = {role: (artifact.contract.name, artifact.folder.name) for role, artifact in artifacts.items()}
        return cls(name=name, artifacts=used, **details)

    @model_validator(mode="before")
    @classmethod
    def _is_what_was_written(cls, record: Any) -> Any:
        if isinstance(record, dict):
            require_digest(record, record)
        return record

    @classmethod
    def parse(cls, content: bytes, address: str) -> Self:
        """Parse a record.

        Raises:
            DamagedFileError: it is damaged; one line.
        """
        return parse_json(content, cls, address, f"delete {address.rpartition('/')[0]}, what it refers to may then go")

    def as_json(self) -> bytes:
        """The record as the content of run.json, with its digest."""
        record = json.loads(self.model_dump_json(exclude_unset=True))
        return json.dumps({**record, DIGEST: json_digest(record)}, indent=2, ensure_ascii=False).encode()

    @property
    def generation(self) -> str:
        """Identifier of the configuration; empty if no run of the name is finished."""
        return "" if self.config is None else generation_id(self.config)

    @property
    def is_whole(self) -> bool:
        """All artifacts of all stages exist, as far as is known."""
        return RECOMMENDATIONS.name in self.artifacts if self.is_complete is None else self.is_complete

    @property
    def keys(self) -> set[str]:
        """Keys of everything that the record refers to: artifacts, an update's base, and what is planned."""
        planned = self.attempt.planned if self.attempt else {}
        return {key for _, key in [*self.artifacts.values(), *planned.values()]} | set(self.before.values())
