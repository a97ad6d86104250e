"""Records of a raw log file, in blocks of text fields; records that cannot be read are listed with a reason.

A text file is divided into blocks at line ends. Where Arrow does not read a block as one row per line, it is divided
into smaller ones, down to a few lines for the exact, slow reader. So a damaged line costs a few slow lines, and the
result does not depend on the block size.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.logs.discovery import LogError, LogFile

FieldColumns = Mapping[str, str | int]
"""Field (user, item, domain, split, rating, timestamp) → its column's name or position in the log."""

TEXT_KEPT = 500
"""Most characters of an offending record that are kept."""

_MARKS = re.compile(b"^(?:%b)+" % BOM_UTF8, re.MULTILINE)
_SLOW_LINES = 64
_BLOCKS = 16


@dataclass(frozen=True)
class Records:
    """Readable records of consecutive lines of a log, and the unreadable ones.

    Attributes:
        fields: a string column per field; null or "" where the record has none.
        lines: the records' line numbers from 1, ascending.
        unreadable: (line, reason, text) of each unreadable line.
    """

    fields: dict[str, pa.Array]
    lines: pa.Array
    unreadable: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class UnreadableLine:
    """The reason why a line is not a record, and its text."""

    reason: str
    text: str


class LineFormat(Protocol):
    """Parser of the lines of one file."""

    @property
    def columns(self) -> FieldColumns:
        """Fields to read."""

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        """Fields of one line, without its line end, in the order of `columns`; None for an empty line."""


def read_lines(blocks: Iterator[bytes], line_format: LineFormat, first_line: int) -> Iterator[Records]:
    """Records of a text file.

    Args:
        blocks: its bytes; each block ends with a line end.
        line_format: parser of its lines.
        first_line: line number of the first line.

    Yields:
        At least one group of records per block, in file order.
    """
    line = first_line
    for block in blocks:
        lines = block.count(b"\n")
        yield from _read_block(block, lines, line, line_format)
        line += lines


def _read_block(block: bytes, lines: int, first: int, line_format: LineFormat) -> Iterator[Records]:
    fields = line_format.block(block, lines)
    if fields is not None:
        yield Records(dict(fields), pa.array(np.arange(first, first + lines)))
    elif lines <= _SLOW_LINES:
        yield _read_slowly(block, first, line_format)
    else:
        for smaller in _divide(block):
            count = smaller.count(b"\n")
            yield from _read_block(smaller, count, first, line_format)
            first += count


def _divide(block: bytes) -> Iterator[bytes]:
    """`_BLOCKS` smaller blocks of about as many lines each. (Of bytes, one long line would take all.)"""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    start = 0
    for lines in np.array_split(ends, _BLOCKS):
        yield block[start : lines[-1]]
        start = lines[-1]


def _read_slowly(block: bytes, first: int, line_format: LineFormat) -> Records:
    rows: list[list[str | None]] = []
    lines, unreadable = [], []
    for number, line in enumerate(block.split(b"\n")[:-1], start=first):
        record = line_format.line(line.removesuffix(b"\r"))
        if isinstance(record, UnreadableLine):
            unreadable.append((number, record.reason, record.text[:TEXT_KEPT]))
        elif record is not None:
            rows.append(record)
            lines.append(number)
    by_column: Sequence[Any] = list(zip(*rows, strict=True)) or [()] * len(line_format.columns)
    fields = {name: pa.array(values, pa.string()) for name, values in zip(line_format.columns, by_column, strict=True)}
    return Records(fields, pa.array(lines, pa.int64()), unreadable)


def text_blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    """The bytes of a plain, .gz or .zst file in blocks that end with a line end.

    Byte order marks at the start of a line are dropped: files with one are often joined by `cat`.

    Raises:
        LogError: the compressed stream is damaged or cut short.
    """
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    rest = b""
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            while chunk := stream.read(max(block_bytes, 64)):
                end = chunk.rfind(b"\n") + 1
                if end:
                    yield _without_marks(rest + chunk[:end])
                    rest = chunk[end:]
                else:
                    rest += chunk
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error}; copy it again") from error
    if rest:
        yield _without_marks(rest + b"\n")


def _without_marks(block: bytes) -> bytes:
    if block.startswith(BOM_UTF8) or b"\n" + BOM_UTF8 in block:
        return _MARKS.sub(b"", block)
    return block


def decode_for_display(line: bytes) -> str:
    """A line as readable text, undecodable bytes as \\xNN."""
    return line.decode("utf-8", "backslashreplace")


def column_error(log: LogFile, name: str, column: str | int, rule: str) -> LogError:
    """The error of a file that lacks a mapped column."""
    return LogError(f"{log.path}: columns.{name} is {column!r}, must be {rule}; correct the source's `columns`")
