"""Reader of Parquet logs; the line of a record is its row number from 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.store.files import one_line
from pipeline.compute.dtypes import Longs, Mask
from pipeline.compute.fan_out import bounded_ranges
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.records import LINE_BYTES, FieldColumns, Records, column_error, name_hint, shorten_list
from pipeline.logs.signatures import PARQUET

_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
_READABLE_TYPES = (
    *_TEXT_TYPES,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_null,
    pa.types.is_boolean,
)


_EXACT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
"""Type → bits of the largest integers of which it has every one."""

_BYTES_PER_ROW = 16
"""Assumed size of a row of a block."""

_BLOCKS_IN_MEMORY = 4
"""Text that is decoded at once, in blocks: rows may be longer than assumed."""


def read_parquet(
    log: LogFile, columns: FieldColumns, block_bytes: int, line_bytes: int = LINE_BYTES
) -> Iterator[Records]:
    """Records of a Parquet file, numbers and times as text.

    A small file may stand for much text, if its dictionary has long values. Then its columns are read with their
    dictionary, which takes more time, and become text only once the rows of a block are chosen.

    Args:
        log: the file.
        columns: fields to read.
        block_bytes: size of a block. A page of the file is read as a whole.
        line_bytes: longest readable row, the text of all its fields.

    Raises:
        LogError: the file is damaged, lacks a column, a column holds neither text, numbers, times nor booleans, or ids
            are floats that are too large to be exact.
    """
    try:
        with _open(log) as file:
            names = {name: _column_name(log, name, column, file.schema_arrow) for name, column in columns.items()}
            wanted = list(dict.fromkeys(names.values()))
            text = [name for name in wanted if _is_text(file.schema_arrow.field(name).type)]
            rows = _batch_rows(file, wanted, block_bytes)
        has_long = rows * _longest_text(log, text) > _BLOCKS_IN_MEMORY**2 * block_bytes
        with _open(log, text if has_long else []) as file:
            first = 1
            for batch in file.iter_batches(rows, columns=wanted, use_threads=False):
                _require_exact_ids(log, batch, names)
                yield from _divide(batch, names, first, block_bytes, line_bytes)
                first += batch.num_rows
    except UnicodeDecodeError as error:
        raise LogError(f"{log.path} cannot be read: a column's name is not UTF-8; write it again") from error
    except (OSError, pa.ArrowException) as error:
        with log.path.open("rb") as head:
            remedy = "copy it again" if head.read(4) in PARQUET else "it is no Parquet: rename it, or set `format`"
        raise LogError(f"{log.path} cannot be read: {one_line(error)}; {remedy}") from error


def _column_name(log: LogFile, name: str, column: str | int, schema: pa.Schema) -> str:
    if isinstance(column, int):
        if not 0 <= column < len(schema):
            raise column_error(log, name, column, f"a position from 0 to {len(schema) - 1}")
        column = str(schema.names[column])
    if schema.names.count(column) != 1:
        rule = f"one of {shorten_list(schema.names)}, occurring once"
        raise column_error(log, name, column, rule, name_hint(column, schema.names))
    type_ = schema.field(column).type
    if not is_readable(type_):
        raise LogError(f"{log.path}: column {column!r} is {type_}, must be text, numbers, times or booleans")
    return column


def is_readable(type_: pa.DataType) -> bool:
    """Whether a column of a type can be a field: text, numbers, times, booleans, UUIDs, or a dictionary of these."""
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return isinstance(inner, pa.UuidType) or any(is_type(inner) for is_type in _READABLE_TYPES)


def _require_exact_ids(log: LogFile, batch: pa.RecordBatch, names: Mapping[str, str]) -> None:
    """Refuse ids in floats of which some integers are missing: two users may have become one."""
    for name in {"user", "item"} & names.keys():
        values = batch.column(names[name])
        if values.type in _EXACT_BITS:
            largest, bits = pc.max(pc.abs(values.cast(pa.float64()))).as_py(), _EXACT_BITS[values.type]
            if largest is not None and largest >= 2.0**bits:
                raise LogError(
                    f"{log.path}: column {names[name]!r} is {values.type} and has {largest:.17g}, must be below "
                    f"2^{bits}: {name} ids may have lost their last digits; write them as integers or text"
                )


def _open(log: LogFile, read_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
    return pq.ParquetFile(
        log.path, page_checksum_verification=True, memory_map=True, read_dictionary=list(read_dictionary)
    )


def _is_text(type_: pa.DataType) -> bool:
    return any(is_type(type_) for is_type in _TEXT_TYPES)


def _batch_rows(file: pq.ParquetFile, columns: Sequence[str], block_bytes: int) -> int:
    """Rows to read at once: no more than their size in the file allows in any row group."""
    rows = block_bytes // _BYTES_PER_ROW
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)
        rows = min(rows, _BLOCKS_IN_MEMORY * block_bytes * group.num_rows // max(size, 1))
    return max(rows, 1)


def _longest_text(log: LogFile, columns: Sequence[str]) -> int:
    """The longest texts of the columns' dictionaries, added up; those are all read with the first row of a group."""
    longest = 0
    with _open(log, columns) as file:
        for number in range(file.metadata.num_row_groups if columns else 0):
            for batch in file.iter_batches(1, row_groups=[number], columns=columns, use_threads=False):
                lengths = (
                    pc.max(pc.binary_length(_without_views(column.dictionary))).as_py() or 0 for column in batch.columns
                )
                longest = max(longest, sum(lengths))
                break
    return longest


