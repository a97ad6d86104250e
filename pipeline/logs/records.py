"""Records of a raw log file, in blocks of text fields; records that cannot be read are listed with a reason.

A text file is divided into blocks at line ends. Where Arrow does not read a block as one row per line, it is divided
into smaller ones, down to a few lines for the exact, slow reader. So a damaged line costs a few slow lines, and the
result does not depend on the block size.
"""

from __future__ import annotations

import re
import threading
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from data_contracts.settings.ingest import IngestSettings
from data_contracts.store.files import fold_name, show_name
from pipeline.compute.dtypes import Longs
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.encodings import RecodedStream

FieldColumns = Mapping[str, str | int]
"""Field (user, item, domain, split, rating, timestamp) → its column's name or position in the log."""

TEXT_KEPT = 500
"""Most characters of an offending record that are kept."""

LINE_BYTES = IngestSettings().line_bytes_at_most
"""Longest readable line, by default."""

_MARKS = re.compile(b"^(?:%b)+" % BOM_UTF8, re.MULTILINE)
_LONG_LINE = 1 << 20
_LONG_LINES = threading.Lock()
_PROBED_BYTES = 1 << 20
_UNREADABLE_BYTES = 256
_SLOW_LINES = 64
_BLOCKS = 16


@dataclass(frozen=True)
class Records:
    """Readable records of consecutive lines of a log, and the unreadable ones.

    Attributes:
        fields: a string column per field; null or "" where the record has none.
        lines: the records' line numbers from 1, ascending.
        unreadable: (line, reason, text) of each unreadable line, the text cut to TEXT_KEPT characters.
    """

    fields: dict[str, pa.Array]
    lines: pa.Array
    unreadable: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def memory(self) -> int:
        """Bytes in use, about."""
        arrays: int = sum(values.nbytes for values in self.fields.values()) + self.lines.nbytes
        return arrays + sum(_UNREADABLE_BYTES + len(text) for _, _, text in self.unreadable)


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

    @property
    def blank(self) -> bytes:
        """Characters of which a blank line consists, if of any."""

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        """Fields of one line, without its line end, in the order of `columns`; None for a blank line."""


def read_lines(
    blocks: Iterator[bytes], line_format: LineFormat, first_line: int, line_bytes: int = LINE_BYTES
) -> Iterator[Records]:
    """Records of a text file.

    Args:
        blocks: its bytes; each block ends with a line end.
        line_format: parser of its lines.
        first_line: line number of the first line.
        line_bytes: longest readable line.

    Yields:
        Groups of records, in file order.
    """
    reader = _BlockReader(line_format, line_bytes)
    for block in blocks:
        lines = block.count(b"\n")
        yield from reader.read(block, np.arange(first_line, first_line + lines))
        first_line += lines


