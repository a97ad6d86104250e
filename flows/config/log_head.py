"""The first rows of a log of which nothing is known, and the settings by which it can be read."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.settings.logs import LogSource
from data_contracts.store.files import one_line
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import FORMATS, format_by_name
from pipeline.logs.records import compression_of, text_blocks
from pipeline.logs.signatures import ITEM_NAME, USER_NAME, guess_utf_16, has_name_of, require_log

_HEAD_BYTES = 1 << 20
_HEAD_ROWS = 10_000


@dataclass(frozen=True)
class LogHead:
    """The first rows of a log.

    Attributes:
        path: of the file.
        keys: of its source where they are not the defaults: format, delimiter, encoding, header.
        rows: the rows, all text; nulls where a record has none.
        types: Arrow type of each column of Parquet, else nothing.
    """

    path: Path
    keys: dict[str, Any]
    rows: pa.Table
    types: dict[str, pa.DataType]


def read_head(path: Path) -> LogHead:
    """Read the first rows of a log.

    Raises:
        LogError: it is no log that can be read, or has no rows, or fewer than two columns.
    """
    if not path.is_file():
        raise LogError(f"{path}: is {'a folder' if path.is_dir() else 'not there'}, must be a file")
    # UTF-16 is no error here, so any other encoding is named.
    log = LogFile(path, path.name, LogSource(path=str(path), encoding="latin-1"), None, None, "", 0)
    require_log(log)
    kind, keys, types = format_by_name(log), dict[str, Any](), dict[str, pa.DataType]()
    if kind == "parquet" or (kind not in FORMATS.values() and _starts_with(path, b"PAR1")):
        keys |= {} if kind == "parquet" else {"format": "parquet"}
        rows, types = _parquet_rows(path)
    else:
        text = _read_text(path, keys)
        if kind == "jsonl" or (kind not in FORMATS.values() and text.lstrip()[:1] == "{"):
            keys |= {} if kind == "jsonl" else {"format": "jsonl"}
            rows = _json_rows(path, text)
        else:
            rows = _delimited_rows(path, kind, text, keys)
    if not rows.num_rows or rows.num_columns < 2:
        found = f"{rows.num_rows} rows of {rows.num_columns} columns"
        raise LogError(f"{path}: has {found}, must have rows of at least 2, a user and an item")
    return LogHead(path, keys, rows, types)


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _parquet_rows(path: Path) -> tuple[pa.Table, dict[str, pa.DataType]]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            batch = next(file.iter_batches(_HEAD_ROWS), None)
            types = dict(zip(schema.names, schema.types, strict=True))  # of a name that occurs twice the last
            once = [name for name in schema.names if schema.names.count(name) == 1]
            return _as_text([] if batch is None else batch.select(once).to_pylist(), once), types
    except OverflowError as error:
        raise LogError(f"{path} has a time before year 1 or after 9999, must be between; correct its column") from error
    except (OSError, pa.ArrowException) as error:
        raise LogError(f"{path} cannot be read: {one_line(error)}; copy it again") from error


def _as_text(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> pa.Table:
    """A table of text; columns that have objects or lists are left out."""
    columns = {name: [row.get(name) for row in rows] for name in names}
    nested = {name for name, values in columns.items() if any(isinstance(value, dict | list) for value in values)}
    texts = {name: [None if value is None else str(value) for value in columns[name]] for name in names}
    return pa.table({name: pa.array(texts[name], pa.string()) for name in names if name not in nested})


def _read_text(path: Path, keys: dict[str, Any]) -> str:
    """The first lines; an encoding that is not UTF-8 is added to `keys`."""
    with pa.input_stream(str(path), compression=compression_of(path)) as stream:
        utf_16 = guess_utf_16(bytes(stream.read(64)))
    for encoding in (utf_16,) if utf_16 else ("utf-8", "cp1252", "latin-1"):
        content = next(text_blocks(path, _HEAD_BYTES, encoding=encoding), b"")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            continue
        keys |= {} if encoding == "utf-8" else {"encoding": encoding}
        return text
    raise LogError(f"{path} is not {utf_16}; write the run's file by hand, with `encoding`")


def _json_rows(path: Path, text: str) -> pa.Table:
    if text.lstrip()[:1] == "[":
        raise LogError(f"{path} is a JSON array, must be JSON lines: one object a line; convert it, e.g. with DuckDB")
    rows = []
    for line in text.splitlines()[:_HEAD_ROWS]:
        try:
            row = json.loads(line, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            continue
        rows += [row] if isinstance(row, dict) else []
    if not rows:
        raise LogError(
            f"{path}: no line is a JSON object, must be JSON lines: one object a line, names in double quotes"
        )
    return _as_text(rows, list(dict.fromkeys(name for row in rows for name in row)))


def _delimited_rows(path: Path, kind: str, text: str, keys: dict[str, Any]) -> pa.Table:
    """Rows by DuckDB's sniffer; what differs from the defaults of CSV or TSV is added to `keys`."""
    has_colons = text.lstrip("\r\n").partition("\n")[0].count("::") > 1  # a delimiter that is not sniffed
    known = ", delim = '::'" if has_colons else ""
    known += ", quote = ''" if has_colons or kind == "tsv" else ""
    options = f"header = false, all_varchar = true, sample_size = -1, skip = 0, ignore_errors = true{known}"
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        head = Path(folder) / "head.csv"
        head.write_text(text, encoding="utf-8", newline="")
        try:
            sniffed = connection.execute(f"select Delimiter from sniff_csv(?, {options})", [str(head)]).fetchall()
            query = f"from read_csv(?, {options}) limit {_HEAD_ROWS}"
            rows: pa.Table = connection.sql(query, params=[str(head)]).to_arrow_table()
        except duckdb.Error as error:
            message = "has no delimiter that splits its lines alike, must be CSV, TSV or JSON lines"
            raise LogError(f"{path}: {message}") from error
    delimiter = sniffed[0][0]
    keys |= {} if kind in ("csv", "tsv") else {"format": "csv"}
    keys |= {} if delimiter == ("\t" if kind == "tsv" else ",") else {"delimiter": delimiter}
    if not has_header(rows) and not _names_ids(rows):
        keys["header"] = False
        return rows.rename_columns([str(position) for position in range(rows.num_columns)])
    names = [str(name or "") for name in rows.slice(0, 1).to_pylist()[0].values()]
    return rows.slice(1).rename_columns(names)


def _names_ids(rows: pa.Table) -> bool:
    """Whether the first of some rows has the name of a column of users, and one of items, as no row of ids has."""
    first = [str(text or "") for text in rows.slice(0, 1).to_pylist()[0].values()] if rows.num_rows else []
    return all(any(has_name_of(pattern, text) for text in first) for pattern in (USER_NAME, ITEM_NAME))


def has_header(rows: pa.Table) -> bool:
    """Whether the first of some rows names the columns: it has no digits, or looks unlike the others in some column."""
    if rows.num_rows < 2:
        return bool(rows.num_rows)
    first, *others = (tuple(map(_shape, row.values())) for row in rows.slice(0, 100).to_pylist())
    usual = [Counter(column).most_common(1)[0][0] for column in zip(*others, strict=True)]
    return "9" not in first and any(name != shape for name, shape in zip(first, usual, strict=True))


def _shape(value: str | None) -> str:
    """A value with a 9 for each number, and an a for each word."""
    return re.sub(r"[^\W\d]+", "a", re.sub(r"[0-9]+([.,][0-9]+)?", "9", (value or "").strip()))
