"""Manifests: what an artifact holds and how it was made, written last and validated whenever they are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_contracts.schema import Contract

MANIFEST = "manifest.json"
DIGEST = "sha256"
"""Entry with the digest of all other entries: of `made` in a manifest, of a run's record itself. Those of edda 0.1 lack
it."""


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

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Parse and validate a manifest.

        Raises:
            ValueError: it is damaged; one line.
        """
        try:
            return cls.model_validate(load_manifest(content))
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error

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


def load_manifest(content: bytes) -> dict[str, Any]:
    """A manifest of any version as plain values, after its own digest was checked if it has one.

    Raises:
        ValueError: it is damaged.
    """
    manifest = load_object(content)
    made = manifest.get("made")
    require_digest(manifest, made if isinstance(made, dict) else {})
    return manifest


def load_object(content: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none; one line.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it must be an object")
    return value


def require_digest(value: Mapping[str, Any], holder: dict[str, Any]) -> None:
    """Take the digest of a JSON object, if it has one, from the part that holds it, and compare it.

    Raises:
        ValueError: the object has another digest.
    """
    digest = holder.pop(DIGEST, None)
    if digest is not None and digest != (actual := json_digest(value)):
        raise ValueError(f"sha256 of its content is {actual}, must be {digest}")


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


def first_problem(error: ValidationError) -> str:
    """The first of the problems as one line: where, and what must be."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), message])


def _key(contract: str, version: int, settings: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    text = json.dumps([contract, version, settings, parents], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, however it is laid out."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