@dataclass(frozen=True)
class _BlockReader:
    """Reader of blocks of whole lines, of which the numbers are known."""

    line_format: LineFormat
    line_bytes: int

    def read(self, block: bytes, numbers: Longs) -> Iterator[Records]:
        """Records of a block; blank lines are left out where it cannot be read as a whole."""
        fields = self._read_fast(block, len(numbers))
        if fields is not None:
            yield Records(dict(fields), pa.array(numbers))
        elif block.strip(self.line_format.blank + b"\n"):
            rows = _find_rows(block, self.line_format.blank)
            yield from self._divide(rows.text, numbers[rows.numbers], is_new=len(rows.numbers) < len(numbers))

    def _divide(self, block: bytes, numbers: Longs, *, is_new: bool) -> Iterator[Records]:
        """Records of a block without blank lines; unless it is new, it cannot be read as a whole."""
        fields = self._read_fast(block, len(numbers)) if is_new else None
        if fields is not None:
            yield Records(dict(fields), pa.array(numbers))
        elif len(numbers) <= _SLOW_LINES:
            yield self._read_slowly(block, numbers)
        else:
            for smaller, smaller_numbers in _divide(block, numbers):
                yield from self._divide(smaller, smaller_numbers, is_new=True)

    def _read_fast(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        if len(block) > self.line_bytes and _line_lengths(block).max(initial=0) > self.line_bytes:
            return None
        return self.line_format.block(block, lines)

    def _read_slowly(self, block: bytes, numbers: Longs) -> Records:
        rows: list[list[str | None]] = []
        lines, unreadable = [], []
        for number, line in zip(numbers.tolist(), block.split(b"\n"), strict=False):
            record = (
                UnreadableLine("length", decode_for_display(line))
                if len(line) > self.line_bytes
                else self.line_format.line(line.removesuffix(b"\r"))
            )
            if isinstance(record, UnreadableLine):
                unreadable.append((number, record.reason, record.text))
            elif record is not None:
                rows.append(record)
                lines.append(number)
        columns = self.line_format.columns
        by_column: Sequence[Any] = list(zip(*rows, strict=True)) or [()] * len(columns)
        fields = {name: pa.array(values, pa.string()) for name, values in zip(columns, by_column, strict=True)}
        return Records(fields, pa.array(lines, pa.int64()), unreadable)


class _Rows(NamedTuple):
    """The lines of a block that are not blank: their text, and their indices among all lines."""

    text: bytes
    numbers: Longs


def _find_rows(block: bytes, blank: bytes) -> _Rows:
    data = np.frombuffer(block, np.uint8)
    is_text = np.ones(256, dtype=bool)
    is_text[list(blank + b"\n")] = False
    lengths = _line_lengths(block) + 1
    is_row = np.logical_or.reduceat(is_text[data], np.cumsum(lengths) - lengths)
    return _Rows(data[np.repeat(is_row, lengths)].tobytes(), np.flatnonzero(is_row))


def _line_lengths(block: bytes) -> Longs:
    """int64 [lines], bytes without the line feed."""
    lengths: Longs = np.diff(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")), prepend=-1) - 1
    return lengths


def _divide(block: bytes, numbers: Longs) -> Iterator[tuple[bytes, Longs]]:
    """`_BLOCKS` smaller blocks of about as many lines each. (Of bytes, one long line would take all.)"""
    ends = np.cumsum(_line_lengths(block) + 1)
    start = 0
    for ends_of_lines, numbers_of_lines in zip(
        np.array_split(ends, _BLOCKS), np.array_split(numbers, _BLOCKS), strict=True
    ):
        end = int(ends_of_lines[-1])
        yield block[start:end], numbers_of_lines
        start = end


def compression_of(path: Path) -> str | None:
    """What a file is compressed by, after its name's ending."""
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())


def text_blocks(path: Path, block_bytes: int, line_bytes: int = LINE_BYTES, encoding: str = "utf-8") -> Iterator[bytes]:
    """The text of a plain, .gz or .zst file as UTF-8, in blocks that end with a line end.

    Byte order marks at the start of a line are dropped: files with one are often joined by `cat`. Of a line that is
    longer than `line_bytes` not all may be there, but more than `line_bytes`.

    Raises:
        LogError: the compressed stream is damaged or cut short, or UTF-16 or UTF-32 lacks its byte order mark.
    """
    rest, size = list[bytes](), 0
    try:
        with pa.input_stream(str(path), compression=compression_of(path)) as file:
            stream = file if encoding == "utf-8" else RecodedStream(file, encoding)
            while chunk := stream.read(max(block_bytes, 64)):
                end = chunk.rfind(b"\n") + 1
                if end:
                    yield _without_marks(b"".join([*rest, chunk[:end]]))
                    rest, size = [], 0
                if size <= line_bytes:
                    rest.append(chunk[end:])
                    size += len(rest[-1])
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error}; copy it again") from error
    except UnicodeError as error:
        raise LogError(f"{path} is not {encoding}: {error}; correct the source's encoding") from error
    if size:
        yield _without_marks(b"".join([*rest, b"\n"]))


def require_line_feeds(path: Path, blocks: Iterator[bytes], pattern: re.Pattern[bytes]) -> Iterator[bytes]:
    """The blocks of a text file, unless it is one line in which carriage returns end lines.

    Args:
        path: for the message.
        blocks: from `text_blocks`.
        pattern: of a carriage return between two records.

    Raises:
        LogError: it is.
    """
    first = next(blocks, b"")
    second = next(blocks, b"")
    if not second and first.count(b"\n") == 1 and pattern.search(first[:_PROBED_BYTES].rstrip(b"\r\n")):
        raise LogError(
            f"{path}: lines end with a carriage return alone, must end with a line feed; convert it, e.g. with "
            f"tr '\\r' '\\n' < {path.name} > new-{path.name}"
        )
    return (block for block in chain((first, second), blocks) if block)


def _without_marks(block: bytes) -> bytes:
    if block.startswith(BOM_UTF8) or b"\n" + BOM_UTF8 in block:
        return _MARKS.sub(b"", block)
    return block


def bounded_memory(line: bytes | str) -> AbstractContextManager[object]:
    """A lock under which to parse a long line, as many small values take forty times the memory of their text.

    Threads take turns for the interpreter anyway.
    """
    return _LONG_LINES if len(line) > _LONG_LINE else nullcontext()


def decode_for_display(line: bytes) -> str:
    """The start of a line as readable text, undecodable bytes as \\xNN."""
    # A character has at most four bytes, so a cut one at the end is not among the first TEXT_KEPT.
    return line[: 4 * TEXT_KEPT].decode("utf-8", "backslashreplace")[:TEXT_KEPT]


def shorten_list(names: Sequence[str]) -> str:
    """Names for a message, cut where they are long."""
    shown = ", ".join(names[:TEXT_KEPT])
    return shown if len(shown) <= TEXT_KEPT else f"{shown[:TEXT_KEPT]}… ({len(names):,} in all)"


def name_hint(column: str, names: Sequence[str]) -> str:
    """The remedy where a name that looks the same is there; empty where none is."""
    alike = [name for name in names if fold_name(name) == fold_name(column)]
    return f"; did you mean {show_name(alike[0])}? correct the source's `columns`" if len(alike) == 1 else ""


def column_error(log: LogFile, name: str, column: str | int, rule: str, hint: str = "") -> LogError:
    """The error of a file that lacks a mapped column; a hint takes the place of the usual remedy."""
    remedy = hint or "; correct the source's `columns`"
    return LogError(f"{log.path}: columns.{name} is {column!r}, must be {rule}{remedy}")
