"""JSON files of a store, read in one way: whatever is wrong is said in one line, with the file and what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from data_contracts.store.files import DamagedFileError, damaged_file_error, is_plain_file, one_line

T = TypeVar("T")

DIGEST = "sha256"
"""Entry with the digest of all other entries: of `made` in a manifest, of a run's record itself. Those of edda 0.1 lack
it."""

_LARGEST_DESCRIPTION = 1 << 28
"""Bytes of a manifest: a thousand domains' pairs have a million files, with some 200 bytes each."""


def read_description(path: Path) -> bytes:
    """Content of a manifest, a run's record or another JSON file of a store.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is no plain file, or larger than any description.
    """
    if not is_plain_file(path):
        raise damaged_file_error(path, path.parent, "it is no plain file")
    if (size := path.stat().st_size) > _LARGEST_DESCRIPTION:
        rule = f"must have at most {_LARGEST_DESCRIPTION:,}"
        raise damaged_file_error(path, path.parent, f"it has {size:,} bytes, {rule}")
    return path.read_bytes()


def parse_json(content: bytes, kind: type[T], address: str | Path, remedy: str) -> T:
    """The value of a JSON file.

    Args:
        content: of the file.
        kind: what the value must be: a pydantic model, a typed dictionary, or e.g. `dict[str, Any]`.
        address: the file's path or URL, for the error.
        remedy: what to do if it is damaged.

    Raises:
        DamagedFileError: it is no JSON, or not of this kind.
    """
    try:
        value: T = _adapter(cast(Any, kind)).validate_python(json.loads(content))
        return value
    except RecursionError as error:
        raise DamagedFileError(f"{address} is damaged: it is nested too deeply; {remedy}") from error
    except ValueError as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise DamagedFileError(f"{address} is damaged: {one_line(problem)}; {remedy}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def require_kind(value: object, kind: Any, address: str | Path, remedy: str) -> None:
    """Check the types in a value of a JSON file; as other versions write them, keys may be missing or unknown.

    Raises:
        DamagedFileError: a value is of another type.
    """
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        if problem := first_problem(error, of_type=True):
            raise DamagedFileError(f"{address} is damaged: {problem}; {remedy}") from error


def first_problem(error: ValidationError, *, of_type: bool = False) -> str:
    """The first problem, or the first wrong type, as one line: where, and what must be; empty without any."""
    details = [detail for detail in error.errors(include_url=False) if not of_type or detail["type"].endswith("_type")]
    if not details:
        return ""
    first = details[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"] and first["type"] in ("model_type", "dict_type"):
        return "it must be an object"
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), message])


def require_digest(value: Mapping[str, Any], holder: dict[str, Any]) -> None:
    """Take the digest of a JSON object, if it has one, from the part that holds it, and compare it.

    Raises:
        ValueError: they differ.
    """
    digest = holder.pop(DIGEST, None)
    if digest is not None and digest != (actual := json_digest(value)):
        raise ValueError(f"sha256 of its content is {actual}, must be {digest}")


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, however it is laid out."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class CompleteDict(dict[str, Any]):
    """An object of a JSON file in which a missing key is damage to the file, with a message as for any other."""

    def __init__(self, value: Mapping[str, Any], address: str | Path, remedy: str) -> None:
        super().__init__({name: _complete(inner, address, remedy) for name, inner in value.items()})
        self._address, self._remedy = address, remedy

    def __missing__(self, key: str) -> NoReturn:
        raise DamagedFileError(f"{self._address} is damaged: it lacks {key}; {self._remedy}")


def _complete(value: Any, address: str | Path, remedy: str) -> Any:
    if isinstance(value, list):
        return [_complete(inner, address, remedy) for inner in value]
    return CompleteDict(value, address, remedy) if isinstance(value, dict) else value
