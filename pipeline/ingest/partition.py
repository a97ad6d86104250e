"""Partitions of raw logs: the rejects of each file, and runs of its rows sorted by a hash of the user.

So the rows of a bucket of users can be read from all files without reading the rest.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.files import single_array
from pipeline.compute.dtypes import Longs
from pipeline.compute.hashing import hash_strings
from pipeline.compute.scratch import batch_writer, ensure_folder, load_array, map_batches, map_table
from pipeline.logs.cleaning import REJECT_SCHEMA, clean
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import read_log

SHARDS = 1 << 12
"""Numbers that users are hashed to; a bucket has the users of consecutive shards."""
_SHIFT = np.uint64(64 - 12)
_KEY = 0x5851F42D4C957F2D
"""Start of the hash; any number will do, as no result depends on the shards."""

_ROWS = pa.schema(
    [("user", pa.int32()), ("item", pa.int32()), ("split", pa.int8()), ("timestamp", pa.int64()), ("line", pa.int64())]
)
_IDS = pa.schema([("id", pa.string())])


class SortedRunWriter:
    """Writes the runs of one log file into a folder."""

    def __init__(self, folder: Path) -> None:
        self.domains: list[str] = []
        """The domain of each run written so far."""
        self.rows: Counter[str] = Counter()
        """Rows written so far, by domain."""
        self.times: dict[str, tuple[int, int]] = {}
        """Earliest and latest time written so far, by domain."""
        self._folder = folder
        self._bounds: list[Longs] = []
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
            np.save(self._folder / "bounds.npy", np.array(self._bounds, np.int64).reshape(-1, SHARDS + 1))

    def write(self, rows: pa.Table) -> None:
        """Write the rows of a block, under CLEAN_SCHEMA, as one run per domain."""
        if not rows.num_rows:
            return
        domains = single_array(rows["domain"])
        for code, domain in enumerate(domains.dictionary.to_pylist()):
            is_only = len(domains.dictionary) == 1
            rows_of_domain = rows if is_only else rows.filter(pc.equal(domains.indices, code))
            if rows_of_domain.num_rows:
                self._write_run(domain, rows_of_domain)

    def _write_run(self, domain: str, rows: pa.Table) -> None:
        users, items = (single_array(rows[f"{kind}_id"]).dictionary_encode() for kind in ("user", "item"))
        shards = (hash_strings(users.dictionary, _KEY) >> _SHIFT).astype(np.uint16)[users.indices.to_numpy()]
        order = pa.array(np.argsort(shards, kind="stable"))
        columns = {"user": users.indices, "item": items.indices}
        columns |= {name: single_array(rows[name]) for name in ("split", "timestamp", "line")}
        arrays = [columns[name].take(order) for name in _ROWS.names]
        self._rows.write_batch(pa.record_batch(arrays, _ROWS))
        for writer, ids in zip(self._ids, (users, items), strict=True):
            writer.write_batch(pa.record_batch([ids.dictionary], _IDS))
        self._bounds.append(np.concatenate([[0], np.cumsum(np.bincount(shards, minlength=SHARDS))]))
        self.domains.append(domain)
        self.rows[domain] += rows.num_rows
        earliest, latest = pc.min_max(rows["timestamp"]).as_py().values()
        if earliest is not None:
            known = self.times.get(domain, (earliest, latest))
            self.times[domain] = min(earliest, known[0]), max(latest, known[1])


class SortedRuns:
    """The runs of one log file that `SortedRunWriter` wrote, mapped."""

    def __init__(self, folder: Path) -> None:
        self._rows = map_batches(folder / "rows.arrow")
        self._bounds: Longs = load_array(folder / "bounds.npy", mode="r")

    def __len__(self) -> int:
        return len(self._bounds)

    def rows_by_shard(self, run: int) -> Longs:
        """int64 [SHARDS], number of rows."""
        rows: Longs = np.diff(self._bounds[run])
        return rows

    def rows(self, run: int, shards: range) -> pa.RecordBatch:
        """int32 user and item, codes within the run; int8 split and int64 timestamp, or null; int64 line."""
        first, end = (int(self._bounds[run, shard]) for shard in (shards.start, shards.stop))
        return self._rows.get_batch(run).slice(first, end - first)


def ids_path(folder: Path, kind: str) -> Path:
    """File of the distinct ids of each run of a log file: a batch per run, in the order of codes."""
    return folder / f"{kind}s.arrow"


_REPORT = "done.json"
_REJECTS = "rejects.arrow"
_MOST_DOMAINS = 10_000
"""Domains of a file whose rejects are counted apart."""

_UNIT_FACTOR = 300
_SINCE_1970 = 10**8
"""Seconds from 1970 to 1973. Smaller times count from anything, and are not compared."""

TEXT_SHOWN = 60
"""Characters of a rejected record that a message shows."""


class Rejected(NamedTuple):
    """Rejected rows of a file for one reason and, where it is known, of one domain; line and text are the first's."""

    domain: str | None
    reason: str
    rows: int
    line: int
    text: str


