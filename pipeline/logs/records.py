"""Records: a raw log file as blocks of text fields, every record that cannot be read set aside with its reason.

A text file is cut into blocks at line ends. A block that Arrow reads in one go, one row per line, is done; any other
block is cut into smaller ones, down to single lines read by the exact, slow reader. So a damaged line costs a few
slow lines, and the outcome does not depend on the block size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.logs.discovery import LogError, LogFile

Columns = Mapping[str, str | int]
"""Field (user, item, domain, split, rating, timestamp) → its column's name or position in the log."""

TEXT_KEPT = 500
"""Characters of an offending record that are kept."""

_SLOW_LINES = 64
_PIECES = 16


@dataclass(frozen=True)
class Records:
    """Readable records of a stretch of a log, and the unreadable ones.

    Attributes:
        fields: a string column per wanted field; null or "" where the record has none.
        lines: the records' line numbers from 1, ascending.
        unreadable: (line, reason, text) of records that are no records.
    """

    fields: dict[str, pa.Array]
    lines: pa.Array
    unreadable: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Unreadable:
    """Why one line is no record."""

    reason: str
    text: str


class LineFormat(Protocol):
    """How lines of one file become fields."""

    @property
    def columns(self) -> Columns:
        """Wanted fields."""

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines, or None unless exactly one good record stands on each line."""

    def line(self, line: bytes) -> list[str | None] | Unreadable | None:
        """Fields of one line (without its end) in the order of `columns`; None where the line is empty."""


def read_lines(blocks: Iterator[bytes], form: LineFormat, first_line: int) -> Iterator[Records]:
    """Records of a text file.

    Args:
        blocks: its bytes; each block ends with a line end.
        form: how lines become fields.
        first_line: line number of the first line.

    Yields:
        At least one group of records per block, in file order.
    """
    line = first_line
    for block in blocks:
        lines = block.count(b"\n")
        yield from _read_block(block, lines, line, form)
        line += lines


def _read_block(block: bytes, lines: int, first: int, form: LineFormat) -> Iterator[Records]:
    fields = form.block(block, lines)
    if fields is not None:
        yield Records(dict(fields), pa.array(np.arange(first, first + lines)))
    elif lines <= _SLOW_LINES:
        yield _read_slowly(block, first, form)
    else:
        for piece in _pieces(block):
            count = piece.count(b"\n")
            yield from _read_block(piece, count, first, form)
            first += count


def _pieces(block: bytes) -> Iterator[bytes]:
    """Cut into about `_PIECES` parts at line ends."""
    start, size = 0, len(block) // _PIECES + 1
    while start < len(block):
        end = block.find(b"\n", min(start + size, len(block) - 1)) + 1
        yield block[start:end]
        start = end


def _read_slowly(block: bytes, first: int, form: LineFormat) -> Records:
    rows: list[list[str | None]] = []
    lines, unreadable = [], []
    for number, line in enumerate(block.split(b"\n")[:-1], start=first):
        found = form.line(line.removesuffix(b"\r"))
        if isinstance(found, Unreadable):
            unreadable.append((number, found.reason, found.text[:TEXT_KEPT]))
        elif found is not None:
            rows.append(found)
            lines.append(number)
    by_column: Sequence[Any] = list(zip(*rows, strict=True)) or [()] * len(form.columns)
    fields = {name: pa.array(values, pa.string()) for name, values in zip(form.columns, by_column, strict=True)}
    return Records(fields, pa.array(lines, pa.int64()), unreadable)


def text_blocks(path: Path, block_bytes: int) -> Iterator[bytes]:
    """The bytes of a plain, .gz or .zst file in blocks that end with a line end; a byte order mark is dropped.

    Raises:
        LogError: the compressed stream is damaged or cut short.
    """
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    rest, is_first = b"", True
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            while chunk := stream.read(max(block_bytes, 64)):
                chunk = chunk.removeprefix(b"\xef\xbb\xbf") if is_first else chunk
                is_first = False
                end = chunk.rfind(b"\n") + 1
                if end:
                    yield rest + chunk[:end]
                    rest = chunk[end:]
                else:
                    rest += chunk
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error}; copy it again") from error
    if rest:
        yield rest + b"\n"


def decoded(line: bytes) -> str:
    """A line as text for people, undecodable bytes as \\xNN."""
    return line.decode("utf-8", "backslashreplace")


def column_error(log: LogFile, name: str, column: str | int, rule: str) -> LogError:
    """The error of a file that lacks a mapped column."""
    return LogError(f"{log.path}: columns.{name} is {column!r}, must be {rule}; correct the source's `columns`")
