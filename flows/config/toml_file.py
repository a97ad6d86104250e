"""TOML files, read in one way: whatever is wrong is said in one line, with the file and what to do."""

from __future__ import annotations

import codecs
import stat
import tomllib
from pathlib import Path
from typing import Any

_LARGEST = 1 << 24
"""Bytes; a run's file has some hundred lines."""
_DEEPEST = 50
"""Tables and lists inside each other; settings have five."""


class TomlError(ValueError):
    """A file is no TOML, or cannot be read: its path and what is wrong, in one line."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a byte order mark at its head is no part of it.

    Raises:
        TomlError: there is no such file, it is no plain file, too large, nested too deeply, or no TOML.
    """
    content = _read(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise TomlError(f"{path}: is UTF-16, must be UTF-8; save it again in that encoding")
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise TomlError(f"{path}: not UTF-8 at line {line}, byte {byte:#04x}; save it again in that encoding") from None
    except RecursionError:
        raise _depth_error(path) from None
    except ValueError as error:  # also of integers with thousands of digits
        rule = "" if path.suffix == ".toml" else f"; `edda init {path.name}` writes a run's TOML file for a log"
        raise TomlError(f"{path}: not TOML: {error}{rule}") from None
    check_depth(path, values)
    return values


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise TomlError(f"{path}: is a folder, must be a TOML file")
        if not stat.S_ISREG(status.st_mode):
            raise TomlError(f"{path}: is a device or a pipe, must be a TOML file")
        if status.st_size > _LARGEST:
            raise TomlError(f"{path}: has {status.st_size:,} bytes, must be a TOML file of at most {_LARGEST:,}")
        return path.read_bytes()
    except FileNotFoundError:
        rule = "" if path.suffix == ".toml" else ", must be a run's TOML file"
        raise TomlError(f"{path}: no such file{rule}") from None
    except OSError as error:
        raise TomlError(f"{path}: cannot be read: {error.strerror}") from None


def check_depth(path: Path, table: dict[str, Any]) -> None:
    """Refuse what is nested deeper than any settings, before recursive functions walk through it.

    Raises:
        TomlError: it is.
    """
    level: list[dict[str, Any] | list[Any]] = [table]
    for _ in range(_DEEPEST):
        tables = (table.values() if isinstance(table, dict) else table for table in level)
        level = [value for values in tables for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _depth_error(path)


def _depth_error(path: Path) -> TomlError:
    return TomlError(f"{path}: is nested too deeply, must have at most {_DEEPEST} tables and lists inside each other")
