"""Readers of CSV and TSV. CSV fields may be quoted (RFC 4180), TSV ones not."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as arrow_csv

from data_contracts.store.files import single_array
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.quoted_lines import QuotedLines
from pipeline.logs.records import (
    LINE_BYTES,
    FieldColumns,
    Records,
    UnreadableLine,
    bounded_memory,
    column_error,
    decode_for_display,
    name_hint,
    read_lines,
    require_line_feeds,
    shorten_list,
    text_blocks,
)
from pipeline.logs.signatures import describe_delimiter, require_header

_FAST_WIDTH = 1 << 12
"""Most columns of a file that Arrow reads: it needs memory for each."""

_UNIT_SEPARATOR = "\x1f"
"""Stands for delimiters of several bytes, which Arrow does not have."""

_RETURN_OUTSIDE_QUOTES = re.compile(rb"^(?:[^\"\r]|\"[^\"]*\")*\r[^\r]")
_HEADER_BYTES = 1 << 20
_PROBED_LINES = 100
_PROBED_BYTES = 16 << 20
"""Lines and bytes from which the width of a file without a header is taken."""

csv.field_size_limit(1 << 30)  # else it refuses fields of more than 131,072 characters, which Arrow reads


@dataclass(frozen=True)
class Delimited:
    """Lines of `width` fields; those at `positions` are read."""

    columns: FieldColumns
    positions: tuple[int, ...]
    width: int
    delimiter: str
    quoted: bool
    blank: bytes = b"\r"

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""
        if self.width > _FAST_WIDTH or not self._is_plain(block):
            return None
        names, delimiter = [str(position) for position in range(self.width)], self.delimiter
        if len(delimiter.encode()) > 1:
            if _UNIT_SEPARATOR.encode() in block:
                return None
            block, delimiter = block.replace(delimiter.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
                parse_options=arrow_csv.ParseOptions(delimiter=delimiter, quote_char='"' if self.quoted else False),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=[str(position) for position in dict.fromkeys(self.positions)],
                    column_types={str(position): pa.binary() for position in self.positions},
                ),
            ).combine_chunks()
            if table.num_rows != lines:
                return None
            return {
                name: single_array(table[str(position)]).cast(pa.string())
                for name, position in zip(self.columns, self.positions, strict=True)
            }
        except pa.ArrowInvalid:
            return None

    def _is_plain(self, block: bytes) -> bool:
        """Whether lines end with LF or CRLF only, and no quote is left open on the last line (Arrow would close it)."""
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return False
        if not self.quoted or b'"' not in block:
            return True
        last = block[block.rfind(b"\n", 0, len(block) - 1) + 1 : -1]
        return isinstance(self.line(last.removesuffix(b"\r")), list)

    def line(self, line: bytes) -> list[str | None] | UnreadableLine | None:
        """Fields of one line in the order of `columns`; None for a blank line."""
        if not line.strip(self.blank):
            return None
        split = split_line(line, self.delimiter, quoted=self.quoted, most=max(self.positions) + 1)
        if split is None:
            return UnreadableLine("syntax", decode_for_display(line))
        if split.width != self.width:
            return UnreadableLine("arity", decode_for_display(line))
        try:
            return [split.fields[position].decode() for position in self.positions]
        except UnicodeDecodeError:
            return UnreadableLine("undecodable", decode_for_display(line))


class SplitLine(NamedTuple):
    """The number of fields of a line, and the first of them."""

    width: int
    fields: list[bytes]


def split_line(line: bytes, delimiter: str, *, quoted: bool, most: int) -> SplitLine | None:
    """Split a line without its line end.

    Args:
        line: its bytes, in UTF-8 or not.
        delimiter: one ASCII character, or more where nothing is quoted.
        quoted: whether quotes have a meaning.
        most: how many fields to return.

    Returns:
        None where a quote is not closed, or a line with quotes has a carriage return outside of them.
    """
    if not quoted or b'"' not in line:
        return SplitLine(line.count(delimiter.encode()) + 1, line.split(delimiter.encode(), most)[:most])
    with bounded_memory(line):
        reader = csv.reader([line.decode("latin-1"), "next"], delimiter=delimiter)
        try:
            record = next(reader)
        except csv.Error:
            return None
        if reader.line_num > 1:
            return None
        return SplitLine(len(record), [field.encode("latin-1") for field in record[:most]])


def read_delimited(
    log: LogFile, columns: FieldColumns, block_bytes: int, kind: str, line_bytes: int = LINE_BYTES
) -> Iterator[Records]:
    """Records of a CSV or TSV file.

    Args:
        log: the file.
        columns: fields to read.
        block_bytes: bytes read at a time.
        kind: "csv" or "tsv".
        line_bytes: longest readable line.

    Raises:
        LogError: the header or the records have no such column, or lines end with carriage returns alone.
    """
    delimiter = log.source.delimiter or ("," if kind == "csv" else "\t")
    quoted = kind == "csv" and len(delimiter.encode()) == 1
    blocks = text_blocks(log.path, block_bytes, line_bytes, log.source.encoding)
    blocks = require_line_feeds(log.path, blocks, _RETURN_OUTSIDE_QUOTES)
    first, skipped = _without_blank_start(blocks)
    if not first:
        return
    if log.source.header:
        line, _, rest = first.partition(b"\n")
        line = line.removesuffix(b"\r")
        names = _header_names(log, line, delimiter, quoted=quoted)
        require_header(log, names, columns)
        width = len(names)
        start = [rest] if rest else []
        skipped += 1
    else:
        lines, start = _probe_lines(chain([first], blocks), line_bytes)
        line = lines[0] if lines else b""
        if (split := split_line(line, delimiter, quoted=quoted, most=len(line) + 1)) is not None:
            require_header(log, [decode_for_display(field) for field in split.fields], columns)
        names, width = None, _usual_width(lines, delimiter, columns, quoted=quoted)
    hint = describe_delimiter(line, delimiter)
    positions = tuple(_position(log, name, column, names or width, hint) for name, column in columns.items())
    blocks = chain(start, blocks)
    if quoted:
        are_allowed = log.source.quoted_newlines
        joiner = QuotedLines(log.path, skipped + 1, width, positions, delimiter, line_bytes, are_allowed)
        blocks = joiner.join(blocks)
    yield from read_lines(blocks, Delimited(columns, positions, width, delimiter, quoted), skipped + 1, line_bytes)


def _without_blank_start(blocks: Iterator[bytes]) -> tuple[bytes, int]:
    """The first block from its first line that is not empty, and the number of empty lines before it."""
    skipped = 0
    for block in blocks:
        text = block.lstrip(b"\r\n")
        skipped += block[: len(block) - len(text)].count(b"\n")
        if text:
            return text, skipped
    return b"", skipped


def _header_names(log: LogFile, line: bytes, delimiter: str, *, quoted: bool) -> list[str]:
    if len(line) > _HEADER_BYTES:
        rule = f"has more than {_HEADER_BYTES:,} bytes"
        raise LogError(f"{log.path}: the header {rule}; if the file has no header, set header = false")
    split = split_line(line, delimiter, quoted=quoted, most=len(line) + 1)
    if split is None:
        raise LogError(f"{log.path}: the header is {decode_for_display(line)!r}, must close its quotes")
    return [name.decode("utf-8", "backslashreplace") for name in split.fields]


def _probe_lines(blocks: Iterator[bytes], line_bytes: int) -> tuple[list[bytes], list[bytes]]:
    """The first lines, whose number follows from their lengths, not from the blocks; and the blocks read for them."""
    lines, read, size = list[bytes](), list[bytes](), 0
    for block in blocks:
        read.append(block)
        for line in block.split(b"\n", _PROBED_LINES - len(lines))[:-1]:
            lines.append(line.removesuffix(b"\r") if len(line) <= line_bytes else b"")
            size += min(len(line), line_bytes + 1)  # a longer line may be cut
            if len(lines) == _PROBED_LINES or size >= _PROBED_BYTES:
                return lines, read
    return lines, read


def _usual_width(lines: Sequence[bytes], delimiter: str, columns: FieldColumns, *, quoted: bool) -> int:
    """The commonest number of fields, the larger on a tie; without any line, as many as are mapped."""
    records = (split_line(line, delimiter, quoted=quoted, most=0) for line in lines if line)
    widths = Counter(record.width for record in records if record is not None)
    mapped = 1 + max((column for column in columns.values() if isinstance(column, int)), default=0)
    return max(widths, key=lambda width: (widths[width], width), default=mapped)


def _position(log: LogFile, name: str, column: str | int, names: Sequence[str] | int, hint: str) -> int:
    """Position of a column among the header's names or, without a header, among so many; the hint is for errors."""
    if isinstance(column, int):
        width = names if isinstance(names, int) else len(names)
        if 0 <= column < width:
            return column
        raise column_error(log, name, column, f"a position from 0 to {width - 1}", hint)
    if isinstance(names, int):
        raise LogError(f"{log.path}: columns.{name} is {column!r}, must be a position where header = false")
    if names.count(column) != 1:
        rule = f"one of the header's names: {shorten_list(names)}, occurring once"
        hint = name_hint(column, names) or hint
        if not hint and any(character.isdigit() for character in "".join(names)):
            hint = "; correct the source's `columns`, or set header = false, and columns by position, if this is a row"
        raise column_error(log, name, column, rule, hint)
    return names.index(column)
