"""All logs sifted: from files to runs, from runs to buckets of users, and from buckets to the artifacts of the ingest.

The rows are in files throughout. Memory holds, per worker, a block of a log, a bucket, or a file of the interactions;
and the sorted distinct ids of all logs, with a few numbers for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.artifact import Artifact
from data_contracts.contracts import KINDS, MACRO, REJECTS, SPLITS
from data_contracts.progress import Progress
from data_contracts.settings import ComputeSettings, IngestSettings
from data_contracts.store import Draft
from pipeline.assembly import Shelf, Stretch, Weight, stretches, weigh, write_stretch
from pipeline.buckets import buckets_of
from pipeline.fanout import fan_out, threads
from pipeline.logs import LogError, LogFile
from pipeline.numbering import NumberedIds, Numbering, number_ids, write_known
from pipeline.pieces import Job, Piece, cut, format_of, wanted_columns
from pipeline.rejected import Dropped, dropped, rejected_rows
from pipeline.runs import ids_path
from pipeline.scratch import made
from pipeline.sifting import sift
from pipeline.spill import load_array

_NOT_MALFORMED = ("rating", "leaked", "cold")
_BLOCK_BYTES = (1 << 16, 1 << 23)
_BYTES_IN_USE = 24
"""Working memory per byte of a block: its fields, their values, and copies of both."""

_BUCKET_ROWS = (1 << 12, 1 << 19)
_BYTES_PER_ROW = 256
"""Working memory per row of a bucket."""

_ROWS_PER_FILE = 1 << 19
_SHOWN = 60
"""Characters of a malformed record that an error shows."""


@dataclass(frozen=True)
class SiftedLogs:
    """Logs cut into pieces and sifted, in a scratch folder.

    Attributes:
        pieces: of each file, by its name, in order.
        ids: folders of the numbered user and item ids.
        domains: domain → folders of its buckets, sorted by name.
        scratch: where the rest goes.
        compute: threads or Dask scheduler.
        progress: told after each file of the interactions.
    """

    pieces: dict[str, Piece]
    ids: tuple[Path, Path]
    domains: dict[str, tuple[Path, ...]]
    scratch: Path
    compute: ComputeSettings
    progress: Progress

    def write_rejects(self, draft: Draft) -> None:
        """Every rejected row, sorted by file and line."""
        waiting: list[pa.Table] = [REJECTS.file_schema.empty_table()]
        users, items = (NumberedIds(folder) for folder in self.ids)
        for table in rejected_rows(self.pieces, list(self._dropped.values()), (users, items)):
            waiting.append(table)
            if sum(table.num_rows for table in waiting) >= _ROWS_PER_FILE:
                draft.write(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            draft.write(pa.concat_tables(waiting))
        draft.statistics |= {"raw_rows": self.raw_rows, "reasons": dict(sorted(self.reasons.items()))}

    @property
    def raw_rows(self) -> int:
        """Records of all files, good or bad."""
        return sum(piece.raw_rows for piece in self.pieces.values())

    @cached_property
    def reasons(self) -> Counter[str]:
        """Reason → rejected rows, of reasons with any."""
        counts: Counter[str] = Counter()
        for reasons in (*self._dropped_reasons.values(), *(piece.reasons for piece in self.pieces.values())):
            counts.update(reasons)
        return +counts

    def require_few_malformed(self, share_at_most: float, rejects: Path) -> None:
        """Raise LogError where a larger share of the raw rows is malformed (rating, leaked and cold rows are not)."""
        malformed = self._malformed()
        share = sum(malformed.values()) / max(self.raw_rows, 1)
        if share > share_at_most:
            found = ", ".join(f"{reason} {n:,}" for reason, n in malformed.items())
            raise LogError(
                f"interactions: {share:.2%} of {self.raw_rows:,} raw rows are malformed ({found}), must be at most "
                f"{share_at_most:.2%}; the first is {self._first_malformed()}; see {rejects}, then correct the logs or "
                "their source's settings, or raise ingest.rejected_share_at_most"
            )

    def _first_malformed(self) -> str:
        """Where it stands, its reason and what was found."""
        for name, piece in self.pieces.items():
            rows = piece.rejects()
            malformed = rows.filter(pc.invert(pc.is_in(rows["reason"], pa.array(_NOT_MALFORMED))))
            for line, reason, text in zip(*malformed.slice(0, 1).to_pydict().values(), strict=True):
                return f"line {line} of {name} ({reason}: {text[:_SHOWN]!r})"
        return "not known"

    def _malformed(self) -> dict[str, int]:
        return {reason: n for reason, n in sorted(self.reasons.items()) if reason not in _NOT_MALFORMED}

    def write_interactions(self, draft: Draft) -> None:
        """Every domain's rows with ids numbered over all domains."""
        read = [(self._shelf(domain), folder) for domain, folders in self.domains.items() for folder in folders]
        weights = dict(zip((folder for _, folder in read), fan_out(weigh, read, self.compute), strict=True))
        files = [file for domain in self.domains for file in self._files(domain, weights)]
        paths = fan_out(write_stretch, files, self.compute, self.progress, "parts")
        for file, path in zip(files, paths, strict=True):
            draft.adopt(path, domain=file.shelf.domain)
        domains = {domain: self._domain_statistics(domain, weights) for domain in self.domains}
        draft.statistics |= {
            **({"domains": domains} if domains else {}),
            "raw_rows": self.raw_rows,
            "malformed": self._malformed(),
            **{reason: self.reasons[reason] for reason in _NOT_MALFORMED},
            "duplicates": sum(domain["duplicates"] for domain in domains.values()),
            **{
                f"{kind}s": int(load_array(self._kept / f"{kind}s.npy").max(initial=-1)) + 1
                for kind in ("user", "item")
            },
        }

    def _domain_statistics(self, domain: str, weights: Mapping[Path, Weight]) -> dict[str, int]:
        own = [weights[folder] for folder in self.domains[domain]]
        splits = np.sum([weight.splits for weight in own], axis=0)
        return {
            "users": sum(len(weight.users) for weight in own),
            "items": int(load_array(self._shelf(domain).warm_items).sum()),
            **dict(zip(SPLITS, splits.tolist(), strict=True)),
            "duplicates": sum(weight.raw_rows for weight in own) - int(splits.sum()),
            **self._dropped_reasons[domain],
        }

    def _files(self, domain: str, weights: Mapping[Path, Weight]) -> Iterator[Stretch]:
        folders = self.domains[domain]
        place = self.scratch / "files" / str(list(self.domains).index(domain))
        return stretches(self._shelf(domain), folders, [weights[folder] for folder in folders], _ROWS_PER_FILE, place)

    def _shelf(self, domain: str) -> Shelf:
        number = list(self.domains).index(domain)
        numbers = self._kept / "users.npy", self._kept / "items.npy"
        return Shelf(domain, self._kept / f"warm-{number}.npy", numbers, self.ids)

    @cached_property
    def _dropped(self) -> dict[str, Dropped]:
        return {domain: dropped(folders, self._shelf(domain).warm_items) for domain, folders in self.domains.items()}

    @cached_property
    def _dropped_reasons(self) -> dict[str, dict[str, int]]:
        return {domain: found.reasons() for domain, found in self._dropped.items()}

    @cached_property
    def _kept(self) -> Path:
        return made(self.scratch / "kept", self._write_kept)

    def _write_kept(self, folder: Path) -> None:
        """The number of each kept user and item, and each domain's warm items."""
        users, items = (np.zeros(len(NumberedIds(ids)), dtype=bool) for ids in self.ids)
        for number, buckets in enumerate(self.domains.values()):
            is_warm = np.zeros(len(items), dtype=bool)
            for bucket in buckets:
                is_warm[load_array(bucket / "items.npy")] = True
                users[load_array(bucket / "users.npy")] = True
            np.save(folder / f"warm-{number}.npy", is_warm)
            items |= is_warm
        for kind, is_kept in (("users", users), ("items", items)):
            np.save(folder / f"{kind}.npy", np.cumsum(is_kept, dtype=np.int32) - np.int32(1))


