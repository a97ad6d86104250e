"""Run records: what a run used, what it cost, and what it is about to make (`runs/<name>/run.json`).

A record keeps what the name's last finished run used and, beside it, the attempt that has begun since: so a run that is
in progress or was interrupted takes nothing away from readers, and garbage collection keeps what it has made so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.store.artifact import Artifact


class Cost(BaseModel):
    """What a stage took: seconds, and the process's largest resident size meanwhile, without a cluster's workers."""

    model_config = ConfigDict(frozen=True)
    seconds: float
    memory_mib: int


class Attempt(BaseModel):
    """A run that has begun and is not yet recorded as finished."""

    model_config = ConfigDict(frozen=True)
    command: str
    """Command that continues it."""
    at: str
    """When it began, ISO 8601."""
    config: dict[str, Any]
    """The run's settings."""
    planned: dict[str, tuple[str, str]]
    """Role → contract and key of everything that the run makes and needs, parents first."""
    costs: dict[str, Cost]
    """Stage → what it took, for the stages that are finished."""


class RunRecord(BaseModel):
    """What a run's name stands for. Keys that this program does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = ""
    artifacts: dict[str, tuple[str, str]] = {}
    """Role → contract and key of what the last finished run used; empty where none is finished."""
    config: dict[str, Any] | None = None
    """Its settings; None where no run of the name is finished."""
    seconds: dict[str, float] = {}
    """Role → seconds that making the artifact took, whichever run made it."""
    made: list[str] = []
    """Roles that this run made itself."""
    before: dict[str, str] = {}
    """Role → key of what an update went on from."""
    log_versions: dict[str, str] = {}
    """Log file → version on object storage, or an empty string."""
    costs: dict[str, Cost] = {}
    """Stage → what it took the last time that the run's name made its artifacts."""
    peak_memory_mib: int | None = None
    """Largest resident size of the process."""
    attempt: Attempt | None = None
    """The run that has begun since."""

    @classmethod
    def build(cls, name: str, artifacts: Mapping[str, Artifact], **details: Any) -> Self:
        """The record of a finished run; `details` are other fields."""
        used = {role: (artifact.contract.name, artifact.folder.name) for role, artifact in artifacts.items()}
        return cls(name=name, artifacts=used, **details)

    @classmethod
    def parse(cls, content: bytes, address: str) -> Self:
        """Read a record.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first, folder = error.errors()[0], address.rpartition("/")[0]
            problem = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
            raise ValueError(
                f"{address} is damaged: {problem}; delete {folder}, what it refers to may then go"
            ) from error

    def as_json(self) -> bytes:
        """The record as it is written."""
        return self.model_dump_json(indent=2, exclude_unset=True).encode()

    @property
    def keys(self) -> set[str]:
        """Keys of everything that the record refers to: artifacts, what an update went on from, what is planned."""
        planned = self.attempt.planned if self.attempt else {}
        return {key for _, key in [*self.artifacts.values(), *planned.values()]} | set(self.before.values())
