"""Manifests: what an artifact holds and how it was made, written last and validated whenever they are read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_contracts.schema import Contract
from data_contracts.store.json_files import DIGEST, json_digest, parse_json, require_digest

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of an artifact: its path in the folder, its size in bytes, the hash of its content, and its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rows: int | None = Field(None, ge=0)

    @field_validator("path")
    @classmethod
    def _is_inside(cls, path: str) -> str:
        plain = PurePosixPath(path)
        if not plain.parts or plain.is_absolute() or ".." in plain.parts or "\0" in path or plain.as_posix() != path:
            raise ValueError(f"{path!r} must be a relative path inside the artifact's folder")
        return path


class Manifest(BaseModel):
    """What an artifact holds and how it was made. It is written last: a folder without it is no artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    contract: str
    version: int
    key: str
    settings: dict[str, Any]
    parents: dict[str, str]
    files: tuple[FileEntry, ...]
    rows: int = Field(ge=0)
    statistics: dict[str, Any]
    made: dict[str, Any]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        path, times = Counter(entry.path for entry in self.files).most_common(1)[0] if self.files else ("", 0)
        if times > 1:
            raise ValueError(f"file {path} is named {times} times, must be named once")
        rows = sum(entry.rows or 0 for entry in self.files)
        if rows != self.rows:
            raise ValueError(f"files have {rows} rows, must have {self.rows} as the manifest says")
        return self

    @field_validator("made")
    @classmethod
    def _says_when(cls, made: dict[str, Any]) -> dict[str, Any]:
        seconds = made.get("seconds")
        if not isinstance(seconds, float | int) or not math.isfinite(seconds):
            raise ValueError(f"seconds is {seconds!r}, must be a number")
        try:
            datetime.fromisoformat(made["at"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"at is {made.get('at')!r}, must be an ISO time") from None
        return made

    @model_validator(mode="before")
    @classmethod
    def _is_what_was_written(cls, manifest: Any) -> Any:
        return take_digest(manifest)

    @classmethod
    def parse(cls, content: bytes, address: str | Path, folder: str | Path) -> Self:
        """Parse and validate the manifest of an artifact's folder.

        Raises:
            DamagedFileError: it is damaged; one line.
        """
        return parse_json(content, cls, address, f"delete {folder} to make it again")

    def as_json(self) -> bytes:
        """The manifest as the content of manifest.json, with its own digest."""
        manifest = json.loads(self.model_dump_json())
        manifest["made"][DIGEST] = json_digest(manifest)
        return json.dumps(manifest, indent=2, ensure_ascii=False).encode()

    def require_identity(self, contract: str, folder: str) -> None:
        """Check that it is the manifest of a contract, and of a folder if that is named by a key, as in a store.

        Raises:
            ValueError: it is another artifact's.
        """
        if self.contract != contract:
            raise ValueError(f"contract is {self.contract}, must be {contract}")
        if is_key(folder) and self.key != folder:
            raise ValueError(f"key is {self.key}, must be {folder} as the folder's name")


def take_digest(manifest: Any) -> Any:
    """A manifest of any version without its own digest, which it must fit if it has one; any other value unchanged.

    Raises:
        ValueError: they differ.
    """
    if isinstance(manifest, dict):
        made = manifest.get("made")
        require_digest(manifest, made if isinstance(made, dict) else {})
    return manifest


def require_key(manifest: Mapping[str, Any]) -> None:
    """Check that a manifest's key is that of its contract, version, settings and parents.

    Raises:
        ValueError: it is not, or an entry is missing.
    """
    missing = {"contract", "version", "key", "settings", "parents"} - manifest.keys()
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    key = _key(manifest["contract"], manifest["version"], manifest["settings"], manifest["parents"])
    if manifest["key"] != key:
        raise ValueError(f"key is {manifest['key']}, must be {key} by contract, version, settings and parents")


def artifact_key(contract: Contract, settings: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Digest of all that the content depends on: contract and version, the stage's settings, the parents' keys."""
    return _key(contract.name, contract.version, settings, parents)


def is_key(name: str) -> bool:
    """The name of a folder has the form of a key."""
    return re.fullmatch("[0-9a-f]{20}", name) is not None


def _key(contract: str, version: int, settings: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    text = json.dumps([contract, version, settings, parents], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
