"""Ingest: raw logs → interactions and rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import BEFORE, INTERACTIONS, KINDS, MACRO, NODES, REJECTS, SPLITS
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, IngestSettings
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from pipeline.compute.fan_out import fan_out, threads
from pipeline.compute.scratch import load_array, made
from pipeline.ingest.assemble import Shelf, Stretch, Weight, stretches, weigh, write_stretch
from pipeline.ingest.buckets import buckets_of, domain_names
from pipeline.ingest.deduplicate import SiftedBucket, sift
from pipeline.ingest.partition import Job, Piece, cut, ids_path
from pipeline.ingest.rejects import Dropped, dropped, rejected_rows
from pipeline.ingest.trained_before import TrainedPairs, cut_trained
from pipeline.ingest.vocabulary import NumberedIds, Numbering, number_ids, write_known
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import format_of, wanted_columns


def ingest_inputs(settings: IngestSettings, logs: Sequence[LogFile]) -> dict[str, Any]:
    """What the result depends on: settings, and each file's content, name, domain, split and way of reading.

    Where the files lie is no part of it.
    """
    files = [
        {
            "name": log.name,
            "sha256": log.sha256,
            "domain": log.domain,
            "split": log.split,
            "source": {name: value for name, value in log.source.keyed().items() if name != "path"},
        }
        for log in sorted(logs, key=lambda log: log.name)
    ]
    return {"settings": settings.keyed(), "files": files}


def ingest(
    store: Store,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> dict[str, Artifact]:
    """Read, clean, merge, split and number raw logs.

    Files are cut side by side, a block of each at a time; then buckets of users are sifted side by side, and files of
    the interactions put together. What is finished stays when the stage is killed. The rejects are published first,
    and also where the run then fails for too many of them.

    Args:
        store: where the artifacts go.
        settings: how to split, and what to drop.
        logs: from `pipeline.logs.discovery.find_logs`.
        compute: threads or Dask scheduler, and memory for blocks and buckets. Dask workers need the store's folder and
            the logs under the same paths.
        progress: told after each file, bucket, and part of the interactions.
        previous: in an update the earlier `nodes` and `interactions`. Users and items keep the order of their numbers,
            others follow in the order of their ids; pairs that were trained on stay in training (protocol clean).

    Returns:
        `interactions` and `rejects`. Without any usable row, interactions without partitions.

    Raises:
        LogError: a file cannot be read as its source says, or too large a share of the rows is malformed.
    """
    inputs = ingest_inputs(settings, logs)

    def sifted(draft: Draft) -> Any:

        return sift_logs(draft.scratch, settings, logs, previous, compute, progress)

    def write_rejects(draft: Draft) -> None:
        sifted(draft).write_rejects(draft)

    def write(draft: Draft) -> None:
        logs_sifted = sifted(draft)
        rejects = store.make(REJECTS, inputs, trained, logs_sifted.write_rejects)
        logs_sifted.require_few_malformed(settings.rejected_share_at_most, rejects.path)
        logs_sifted.write_interactions(draft)

    parents = {f"{role}-{BEFORE}": artifact for role, artifact in previous.items()}
    trained = {role: artifact for role, artifact in parents.items() if artifact.contract is INTERACTIONS}
    interactions = store.make(INTERACTIONS, inputs, parents, write)
    return {"interactions": interactions, "rejects": store.make(REJECTS, inputs, trained, write_rejects)}


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
        domains: their names, sorted.
        buckets: folders of the sifted buckets.
        scratch: where the rest goes.
        compute: threads or Dask scheduler.
        progress: told after each file of the interactions.
    """

    pieces: dict[str, Piece]
    ids: tuple[Path, Path]
    domains: tuple[str, ...]
    buckets: tuple[Path, ...]
    scratch: Path
    compute: ComputeSettings
    progress: Progress

    def write_rejects(self, draft: Draft) -> None:
        """Every rejected row, sorted by file and line."""
        waiting: list[pa.Table] = [REJECTS.file_schema.empty_table()]
        users, items = (NumberedIds(folder) for folder in self.ids)
        for table in rejected_rows(self.pieces, self._dropped, (users, items)):
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
        for reasons in (*self._dropped_reasons, *(piece.reasons for piece in self.pieces.values())):
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
        weights = fan_out(weigh, [(self._shelves, folder) for folder in self.buckets], self.compute)
        by_domain = list(zip(*weights, strict=True)) or [()] * len(self.domains)
        files = [file for files in map(self._files, self._shelves, by_domain) for file in files]
        paths = fan_out(write_stretch, files, self.compute, self.progress, "parts")
        for file, path in zip(files, paths, strict=True):
            draft.adopt(path, domain=file.shelf.domain)
        domains = {
            shelf.domain: self._domain_statistics(shelf, own)
            for shelf, own in zip(self._shelves, by_domain, strict=True)
        }
        draft.statistics |= {
            **({"domains": domains} if domains else {}),
            "raw_rows": self.raw_rows,
            "malformed": self._malformed(),
            **{reason: self.reasons[reason] for reason in _NOT_MALFORMED},
            "duplicates": sum(domain["duplicates"] for domain in domains.values()),
            "pairs_in_several_domains": self._shared_pairs(),
            **{
                f"{kind}s": int(load_array(self._kept / f"{kind}s.npy").max(initial=-1)) + 1
                for kind in ("user", "item")
            },
        }

    def _shared_pairs(self) -> dict[str, int]:
        counts = np.zeros(len(SPLITS), np.int64)
        for folder in self.buckets:
            counts += SiftedBucket(folder).shared_pairs()
        return dict(zip(SPLITS, counts.tolist(), strict=True))

    def _domain_statistics(self, shelf: Shelf, weights: Sequence[Weight]) -> dict[str, int]:
        splits = np.sum([weight.splits for weight in weights], axis=0)
        return {
            "users": sum(len(weight.users) for weight in weights),
            "items": int(load_array(shelf.warm_items).sum()),
            **dict(zip(SPLITS, splits.tolist(), strict=True)),
            "duplicates": sum(weight.raw_rows for weight in weights) - int(splits.sum()),
            **self._dropped_reasons[shelf.number],
        }

    def _files(self, shelf: Shelf, weights: Sequence[Weight]) -> Iterator[Stretch]:
        folder = self.scratch / "files" / str(shelf.number)
        return stretches(shelf, self.buckets, weights, _ROWS_PER_FILE, folder)

    @cached_property
    def _shelves(self) -> tuple[Shelf, ...]:
        numbers = self._kept / "users.npy", self._kept / "items.npy"
        return tuple(
            Shelf(domain, number, self._kept / f"warm-{number}.npy", numbers, self.ids)
            for number, domain in enumerate(self.domains)
        )

    @cached_property
    def _dropped(self) -> Dropped:
        return dropped(self.buckets, [shelf.warm_items for shelf in self._shelves])

    @cached_property
    def _dropped_reasons(self) -> list[dict[str, int]]:
        return self._dropped.reasons()

    @cached_property
    def _kept(self) -> Path:
        return made(self.scratch / "kept", self._write_kept)

    def _write_kept(self, folder: Path) -> None:
        """The number of each kept user and item, and each domain's warm items."""
        users, items = (np.zeros(len(NumberedIds(ids)), dtype=bool) for ids in self.ids)
        buckets = [SiftedBucket(folder) for folder in self.buckets]
        for bucket in buckets:
            users[bucket.warm_users()] = True
        for number in range(len(self.domains)):
            is_warm = np.zeros(len(items), dtype=bool)
            for bucket in buckets:
                is_warm[bucket.warm_items(number)] = True
            np.save(folder / f"warm-{number}.npy", is_warm)
            items |= is_warm
        for kind, is_kept in (("users", users), ("items", items)):
            np.save(folder / f"{kind}.npy", np.cumsum(is_kept, dtype=np.int32) - np.int32(1))


