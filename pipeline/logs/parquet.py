"""Reader of Parquet logs; the line of a record is its row number from 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import FieldColumns, Records, column_error

_READABLE_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_null,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_boolean,
)


def read_parquet(log: LogFile, columns: FieldColumns, block_rows: int) -> Iterator[Records]:
    """Records of a Parquet file, numbers and times as text.

    Args:
        log: the file.
        columns: fields to read.
        block_rows: rows read at a time.

    Raises:
        LogError: the file is damaged, lacks a column, or a column holds neither text, numbers, times nor booleans.
    """
    try:
        with pq.ParquetFile(log.path, page_checksum_verification=True, memory_map=True) as file:
            names = {name: _column_name(log, name, column, file.schema_arrow) for name, column in columns.items()}
            first = 1
            for batch in file.iter_batches(block_rows, columns=list(dict.fromkeys(names.values())), use_threads=False):
                yield _build_records(batch, names, first)
                first += batch.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise LogError(f"{log.path} cannot be read: {error}; copy it again") from error


def _column_name(log: LogFile, name: str, column: str | int, schema: pa.Schema) -> str:
    if isinstance(column, int):
        if not 0 <= column < len(schema):
            raise column_error(log, name, column, f"a position from 0 to {len(schema) - 1}")
        column = str(schema.names[column])
    if schema.names.count(column) != 1:
        raise column_error(log, name, column, f"one of {', '.join(schema.names)}, occurring once")
    type_ = schema.field(column).type
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    if not isinstance(inner, pa.UuidType) and not any(is_type(inner) for is_type in _READABLE_TYPES):
        raise LogError(f"{log.path}: column {column!r} is {type_}, must be text, numbers, times or booleans")
    return column


def _build_records(batch: pa.RecordBatch, names: dict[str, str], first: int) -> Records:
    lines = pa.array(np.arange(first, first + batch.num_rows))
    fields, good = {}, pa.repeat(True, batch.num_rows)
    for name, column in names.items():
        text = _as_binary(batch.column(column))
        is_utf8 = _are_utf8(text)
        good = pc.and_(good, is_utf8)
        fields[name] = pc.if_else(is_utf8, text, None).cast(pa.string())
    unreadable = [(line.as_py(), "undecodable", "") for line in lines.filter(pc.invert(good))]
    return Records({n: v.filter(good) for n, v in fields.items()}, lines.filter(good), unreadable)


def _as_binary(values: pa.Array) -> pa.Array:
    """Values as binary: text unchanged, numbers in digits, times as integers of their own unit."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type) or pa.types.is_date64(values.type):
        values = values.cast(pa.int64())
    elif pa.types.is_date32(values.type):
        values = values.cast(pa.int32())
    elif isinstance(values.type, pa.UuidType):
        values = pa.array((value and str(value) for value in values.to_pylist()), pa.string())
    if not pa.types.is_binary(values.type) and not pa.types.is_large_binary(values.type):
        values = values.cast(pa.string())
    return values.cast(pa.binary())


def _are_utf8(values: pa.Array) -> pa.Array:
    """True where the bytes are UTF-8, or null."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_is_utf8(value.as_py()) for value in values])
    return pa.repeat(True, len(values))


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
