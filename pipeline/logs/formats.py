"""The reader of a log file by its format, and the columns to read."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import LogSource
from data_contracts.store.files import coalesce
from pipeline.logs.delimited import read_delimited
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.json_lines import read_json_lines
from pipeline.logs.parquet import read_parquet
from pipeline.logs.records import LINE_BYTES, Records
from pipeline.logs.signatures import require_log

_BYTES_PER_ROW = 16
"""Least size that a row counts with where small blocks are joined."""

FORMATS = {
    "csv": "csv",
    **dict.fromkeys(("tsv", "tab"), "tsv"),
    **dict.fromkeys(("jsonl", "ndjson", "json"), "jsonl"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
}
"""File name ending → format."""


def wanted_columns(source: LogSource, settings: IngestSettings, log: LogFile) -> dict[str, str | int]:
    """Field → column, of the fields that these settings use.

    Raises:
        LogError: the settings need a field that the source does not map.
    """
    columns = source.columns
    fields = {"user": columns.user, "item": columns.item, "domain": columns.domain, "timestamp": columns.timestamp}
    if settings.split.method in ("time", "leave-last-out") and columns.timestamp is None:
        raise LogError(f"{log.path}: split method {settings.split.method!r} needs times; set columns.timestamp")
    if settings.split.method == "given":
        fields["split"] = columns.split
        if columns.split is None and log.split is None:
            raise LogError(
                f"{log.path}: split method 'given' needs splits; set columns.split, or a group (?P<split>…) in "
                "path_pattern, or another ingest.split.method"
            )
    if source.rating_at_least is not None:
        fields["rating"] = columns.rating
        if columns.rating is None:
            raise LogError(f"{log.path}: rating_at_least needs ratings; set columns.rating")
    return {name: column for name, column in fields.items() if column is not None}


def read_log(
    log: LogFile, columns: dict[str, str | int], block_bytes: int, line_bytes: int = LINE_BYTES
) -> Iterator[Records]:
    """Read the records of a log file, in its order.

    Args:
        log: the file.
        columns: field → column, from `wanted_columns`.
        block_bytes: bytes of text that are parsed at once.
        line_bytes: longest readable line, or row of Parquet.

    Raises:
        LogError: the format is unknown, or a column is not in the file.
    """
    kind = find_format(log)
    if kind == "parquet":
        blocks = read_parquet(log, columns, block_bytes, line_bytes)
    elif kind == "jsonl":
        blocks = read_json_lines(log, columns, block_bytes, line_bytes)
    else:
        blocks = read_delimited(log, columns, block_bytes, kind, line_bytes)
    # A damaged block is divided into many small ones.
    return map(_join, coalesce(blocks, block_bytes, _weight))


def _weight(records: Records) -> int:
    return max(_BYTES_PER_ROW * (len(records.lines) + len(records.unreadable)), records.memory)


def find_format(log: LogFile) -> str:
    """csv, tsv, jsonl or parquet.

    Raises:
        LogError: the ending is unknown, the file is no log by its first bytes, or its source has a key that the format
            does not have.
    """
    require_log(log)
    kind = format_by_name(log)
    if kind not in FORMATS.values():
        raise LogError(f"{log.path}: the ending {kind!r} is unknown; set `format` to csv, tsv, jsonl or parquet")
    defaults = LogSource.model_fields
    for key in {"jsonl": ("delimiter",), "parquet": ("delimiter", "encoding")}.get(kind, ()):
        if getattr(log.source, key) != defaults[key].default:
            raise LogError(
                f"{log.path} is read as {kind}, which has no {key}; remove {key} from its source, or set format"
            )
    return kind


def format_by_name(log: LogFile) -> str:
    """The source's format or, for `auto`, that of the name's ending before .gz or .zst; an unknown ending as it is."""
    if log.source.format != "auto":
        return log.source.format
    ending = log.path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    return FORMATS.get(ending, ending if log.source.delimiter is None else "csv")


def _join(blocks: list[Records]) -> Records:
    if len(blocks) == 1:
        return blocks[0]
    fields = {name: pa.concat_arrays([block.fields[name] for block in blocks]) for name in blocks[0].fields}
    unreadable = [row for block in blocks for row in block.unreadable]
    return Records(fields, pa.concat_arrays([block.lines for block in blocks]), unreadable)
