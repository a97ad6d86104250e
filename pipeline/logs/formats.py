"""Which reader a log file needs, and which of its columns are wanted."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_contracts.settings import IngestSettings, LogSource
from pipeline.logs.delimited import read_delimited
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.json_lines import read_json_lines
from pipeline.logs.parquet import read_parquet
from pipeline.logs.records import Records

_BYTES_PER_ROW = 16
"""Rows of a Parquet block are reckoned at this many bytes."""

FORMATS = {
    "csv": "csv",
    **dict.fromkeys(("tsv", "tab"), "tsv"),
    **dict.fromkeys(("jsonl", "ndjson", "json"), "jsonl"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
}
"""File name endings and the formats they mean."""


def wanted_columns(source: LogSource, settings: IngestSettings, log: LogFile) -> dict[str, str | int]:
    """Field → column, for the fields that these settings use.

    Raises:
        LogError: the settings need a field that the source does not map.
    """
    columns = source.columns
    wanted = {"user": columns.user, "item": columns.item, "domain": columns.domain, "timestamp": columns.timestamp}
    if settings.split.method in ("time", "leave-last-out") and columns.timestamp is None:
        raise LogError(f"{log.path}: split method {settings.split.method!r} needs times; set columns.timestamp")
    if settings.split.method == "given":
        wanted["split"] = columns.split
        if columns.split is None and log.split is None:
            raise LogError(
                f"{log.path}: split method 'given' needs splits; set columns.split, or a group (?P<split>…) in "
                "path_pattern, or another ingest.split.method"
            )
    if source.rating_at_least is not None:
        wanted["rating"] = columns.rating
        if columns.rating is None:
            raise LogError(f"{log.path}: rating_at_least needs ratings; set columns.rating")
    return {name: column for name, column in wanted.items() if column is not None}


def read_log(log: LogFile, columns: dict[str, str | int], block_bytes: int) -> Iterator[Records]:
    """Read the records of a log file, in its order.

    Args:
        log: the file.
        columns: field → column, from `wanted_columns`.
        block_bytes: bytes of text that are parsed at once.

    Raises:
        LogError: the format is unknown, or a column is not in the file.
    """
    kind, rows = format_of(log), block_bytes // _BYTES_PER_ROW
    if kind == "parquet":
        return _coalesced(read_parquet(log, columns, max(rows, 1)), rows)
    if kind == "jsonl":
        return _coalesced(read_json_lines(log, columns, block_bytes), rows)
    return _coalesced(read_delimited(log, columns, block_bytes, kind), rows)


def format_of(log: LogFile) -> str:
    """csv, tsv, jsonl or parquet, as the source says or the name's ending, before .gz or .zst, tells.

    Raises:
        LogError: neither tells.
    """
    if log.source.format != "auto":
        return log.source.format
    name = log.path.name.lower().removesuffix(".gz").removesuffix(".zst")
    ending = name.rpartition(".")[2]
    if ending not in FORMATS:
        raise LogError(f"{log.path}: the ending {ending!r} tells no format; set `format` to csv, tsv, jsonl or parquet")
    return FORMATS[ending]


def _coalesced(parts: Iterator[Records], rows: int) -> Iterator[Records]:
    """Join small neighbouring groups of records, as a damaged block leaves them, up to about `rows` rows."""
    waiting: list[Records] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part.lines)
        if count >= rows:
            yield _joined(waiting)
            waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Records]) -> Records:
    if len(parts) == 1:
        return parts[0]
    fields = {name: pa.concat_arrays([part.fields[name] for part in parts]) for name in parts[0].fields}
    unreadable = [row for part in parts for row in part.unreadable]
    return Records(fields, pa.concat_arrays([part.lines for part in parts]), unreadable)