@dataclass(frozen=True)
class PartitionTask:
    """One log file to be partitioned."""

    log: LogFile
    columns: dict[str, str | int]
    folder: Path
    block_bytes: int
    line_bytes: int


@dataclass(frozen=True)
class LogPartition:
    """One log file as runs and rejects.

    Attributes:
        folder: of its runs and rejects.
        raw_rows: records in the file, good or bad.
        last_line: line of its last record.
        domains: the domain of each run.
        rows: domain → good rows.
        rejected: counts by domain and reason.
        times: domain → the earliest and latest time of its good rows; without domains that have none.
    """

    folder: Path
    raw_rows: int
    last_line: int
    domains: tuple[str, ...]
    rows: dict[str, int]
    rejected: tuple[Rejected, ...]
    times: dict[str, tuple[int, int]]

    @property
    def reasons(self) -> Counter[str]:
        """Reason → rejected rows."""
        counts = Counter[str]()
        for rejected in self.rejected:
            counts[rejected.reason] += rejected.rows
        return counts

    def rejects(self) -> pa.Table:
        """REJECT_SCHEMA, ordered by line; mapped."""
        return map_table(self.folder / _REJECTS)


def partition_log(task: PartitionTask) -> LogPartition:
    """Divide one log file into runs and rejects, unless an earlier attempt did."""
    ensure_folder(task.folder, partial(_write_partition, task))
    report = json.loads((task.folder / _REPORT).read_text())
    return LogPartition(
        folder=task.folder,
        raw_rows=report["raw_rows"],
        last_line=report["last_line"],
        domains=tuple(report["domains"]),
        rows=report["rows"],
        rejected=tuple(Rejected(*counts) for counts in report["rejected"]),
        times={domain: (earliest, latest) for domain, (earliest, latest) in report["times"].items()},
    )


def _write_partition(task: PartitionTask, folder: Path) -> None:
    raw_rows, last_line, rejected = 0, 0, _RejectCounter()
    with batch_writer(folder / _REJECTS, REJECT_SCHEMA) as rejects, SortedRunWriter(folder) as runs:
        for records in read_log(task.log, task.columns, task.block_bytes, task.line_bytes):
            cleaned = clean(records, task.log)
            raw_rows += cleaned.rows.num_rows + cleaned.rejects.num_rows
            tables = (cleaned.rows, cleaned.rejects)
            last_line = max([last_line, *(table["line"][-1].as_py() for table in tables if table.num_rows)])
            rejected.add(cleaned.rejects, cleaned.domains)
            rejects.write_table(cleaned.rejects)
            runs.write(cleaned.rows)
    report = {
        "raw_rows": raw_rows,
        "last_line": last_line,
        "domains": runs.domains,
        "rows": runs.rows,
        "rejected": rejected.counts(),
        "times": runs.times,
    }
    (folder / _REPORT).write_text(json.dumps(report))


def require_one_unit(partitions: Mapping[str, LogPartition], *, by_domain: bool) -> None:
    """Check that times since 1970 have one unit in all files, or in all files of each domain.

    Seconds, milliseconds, microseconds and nanoseconds differ by a factor of a thousand; years by far less.

    Raises:
        LogError: some are at least `_UNIT_FACTOR` times as large as others.
    """
    ranges: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for name, partition in partitions.items():
        for domain, (earliest, latest) in partition.times.items():
            if latest >= _SINCE_1970:
                ranges[domain if by_domain else ""].append((earliest, latest, name))
    for files in ranges.values():
        small, large = min(files, key=lambda file: file[1]), max(files)
        if large[0] >= _UNIT_FACTOR * small[1]:
            raise LogError(
                f"times of {small[2]} go from {small[0]} to {small[1]}, those of {large[2]} from {large[0]} to "
                f"{large[1]}, must have one unit; set timestamp_format of their sources to the unit of their numbers "
                "(s, ms, us or ns), which then become microseconds as ISO 8601 does"
            )


class _RejectCounter:
    """Counts the rejects of a file by domain and reason, in the order of lines."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str | None, str], Rejected] = {}
        self._domains: set[str | None] = {None}

    def add(self, rejects: pa.Table, domains: pa.Array) -> None:
        """Count the rejects of a block; those of more than `_MOST_DOMAINS` domains as if it were not known."""
        if not rejects.num_rows:
            return
        rows = pa.table({"domain": domains, "reason": rejects["reason"], "row": np.arange(rejects.num_rows)})
        groups = rows.group_by(["domain", "reason"]).aggregate([("row", "min"), ("row", "count")])
        for group in groups.sort_by("row_min").to_pylist():
            domain = group["domain"]
            if domain not in self._domains and len(self._domains) > _MOST_DOMAINS:
                domain = None
            self._domains.add(domain)
            line, text = (rejects[name][group["row_min"]].as_py() for name in ("line", "text"))
            key = domain, group["reason"]
            before = self._counts.get(key, Rejected(*key, 0, line, text[:TEXT_SHOWN]))
            self._counts[key] = before._replace(rows=before.rows + group["row_count"])

    def counts(self) -> list[Rejected]:
        """In the order of their first lines."""
        return list(self._counts.values())
