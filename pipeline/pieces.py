"""Pieces: what the ingest keeps of each raw log, as Parquet by domain, so that domains can be taken one at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.settings import IngestSettings, LogSource
from data_contracts.store import write_atomically
from pipeline.cleaning import REJECT_SCHEMA, clean
from pipeline.columnar import read_parquet
from pipeline.delimited import read_delimited
from pipeline.jsonlines import read_json_lines
from pipeline.logs import LogError, LogFile
from pipeline.records import Records

_DONE = "done.json"
_REJECTS = "rejects.parquet"
_BYTES_PER_ROW = 16
"""Rows of a Parquet block are reckoned at this many bytes."""

FORMATS = {
    "csv": "csv",
    **dict.fromkeys(("tsv", "tab"), "tsv"),
    **dict.fromkeys(("jsonl", "ndjson", "json"), "jsonl"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
}
"""File name endings and the formats they mean."""


@dataclass(frozen=True)
class Job:
    """One log file to be cut into pieces."""

    log: LogFile
    columns: dict[str, str | int]
    folder: Path
    block_bytes: int


@dataclass(frozen=True)
class Piece:
    """The pieces of one log file.

    Attributes:
        log: the file.
        folder: where its pieces are.
        raw_rows: records in the file, good or bad.
        domains: domain → its Parquet files, under CLEAN_SCHEMA without `domain`.
    """

    log: LogFile
    folder: Path
    raw_rows: int
    domains: dict[str, list[str]]

    def paths(self, domain: str) -> list[Path]:
        """Parquet files of a domain, in the order of the log."""
        return [self.folder / name for name in self.domains.get(domain, ())]

    def rejects(self) -> pa.Table:
        """REJECT_SCHEMA, ordered by line."""
        return pq.read_table(self.folder / _REJECTS, page_checksum_verification=True).sort_by("line")


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


def cut(job: Job) -> Piece:
    """Read one log file into pieces; pieces that an interrupted attempt completed are taken as they are."""
    marker = job.folder / _DONE
    if marker.exists():
        return Piece(job.log, job.folder, **json.loads(marker.read_text()))
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    done: dict[str, Any] = {"raw_rows": 0, "domains": {}}
    with pq.ParquetWriter(job.folder / _REJECTS, REJECT_SCHEMA, write_page_checksum=True) as rejects:
        for number, records in enumerate(_gathered(_read(job), job.block_bytes // _BYTES_PER_ROW)):
            cleaned = clean(records, job.log)
            done["raw_rows"] += cleaned.rows.num_rows + cleaned.rejects.num_rows
            rejects.write_table(cleaned.rejects)
            _write_domains(cleaned.rows, job.folder, number, done["domains"])
    write_atomically(marker, json.dumps(done).encode())
    return Piece(job.log, job.folder, **done)


def _read(job: Job) -> Iterator[Records]:
    kind = format_of(job.log)
    if kind == "parquet":
        return read_parquet(job.log, job.columns, max(job.block_bytes // _BYTES_PER_ROW, 1))
    if kind == "jsonl":
        return read_json_lines(job.log, job.columns, job.block_bytes)
    return read_delimited(job.log, job.columns, job.block_bytes, kind)


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


def _gathered(parts: Iterator[Records], rows: int) -> Iterator[Records]:
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


def _write_domains(rows: pa.Table, folder: Path, number: int, domains: dict[str, list[str]]) -> None:
    for domain in pc.unique(rows["domain"]).to_pylist():
        name = f"{len(domains) if domain not in domains else list(domains).index(domain)}-{number}.parquet"
        table = rows.filter(pc.equal(rows["domain"], domain)).drop_columns("domain")
        pq.write_table(table, folder / name, compression="lz4", write_page_checksum=True)
        domains.setdefault(domain, []).append(name)
