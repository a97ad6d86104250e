"""Pieces: what the ingest keeps of each raw log: its rejects, and runs of rows sorted by a hash of the user, so that a
bucket of users can be taken from all logs without reading the rest.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.compute.scratch import batch_writer, load_array, made, mapped, mapped_table
from pipeline.ingest.hashing import hashed
from pipeline.logs.cleaning import REJECT_SCHEMA, clean
from pipeline.logs.discovery import LogFile
from pipeline.logs.formats import read_log

PARTS = 1 << 12
_SHIFT = np.uint64(64 - 12)
_KEY = 0x5851F42D4C957F2D
"""What the hash starts from; any number will do, as no result depends on the parts."""

_ROWS = pa.schema(
    [("user", pa.int32()), ("item", pa.int32()), ("split", pa.int8()), ("timestamp", pa.int64()), ("line", pa.int64())]
)
_IDS = pa.schema([("id", pa.string())])

Bounds = npt.NDArray[np.int64]


class RunWriter:
    """Writes the runs of one log file into a folder."""

    def __init__(self, folder: Path) -> None:
        self.domains: list[str] = []
        """The domain of each run written so far."""
        self._folder = folder
        self._bounds: list[Bounds] = []
        self._files = ExitStack()
        self._rows = self._files.enter_context(batch_writer(folder / "rows.arrow", _ROWS))
        self._ids = [self._files.enter_context(batch_writer(ids_path(folder, kind), _IDS)) for kind in ("user", "item")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
        if kind is None:
            np.save(self._folder / "bounds.npy", np.array(self._bounds, np.int64).reshape(-1, PARTS + 1))

    def write(self, rows: pa.Table) -> None:
        """Write the rows of a block, under CLEAN_SCHEMA, as a run for each of its domains."""
        if not rows.num_rows:
            return
        domains = _array(rows["domain"])
        for code, domain in enumerate(domains.dictionary.to_pylist()):
            is_only = len(domains.dictionary) == 1
            of_domain = rows if is_only else rows.filter(pc.equal(domains.indices, code))
            if of_domain.num_rows:
                self._write_run(domain, of_domain)

    def _write_run(self, domain: str, rows: pa.Table) -> None:
        users, items = (_array(rows[f"{kind}_id"]).dictionary_encode() for kind in ("user", "item"))
        parts = (hashed(users.dictionary, _KEY) >> _SHIFT).astype(np.uint16)[users.indices.to_numpy()]
        order = pa.array(np.argsort(parts, kind="stable"))
        columns = {"user": users.indices, "item": items.indices}
        columns |= {name: _array(rows[name]) for name in ("split", "timestamp", "line")}
        arrays = [columns[name].take(order) for name in _ROWS.names]
        self._rows.write_batch(pa.record_batch(arrays, _ROWS))
        for writer, ids in zip(self._ids, (users, items), strict=True):
            writer.write_batch(pa.record_batch([ids.dictionary], _IDS))
        self._bounds.append(np.concatenate([[0], np.cumsum(np.bincount(parts, minlength=PARTS))]))
        self.domains.append(domain)


class Runs:
    """The runs of one log file, as `RunWriter` left them; pages of files, read when touched."""

    def __init__(self, folder: Path) -> None:
        self._rows = mapped(folder / "rows.arrow")
        self._bounds: Bounds = load_array(folder / "bounds.npy", mode="r")

    def __len__(self) -> int:
        return len(self._bounds)

    def rows_by_part(self, run: int) -> Bounds:
        """int64 [PARTS], rows of each part."""
        rows: Bounds = np.diff(self._bounds[run])
        return rows

    def rows(self, run: int, parts: range) -> pa.RecordBatch:
        """int32 user and item, codes of the run's own; int8 split and int64 timestamp, or null; int64 line."""
        first, end = (int(self._bounds[run, part]) for part in (parts.start, parts.stop))
        return self._rows.get_batch(run).slice(first, end - first)


def ids_path(folder: Path, kind: str) -> Path:
    """Where the distinct ids of each run of a file are: a batch per run, in the order of codes."""
    return folder / f"{kind}s.arrow"


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


_DONE = "done.json"
_REJECTS = "rejects.arrow"


@dataclass(frozen=True)
class Job:
    """One log file to be cut into pieces."""

    log: LogFile
    columns: dict[str, str | int]
    folder: Path
    block_bytes: int


@dataclass(frozen=True)
class Piece:
    """What one log file left.

    Attributes:
        folder: its runs and rejects.
        raw_rows: records in the file, good or bad.
        last_line: line of its last record.
        domains: the domain of each run.
        reasons: reason → rejected rows.
    """

    folder: Path
    raw_rows: int
    last_line: int
    domains: tuple[str, ...]
    reasons: dict[str, int]

    def rejects(self) -> pa.Table:
        """REJECT_SCHEMA, ordered by line; pages of a file, read when touched."""
        return mapped_table(self.folder / _REJECTS)


def cut(job: Job) -> Piece:
    """Read one log file into runs and rejects, unless an earlier attempt did."""
    made(job.folder, partial(_cut, job))
    done = json.loads((job.folder / _DONE).read_text())
    return Piece(job.folder, **{**done, "domains": tuple(done["domains"])})


def _cut(job: Job, folder: Path) -> None:
    raw_rows, last_line, reasons = 0, 0, Counter[str]()
    with batch_writer(folder / _REJECTS, REJECT_SCHEMA) as rejects, RunWriter(folder) as runs:
        for records in read_log(job.log, job.columns, job.block_bytes):
            cleaned = clean(records, job.log)
            raw_rows += cleaned.rows.num_rows + cleaned.rejects.num_rows
            last_line = max([last_line, *(part["line"][-1].as_py() for part in cleaned if part.num_rows)])
            reasons.update(cleaned.rejects["reason"].to_pylist())
            rejects.write_table(cleaned.rejects)
            runs.write(cleaned.rows)
    done = {"raw_rows": raw_rows, "last_line": last_line, "domains": runs.domains, "reasons": reasons}
    (folder / _DONE).write_text(json.dumps(done))
