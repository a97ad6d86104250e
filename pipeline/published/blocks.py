"""Published files as blocks of records, the good and the bad of each block set apart, and Parquet to write them to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.settings import LogSource
from pipeline.logs.cleaning import Sorter
from pipeline.logs.delimited import Delimited, read_delimited
from pipeline.logs.discovery import LogFile
from pipeline.logs.records import Records, read_lines, text_blocks

_BLOCK_BYTES = 16 << 20
_GROUP_ROWS = 1 << 18


class Part(NamedTuple):
    """Records of one block of a file, sorted out.

    Attributes:
        file: the file's name.
        rows: positives, all columns text; None where the file has none of its own.
        rejects: REJECT_SCHEMA.
        lines: lines read.
    """

    file: str
    rows: pa.Table | None
    rejects: pa.Table
    lines: int


def delimited(path: Path, columns: Mapping[str, str | int]) -> Iterator[Records]:
    """Records of a CSV file, with a header where columns are named, or of a `.data` file with tabs."""
    header = all(isinstance(column, str) for column in columns.values())
    log = LogFile(path, path.name, LogSource(path=str(path), header=header), None, None, "", path.stat().st_size)
    return read_delimited(log, columns, _BLOCK_BYTES, "tsv" if path.suffix == ".data" else "csv")


def separated(path: Path, separator: str, columns: Mapping[str, int], width: int) -> Iterator[Records]:
    """Records of a Latin-1 file without a header and without quotes, whose separator may be longer than a character."""
    blocks = (block.decode("latin-1").replace(separator, "\t").encode() for block in text_blocks(path, _BLOCK_BYTES))
    return read_lines(blocks, Delimited(columns, tuple(columns.values()), width, "\t", quoted=False), 1)


def clicked_of(records: Records) -> Records:
    """Records that say anything but 0 of a click; the unreadable ones stay."""
    mask = pc.not_equal(records.fields["click"], "0")
    fields = {name: values.filter(mask) for name, values in records.fields.items()}
    return Records(fields, records.lines.filter(mask), records.unreadable)


def is_missing(fields: Mapping[str, pa.Array], *names: str) -> pa.Array:
    """True where one of the named fields is null or empty."""
    missing = pc.equal(pc.binary_length(fields[names[0]]).fill_null(0), 0)
    for name in names[1:]:
        missing = pc.or_(missing, pc.equal(pc.binary_length(fields[name]).fill_null(0), 0))
    return missing


def part_of(path: Path, records: Records, sorter: Sorter, rows: pa.Table | None, lines: int | None = None) -> Part:
    """Good rows, one for each value of a list column, and rejects of a block."""
    if rows is not None:
        rows = sorter.of_good(rows).combine_chunks()
        first = rows.column(0)
        if pa.types.is_list(first.type) and rows.num_rows:
            repeated = rows.take(pc.list_parent_indices(first.combine_chunks()))
            rows = repeated.set_column(0, rows.column_names[0], first.combine_chunks().flatten())
    read = len(records.lines) if lines is None else lines
    return Part(path.name, rows, sorter.rejects(records, records.fields), read + len(records.unreadable))


class GroupWriter:
    """A Parquet file, written in groups of many rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._flush()
        if self._file is not None:
            self._file.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        if sum(waiting.num_rows for waiting in self._waiting) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._file = self._file or pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._file.write_table(table)
            self._waiting = []