def sift_logs(
    scratch: Path,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    before: Artifact | None,
    compute: ComputeSettings,
    progress: Progress,
) -> SiftedLogs:
    """Cut every log into runs, side by side, number all ids, then sift buckets of users, side by side.

    Args:
        scratch: private folder; what an interrupted attempt completed there is used.
        settings: how to split, and what to drop.
        logs: the files.
        before: nodes whose ids keep the order of their numbers.
        compute: threads or Dask scheduler, and memory for blocks and buckets.
        progress: told after each file and bucket.

    Raises:
        LogError: a file cannot be read as its source says, or a domain has a name of ours.
    """
    ordered = sorted(logs, key=lambda log: log.name)
    for log in ordered:
        format_of(log)
    memory = (compute.memory_mib << 20) // threads(compute)
    block_bytes = int(np.clip(memory // _BYTES_IN_USE, *_BLOCK_BYTES))
    jobs = [
        Job(log, wanted_columns(log.source, settings, log), scratch / "pieces" / str(number), block_bytes)
        for number, log in enumerate(ordered)
    ]
    pieces = fan_out(cut, jobs, compute, progress, "files")
    numberings = [
        Numbering(
            tuple(ids_path(piece.folder, kind) for piece in pieces),
            scratch / "ids" / kind,
            write_known(before, kind, scratch / f"known-{kind}.arrow") if before else None,
        )
        for kind in KINDS
    ]
    users, items = fan_out(number_ids, numberings, compute)
    bucket_rows = int(np.clip(memory // _BYTES_PER_ROW, *_BUCKET_ROWS))
    buckets = buckets_of(pieces, (users, items), settings, bucket_rows, scratch / "buckets")
    folders = fan_out(sift, buckets, compute, progress, "buckets")
    domains: dict[str, tuple[Path, ...]] = {}
    for bucket, folder in zip(buckets, folders, strict=True):
        domains[bucket.domain] = (*domains.get(bucket.domain, ()), folder)
    if MACRO in domains:
        raise LogError(f"a domain is called {MACRO!r}, must not be: metrics call the mean over domains so; rename it")
    by_name = {log.name: piece for log, piece in zip(ordered, pieces, strict=True)}
    return SiftedLogs(by_name, (users, items), domains, scratch, compute, progress)
