"""JSON lines: one object per line. Numeric ids keep the digits of the log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from data_contracts.store.files import single_array
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import FieldColumns, Records, UnreadableLine, decode_for_display, read_lines, text_blocks

_EXACT_FLOAT = 2.0**53
_NUMERIC = ("rating", "timestamp")


@dataclass(frozen=True)
class JsonLines:
    """Lines that are JSON objects; the keys in `columns` are read."""

    columns: FieldColumns

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""
        schema = self._schema(block)
        if schema is None or not _has_one_object_per_line(block, lines):
            return None
        try:
            block.decode("utf-8")
            table = arrow_json.read_json(
                pa.BufferReader(block),
                read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
            if table.num_rows != lines:
                return None
            return _as_text({name: table[str(key)] for name, key in self.columns.items()})
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None

    def _schema(self, block: bytes) -> pa.Schema | None:
        """Types by the block's first line; None where it is no record, lacks a value, or has a nested one."""
        record = _parse(block[: block.find(b"\n")])
        if not isinstance(record, dict):
            return None
        fields = {}
        for name, key in self.columns.items():
            value = record.get(str(key))
            if value is None:
                return None
            if isinstance(value, str | bool):
                fields[str(key)] = pa.bool_() if isinstance(value, bool) else pa.string()
            elif isinstance(value, _Number):
                is_decimal = name == "rating" or (name == "timestamp" and not value.text.lstrip("-").isdigit())
                fields[str(key)] = pa.float64() if is_decimal else pa.int64()
            else:
                return None
        return pa.schema(list(fields.items()))

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        """Fields of one line in the order of `columns`; None for a blank line."""
        if not line.strip():
            return None
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return UnreadableLine("undecodable", decode_for_display(line))
        record = _parse(line)
        if not isinstance(record, dict):
            return UnreadableLine("syntax", decode_for_display(line))
        values = [record.get(str(key)) for key in self.columns.values()]
        if not all(value is None or isinstance(value, (str, bool, _Number)) for value in values):
            return UnreadableLine("syntax", decode_for_display(line))
        fields = [_as_field(value) for value in values]
        if any("\ud800" <= character <= "\udfff" for field in fields for character in field or ""):
            return UnreadableLine("undecodable", decode_for_display(line))
        return fields


@dataclass(frozen=True)
class _Number:
    """A JSON number as written in the log."""

    text: str


def _as_field(value: str | bool | _Number | None) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return value.text if isinstance(value, _Number) else value


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    except (ValueError, RecursionError):
        return None


def _has_one_object_per_line(block: bytes, lines: int) -> bool:
    """Whether every line starts with { and ends with }, and no number is -0, whose sign integers lose."""
    starts = block.count(b"\n{") + block.startswith(b"{")
    ends = block.count(b"}\n") + block.count(b"}\r\n")
    return starts == ends == lines and b"-0" not in block


def _as_text(columns: Mapping[str, pa.ChunkedArray]) -> Mapping[str, pa.Array] | None:
    """Columns as strings; None where a decimal is too large for its text to be exact."""
    for column in columns.values():
        if pa.types.is_floating(column.type) and (pc.max(pc.abs(column)).as_py() or 0.0) >= _EXACT_FLOAT:
            return None
    return {name: single_array(column).cast(pa.string()) for name, column in columns.items()}


def read_json_lines(log: LogFile, columns: FieldColumns, block_bytes: int) -> Iterator[Records]:
    """Records of a JSON lines file.

    Raises:
        LogError: a column is a position.
    """
    for name, column in columns.items():
        if isinstance(column, int):
            raise LogError(f"{log.path}: columns.{name} is {column}, must be a key's name in JSON lines")
    yield from read_lines(text_blocks(log.path, block_bytes), JsonLines(columns), 1)