def _divide(
    batch: pa.RecordBatch, names: Mapping[str, str], first: int, block_bytes: int, line_bytes: int
) -> Iterator[Records]:
    """Records of at most `_BLOCKS_IN_MEMORY` times `block_bytes` of text each, or of one row."""
    batch = pa.record_batch({name: _without_views(batch.column(name)) for name in dict.fromkeys(names.values())})
    sizes = sum((_text_lengths(batch.column(name)) for name in set(names.values())), np.zeros(batch.num_rows, np.int64))
    for rows in bounded_ranges(sizes, _BLOCKS_IN_MEMORY * block_bytes):
        lines = np.arange(first + rows.start, first + rows.stop)
        yield _build_records(
            batch.slice(rows.start, len(rows)), names, lines, sizes[rows.start : rows.stop] > line_bytes
        )


def _without_views(values: pa.Array) -> pa.Array:
    """Text of views, as Polars has it, as offsets and bytes, which Arrow can measure; other values unchanged."""
    if pa.types.is_dictionary(values.type) and pa.types.is_string_view(values.type.value_type):
        return values.cast(pa.dictionary(values.type.index_type, pa.large_string()))
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _text_lengths(values: pa.Array) -> Longs:
    """int64 [rows], bytes of text; 0 for other types, whose values are all short."""
    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(values.dictionary).take(values.indices) if _is_text(values.type.value_type) else None
    else:
        lengths = pc.binary_length(values) if _is_text(values.type) else None
    if lengths is None:
        return np.zeros(len(values), np.int64)
    sizes: Longs = lengths.fill_null(0).to_numpy().astype(np.int64)
    return sizes


def _build_records(batch: pa.RecordBatch, names: Mapping[str, str], lines: Longs, is_long: Mask) -> Records:
    unreadable = [(line, "length", "") for line in lines[is_long].tolist()]
    if unreadable:
        batch, lines = batch.filter(pa.array(~is_long)), lines[~is_long]
    fields, good = {}, pa.repeat(True, batch.num_rows)
    for name, column in names.items():
        values = batch.column(column)
        is_id = name in ("user", "item", "domain") and pa.types.is_floating(values.type)
        text = _as_binary(_without_exponents(values) if is_id else values)
        is_utf8 = _are_utf8(text)
        good = pc.and_(good, is_utf8)
        fields[name] = pc.if_else(is_utf8, text, None).cast(pa.string())
    numbers = pa.array(lines)
    unreadable += [(line, "undecodable", "") for line in numbers.filter(pc.invert(good)).to_pylist()]
    return Records({n: v.filter(good) for n, v in fields.items()}, numbers.filter(good), sorted(unreadable))


def _without_exponents(values: pa.Array) -> pa.Array:
    """Floats as text, whole ones as integers, NaN as null: data frames keep integer ids with missing ones so."""
    numbers = values.cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53)).fill_null(False)
    whole = pc.if_else(is_whole, numbers, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(whole, pc.if_else(pc.is_nan(numbers), None, values.cast(pa.string())))


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
