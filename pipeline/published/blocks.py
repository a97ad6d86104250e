"""Readers of published files, block by block, and the Parquet writer of their rows and rejects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.settings.logs import LogSource
from pipeline.logs.cleaning import RejectCollector
from pipeline.logs.delimited import Delimited, read_delimited
from pipeline.logs.discovery import LogFile
from pipeline.logs.records import Records, read_lines, text_blocks

_BLOCK_BYTES = 16 << 20
_GROUP_ROWS = 1 << 18


class AdaptedBlock(NamedTuple):
    """Rows of a log and rejects from one block of a published file.

    Attributes:
        file: the file's name.
        rows: positives, all columns text; None for a file that only describes items or sessions.
        rejects: REJECT_SCHEMA.
        lines: lines read.
    """

    file: str
    rows: pa.Table | None
    rejects: pa.Table
    lines: int


def read_csv(path: Path, columns: Mapping[str, str | int]) -> Iterator[Records]:
    """Records of a CSV file, with a header where columns are named, or of a `.data` file with tabs."""
    header = all(isinstance(column, str) for column in columns.values())
    log = LogFile(path, path.name, LogSource(path=str(path), header=header), None, None, "", path.stat().st_size)
    return read_delimited(log, columns, _BLOCK_BYTES, "tsv" if path.suffix == ".data" else "csv")


def read_separated(path: Path, separator: str, columns: Mapping[str, int], width: int) -> Iterator[Records]:
    """Records of a Latin-1 file without a header and without quotes, whose separator may be longer than a character."""
    blocks = (block.decode("latin-1").replace(separator, "\t").encode() for block in text_blocks(path, _BLOCK_BYTES))
    return read_lines(blocks, Delimited(columns, tuple(columns.values()), width, "\t", quoted=False), 1)


def keep_clicks(records: Records) -> Records:
    """Records whose click is not 0, and all unreadable ones."""
    mask = pc.not_equal(records.fields["click"], "0")
    fields = {name: values.filter(mask) for name, values in records.fields.items()}
    return Records(fields, records.lines.filter(mask), records.unreadable)


def is_missing(fields: Mapping[str, pa.Array], *names: str) -> pa.Array:
    """True where one of the named fields is null or empty."""
    return reduce(pc.or_, (pc.equal(pc.binary_length(fields[name]).fill_null(0), 0) for name in names))


def adapt_block(
    path: Path, records: Records, rejects: RejectCollector, rows: pa.Table | None, lines: int | None = None
) -> AdaptedBlock:
    """Accepted rows, one for each value where the first column has lists, and rejects of a block.

    Args:
        path: of the file.
        records: of the block.
        rejects: filled from these records.
        rows: of the log, one for each record; None for a file that has none.
        lines: readable lines of the block; by default one for each record.
    """
    if rows is not None:
        rows = rejects.keep_accepted(rows).combine_chunks()
        first = rows.column(0)
        if pa.types.is_list(first.type) and rows.num_rows:
            repeated = rows.take(pc.list_parent_indices(first.combine_chunks()))
            rows = repeated.set_column(0, rows.column_names[0], first.combine_chunks().flatten())
    read = len(records.lines) if lines is None else lines
    return AdaptedBlock(path.name, rows, rejects.table(records, records.fields), read + len(records.unreadable))


class GroupWriter:
    """Writes tables of any size to a Parquet file, joined to row groups of many rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None
        self._buffer: list[pa.Table] = []

    def __enter__(self) -> GroupWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._flush()
        if self._file is not None:
            self._file.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._buffer.append(table)
        if sum(buffered.num_rows for buffered in self._buffer) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            table = pa.concat_tables(self._buffer)
            self._file = self._file or pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._file.write_table(table)
            self._buffer = []
