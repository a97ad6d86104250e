"""Readers of CSV and TSV, one record per line. CSV fields may be quoted (RFC 4180, no line breaks), TSV ones not."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.csv as arrow_csv

from data_contracts.store.files import single_array
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import (
    FieldColumns,
    Records,
    UnreadableLine,
    column_error,
    decode_for_display,
    read_lines,
    text_blocks,
)

_PROBED_LINES = 100


@dataclass(frozen=True)
class Delimited:
    """Lines of `width` fields; those at `positions` are read."""

    columns: FieldColumns
    positions: tuple[int, ...]
    width: int
    delimiter: str
    quoted: bool

    def block(self, block: bytes, lines: int) -> Mapping[str, pa.Array] | None:
        """Fields of a block of `lines` lines; None unless every line is exactly one good record."""
        if not self._is_plain(block):
            return None
        names = [str(position) for position in range(self.width)]
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.delimiter, quote_char='"' if self.quoted else False
                ),
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
        """Fields of one line in the order of `columns`; None for an empty line."""
        if not line:
            return None
        record = split_line(line, self.delimiter, quoted=self.quoted)
        if record is None:
            return UnreadableLine("syntax", decode_for_display(line))
        if len(record) != self.width:
            return UnreadableLine("arity", decode_for_display(line))
        fields: list[str | None] = [record[position] for position in self.positions]
        if any("\udc80" <= character <= "\udcff" for field in fields for character in field or ""):
            return UnreadableLine("undecodable", decode_for_display(line))
        return fields


def split_line(line: bytes, delimiter: str, *, quoted: bool) -> list[str] | None:
    """The fields of a line, undecodable bytes as lone surrogates; None where a quote is not closed."""
    text = line.decode("utf-8", "surrogateescape")
    if not quoted or '"' not in text:
        return text.split(delimiter)
    reader = csv.reader([text, "next"], delimiter=delimiter)
    try:
        record = next(reader)
    except csv.Error:
        return None
    return record if reader.line_num == 1 else None


def read_delimited(log: LogFile, columns: FieldColumns, block_bytes: int, kind: str) -> Iterator[Records]:
    """Records of a CSV or TSV file.

    Args:
        log: the file.
        columns: fields to read.
        block_bytes: bytes read at a time.
        kind: "csv" or "tsv".

    Raises:
        LogError: the header or the records have no such column.
    """
    delimiter, quoted = (",", True) if kind == "csv" else ("\t", False)
    blocks = text_blocks(log.path, block_bytes)
    first, skipped = _without_blank_start(blocks)
    if not first:
        return
    if log.source.header:
        line, _, first = first.partition(b"\n")
        names = split_line(line.removesuffix(b"\r"), delimiter, quoted=quoted)
        if names is None:
            raise LogError(f"{log.path}: the header is {decode_for_display(line)!r}, must close its quotes")
        skipped += 1
    else:
        names = [str(position) for position in range(_usual_width(first, delimiter, columns, quoted=quoted))]
    positions = tuple(_position(log, name, column, names) for name, column in columns.items())
    line_format = Delimited(columns, positions, len(names), delimiter, quoted)
    yield from read_lines(chain([first] if first else [], blocks), line_format, skipped + 1)


def _without_blank_start(blocks: Iterator[bytes]) -> tuple[bytes, int]:
    """The first block from its first line that is not empty, and the number of empty lines before it."""
    skipped = 0
    for block in blocks:
        text = block.lstrip(b"\r\n")
        skipped += block[: len(block) - len(text)].count(b"\n")
        if text:
            return text, skipped
    return b"", skipped


def _usual_width(block: bytes, delimiter: str, columns: FieldColumns, *, quoted: bool) -> int:
    """The commonest number of fields of the first lines, the larger on a tie; without lines, as many as are mapped."""
    lines = (line.removesuffix(b"\r") for line in block.split(b"\n", _PROBED_LINES)[:_PROBED_LINES])
    records = (split_line(line, delimiter, quoted=quoted) for line in lines if line)
    widths = Counter(len(record) for record in records if record is not None)
    mapped = 1 + max((column for column in columns.values() if isinstance(column, int)), default=0)
    return max(widths, key=lambda width: (widths[width], width), default=mapped)


def _position(log: LogFile, name: str, column: str | int, names: Sequence[str]) -> int:
    if isinstance(column, int):
        if 0 <= column < len(names):
            return column
        raise column_error(log, name, column, f"a position from 0 to {len(names) - 1}")
    if not log.source.header:
        raise LogError(f"{log.path}: columns.{name} is {column!r}, must be a position where header = false")
    if names.count(column) != 1:
        raise column_error(log, name, column, f"one of the header's names: {', '.join(names)}, occurring once")
    return names.index(column)
