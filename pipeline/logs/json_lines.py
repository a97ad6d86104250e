"""JSON lines: one object per line. Numeric ids keep the digits of the log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from data_contracts.store.files import single_array
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import (
    LINE_BYTES,
    FieldColumns,
    Records,
    UnreadableLine,
    bounded_memory,
    decode_for_display,
    read_lines,
    require_line_feeds,
    text_blocks,
)

_EXACT_FLOAT = 2.0**53
_CONSTANTS = (b"NaN", b"Infinity", b"-Infinity")
_WHOLE_DECIMAL = re.compile(rb"(-?[0-9]+)\.0+")
_DEEPEST = 256
"""Nested objects and lists of a readable line. Python's parser has a limit too, which depends on its version."""

_ARRAY = re.compile(rb"\s*\[[ \t\r]*(?:\{|\n)")
_RETURN_BETWEEN_OBJECTS = re.compile(rb"\}[ \t]*\r\s*\{")
_UNUSUAL_NUMBER = re.compile(rb"[\s:,\[](?:-0|-?NaN|-?Inf)")


@dataclass(frozen=True)
class JsonLines:
    """Lines that are JSON objects; the keys in `columns` are read.

    A rating, and a time that is a decimal fraction, is read as float64 and written in the shortest way. Other numbers
    keep their digits, but 12.0 is the id 12, because JSON does not tell these apart, and NaN is no id.
    """

    columns: FieldColumns
    blank: bytes = b" \t\r\x0b\x0c"

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""
        if not _has_one_object_per_line(block, lines) or _may_be_too_deep(block, lines):
            return None
        schema = self._schema(block)
        if schema is None:
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
        """Types by the block's first line; None where it is no record, lacks a value, or has a nested one.

        None also where one key would have to be read in two ways.
        """
        record = _parse(block[: block.find(b"\n")].decode("utf-8", "replace"))
        if not isinstance(record, dict):
            return None
        fields: dict[str, pa.DataType] = {}
        for name, key in self.columns.items():
            value = record.get(str(key))
            if value is None:
                return None
            type_ = _arrow_type(name, value)
            if type_ is None or fields.setdefault(str(key), type_) != type_:
                return None
        return pa.schema(list(fields.items()))

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        """Fields of one line in the order of `columns`; None for a blank line."""
        if not line.strip(self.blank):
            return None
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return UnreadableLine("undecodable", decode_for_display(line))
        record = None if _is_too_deep(line) else _parse(text)
        if not isinstance(record, dict):
            return UnreadableLine("syntax", decode_for_display(line))
        values = {name: record.get(str(key)) for name, key in self.columns.items()}
        if not all(value is None or isinstance(value, (str, bool, bytes)) for value in values.values()):
            return UnreadableLine("syntax", decode_for_display(line))
        fields = [_as_field(name, value) for name, value in values.items()]
        if any("\ud800" <= character <= "\udfff" for field in fields for character in field or ""):
            return UnreadableLine("undecodable", decode_for_display(line))
        return fields


def _is_decimal(name: str, number: bytes) -> bool:
    """Whether a field of this name has the number as float64."""
    return name == "rating" or (name == "timestamp" and not number.lstrip(b"-").isdigit())


def _arrow_type(name: str, value: Any) -> pa.DataType | None:
    if isinstance(value, str | bool):
        return pa.bool_() if isinstance(value, bool) else pa.string()
    if isinstance(value, bytes):
        return pa.float64() if _is_decimal(name, value) else pa.int64()
    return None


def _as_field(name: str, value: str | bool | bytes | None) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, bytes):
        return value
    if _is_decimal(name, value) and abs(decimal := float(value)) < _EXACT_FLOAT:
        text: str = pa.scalar(decimal).cast(pa.string()).as_py()
        return text
    if name not in ("rating", "timestamp"):
        if value in _CONSTANTS:
            return None
        if whole := _WHOLE_DECIMAL.fullmatch(value):
            value = whole[1]
    return value.decode()


def _parse(line: str) -> Any:
    """The value of a line, numbers as they are written, in bytes; None where it is not JSON."""
    with bounded_memory(line):
        try:
            return json.loads(line, parse_int=str.encode, parse_float=str.encode, parse_constant=str.encode)
        except (ValueError, RecursionError):
            return None


def _may_be_too_deep(block: bytes, lines: int) -> bool:
    """Whether a line has enough brackets, those in its strings included."""
    if block.count(b"{") + block.count(b"[") - lines < _DEEPEST:
        return False
    data = np.frombuffer(block, np.uint8)
    brackets = np.flatnonzero((data == ord("{")) | (data == ord("[")))
    return bool(np.bincount(np.searchsorted(np.flatnonzero(data == ord("\n")), brackets)).max() > _DEEPEST)


def _is_too_deep(line: bytes) -> bool:
    if line.count(b"{") + line.count(b"[") <= _DEEPEST:
        return False
    outside = b"".join(line.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    data = np.frombuffer(outside, np.uint8)
    opening, closing = ((data == ord(first)) | (data == ord(second)) for first, second in ("{[", "}]"))
    depth = np.cumsum(opening.astype(np.int8) - closing, dtype=np.int32)
    return bool(depth.max(initial=0) > _DEEPEST)


def _has_one_object_per_line(block: bytes, lines: int) -> bool:
    """Whether lines start with { and end with }, and no number is -0, whose sign integers lose, or not finite."""
    starts = block.count(b"\n{") + block.startswith(b"{")
    ends = block.count(b"}\n") + block.count(b"}\r\n")
    is_plain = not any(text in block for text in (b"-0", b"NaN", b"Inf"))
    return starts == ends == lines and (is_plain or not _UNUSUAL_NUMBER.search(block))


def _as_text(columns: Mapping[str, pa.ChunkedArray]) -> Mapping[str, pa.Array] | None:
    """Columns as strings; None where a decimal is too large for its text to be exact."""
    for column in columns.values():
        if pa.types.is_floating(column.type) and (pc.max(pc.abs(column)).as_py() or 0.0) >= _EXACT_FLOAT:
            return None
    return {name: single_array(column).cast(pa.string()) for name, column in columns.items()}


def read_json_lines(
    log: LogFile, columns: FieldColumns, block_bytes: int, line_bytes: int = LINE_BYTES
) -> Iterator[Records]:
    """Records of a JSON lines file, whose lines have at most `line_bytes` bytes.

    Raises:
        LogError: a column is a position, or the file is one array, or ends lines with carriage returns.
    """
    for name, column in columns.items():
        if isinstance(column, int):
            raise LogError(f"{log.path}: columns.{name} is {column}, must be a key's name in JSON lines")
    blocks = text_blocks(log.path, block_bytes, line_bytes, log.source.encoding)
    blocks = require_line_feeds(log.path, blocks, _RETURN_BETWEEN_OBJECTS)
    yield from read_lines(_without_array(log, blocks), JsonLines(columns), 1, line_bytes)


def _without_array(log: LogFile, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks of a file that does not begin as an array of objects."""
    is_start = True
    for block in blocks:
        if is_start and _ARRAY.match(block):
            raise LogError(
                f"{log.path} is a JSON array, must be JSON lines: one object a line; convert it, e.g. with DuckDB: "
                f"copy (from read_json('{log.path.name}')) to '{log.path.stem}.jsonl'"
            )
        is_start = is_start and not block.strip()
        yield block