def sift_logs(
    scratch: Path,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    before: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress,
) -> SiftedLogs:
    """Cut every log into runs, side by side, number all ids, then sift buckets of users, side by side.

    Args:
        scratch: private folder; what an interrupted attempt completed there is used.
        settings: how to split, and what to drop.
        logs: the files.
        before: in an update the earlier `nodes`, whose ids keep the order of their numbers, and `interactions`, whose
            train pairs stay in training; else nothing.
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
    trained = tuple(fan_out(cut_trained, _trained_pairs(before, settings, scratch / "trained"), compute))
    numberings = [
        Numbering(
            tuple(ids_path(folder, kind) for folder in [*(piece.folder for piece in pieces), *trained]),
            scratch / "ids" / kind,
            write_known(before[NODES.name], kind, scratch / f"known-{kind}.arrow") if before else None,
        )
        for kind in KINDS
    ]
    users, items = fan_out(number_ids, numberings, compute)
    bucket_rows = int(np.clip(memory // _BYTES_PER_ROW, *_BUCKET_ROWS))
    domains = domain_names(pieces)
    if MACRO in domains:
        raise LogError(f"a domain is called {MACRO!r}, must not be: metrics call the mean over domains so; rename it")
    buckets = buckets_of(pieces, trained, (users, items), settings, bucket_rows, scratch)
    folders = tuple(fan_out(sift, buckets, compute, progress, "buckets"))
    by_name = {log.name: piece for log, piece in zip(ordered, pieces, strict=True)}
    return SiftedLogs(by_name, (users, items), domains, folders, scratch, compute, progress)


def _trained_pairs(before: Mapping[str, Artifact], settings: IngestSettings, folder: Path) -> list[TrainedPairs]:
    if INTERACTIONS.name not in before or settings.protocol == "released":
        return []
    earlier = Artifact(
        INTERACTIONS, before[INTERACTIONS.name].path
    )  # fetched here, so that workers need no remote store
    domains = [partition["domain"] for partition in earlier.partitions()]
    return [TrainedPairs(earlier, domain, folder / str(number)) for number, domain in enumerate(domains)]
