"""All logs sifted: from files to domains, and from domains to the two artifacts of the ingest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import REJECTS, SPLITS
from data_contracts.progress import Progress
from data_contracts.settings import ComputeSettings, IngestSettings
from data_contracts.store import Draft
from pipeline.fanout import fan_out, threads
from pipeline.logs import LogError, LogFile
from pipeline.pieces import Job, Piece, cut, format_of, wanted_columns
from pipeline.sifting import DROPPED_SCHEMA, save, saved, sift

_NOT_MALFORMED = ("rating", "leaked", "cold")
_BLOCK_BYTES = (1 << 16, 1 << 24)
_BYTES_IN_USE = 24
"""Working memory per byte of a block: its fields, their values, and copies of both."""

_ROWS_PER_FILE = 1 << 20


@dataclass(frozen=True)
class SiftedLogs:
    """Logs in pieces by file, and sifted rows by domain, in a scratch folder.

    Attributes:
        pieces: of every file, sorted by the file's name.
        domains: domain → folder of its sifted rows, sorted by name.
        duplicates: domain → raw rows merged into another one.
    """

    pieces: tuple[Piece, ...]
    domains: dict[str, Path]
    duplicates: dict[str, int]

    def write_rejects(self, draft: Draft) -> None:
        """Every rejected row, sorted by file and line."""
        waiting: list[pa.Table] = [REJECTS.file_schema.empty_table()]
        for number, piece in enumerate(self.pieces):
            waiting.append(self._rejects_of(number, piece))
            if sum(table.num_rows for table in waiting) >= _ROWS_PER_FILE:
                draft.write(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            draft.write(pa.concat_tables(waiting))
        draft.statistics |= {"raw_rows": self.raw_rows, "reasons": dict(sorted(self.reasons.items()))}

    def _rejects_of(self, number: int, piece: Piece) -> pa.Table:
        dropped = self._dropped.filter(pc.equal(self._dropped["file"], number)).drop_columns("file")
        rows = pa.concat_tables([piece.rejects(), dropped]).sort_by("line")
        return rows.add_column(0, "file", pa.repeat(piece.log.name, rows.num_rows)).cast(REJECTS.file_schema)

    @cached_property
    def _dropped(self) -> pa.Table:
        tables = [saved(folder, "dropped") for folder in self.domains.values()]
        return pa.concat_tables([DROPPED_SCHEMA.empty_table(), *tables])

    @property
    def raw_rows(self) -> int:
        """Records of all files, good or bad."""
        return sum(piece.raw_rows for piece in self.pieces)

    @cached_property
    def reasons(self) -> Counter[str]:
        """Reason → rejected rows."""
        counts: Counter[str] = Counter()
        for table in (self._dropped, *(piece.rejects() for piece in self.pieces)):
            counts.update(_counts(table["reason"]))
        return counts

    def require_few_malformed(self, share_at_most: float, rejects: Path) -> None:
        """Raise LogError where a larger share of the raw rows is malformed (rating, leaked and cold rows are not)."""
        malformed = {reason: n for reason, n in sorted(self.reasons.items()) if reason not in _NOT_MALFORMED}
        share = sum(malformed.values()) / max(self.raw_rows, 1)
        if share > share_at_most:
            found = ", ".join(f"{reason} {n:,}" for reason, n in malformed.items())
            raise LogError(
                f"interactions: {share:.2%} of {self.raw_rows:,} raw rows are malformed ({found}), must be at most "
                f"{share_at_most:.2%}; see {rejects}, then correct the logs or their source's settings, or raise "
                "rejected_share_at_most"
            )

    def write_interactions(self, draft: Draft) -> None:
        """Every domain's rows with ids numbered over all domains."""
        users, items = self._ids("users"), self._ids("items")
        for domain in self.domains:
            draft.statistics.setdefault("domains", {})[domain] = self._write_domain(draft, domain, users, items)
        malformed = {reason: n for reason, n in sorted(self.reasons.items()) if reason not in _NOT_MALFORMED}
        draft.statistics |= {
            "raw_rows": self.raw_rows,
            "malformed": malformed,
            **{reason: self.reasons[reason] for reason in _NOT_MALFORMED},
            "duplicates": sum(self.duplicates.values()),
            "users": len(users),
            "items": len(items),
        }

    def _ids(self, kind: str) -> pa.StringArray:
        """Sorted distinct ids of all domains."""
        ids = [saved(folder, kind)["id"] for folder in self.domains.values()]
        distinct = pc.unique(pa.chunked_array([c for i in ids for c in i.chunks], pa.string()))
        return distinct.take(pc.sort_indices(distinct))

    def _write_domain(self, draft: Draft, domain: str, users: pa.StringArray, items: pa.StringArray) -> dict[str, Any]:
        """One domain's rows, with its own ids' ranks among all ids; both are sorted, so the rows' order stays."""
        folder = self.domains[domain]
        rows = saved(folder, "rows")
        own = {"user": saved(folder, "users")["id"], "item": saved(folder, "items")["id"]}
        ranks = {kind: pc.index_in(own[kind], value_set=ids) for kind, ids in (("user", users), ("item", items))}
        for start in range(0, rows.num_rows, _ROWS_PER_FILE):
            part = rows.slice(start, _ROWS_PER_FILE)
            named = {f"{kind}_id": own[kind].take(part[kind]) for kind in own}
            numbered = {kind: ranks[kind].take(part[kind]) for kind in own}
            split = pa.chunked_array([pa.array(SPLITS).take(chunk) for chunk in part["split"].chunks])
            rest = {"split": split, "timestamp": part["timestamp"], "count": part["count"]}
            draft.write(pa.table({**named, **numbered, **rest}), domain=domain)
        splits = _counts(rows["split"])
        return {
            "users": len(own["user"]),
            "items": len(own["item"]),
            **{split: splits.get(code, 0) for code, split in enumerate(SPLITS)},
            "duplicates": self.duplicates[domain],
            **{reason: _counts(saved(folder, "dropped")["reason"]).get(reason, 0) for reason in ("leaked", "cold")},
        }


def sift_logs(
    scratch: Path, settings: IngestSettings, logs: Sequence[LogFile], compute: ComputeSettings, progress: Progress
) -> SiftedLogs:
    """Cut every log into pieces by domain, side by side, then sift one domain after another.

    Args:
        scratch: private folder; pieces that an interrupted attempt left there are used.
        settings: how to split, and what to drop.
        logs: the files.
        compute: threads or Dask scheduler, and memory for blocks.
        progress: told after each file and domain.
    """
    ordered = sorted(logs, key=lambda log: log.name)
    block_bytes = int(np.clip((compute.memory_mib << 20) // (threads(compute) * _BYTES_IN_USE), *_BLOCK_BYTES))
    for log in ordered:
        format_of(log)
    jobs = [
        Job(log, wanted_columns(log.source, settings, log), scratch / "pieces" / str(number), block_bytes)
        for number, log in enumerate(ordered)
    ]
    pieces = tuple(fan_out(cut, jobs, compute, progress, "files"))
    names = sorted({domain for piece in pieces for domain in piece.domains})
    folders, duplicates = {}, {}
    for number, domain in enumerate(names):
        sifted = sift(domain, pieces, settings)
        folders[domain] = scratch / "domains" / str(number)
        save(sifted, folders[domain])
        duplicates[domain] = sifted.duplicates
        progress(number + 1, len(names), "domains")
    return SiftedLogs(pieces, folders, duplicates)


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}
