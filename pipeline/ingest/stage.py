"""Ingest, step by step: partition logs by user, build vocabularies, process buckets, write interactions and rejects."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import INTERACTIONS, KINDS, NODES, REJECTS, SPLITS
from data_contracts.progress import Progress, silent
from data_contracts.roles import Role
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.machine import ComputeSettings
from data_contracts.statistics import IngestedDomainStatistics, InteractionsStatistics, RejectsStatistics
from data_contracts.store.artifact import NO_ARTIFACTS, Artifact, Artifacts
from data_contracts.store.draft import Draft
from data_contracts.store.files import coalesce
from data_contracts.store.store import Store
from pipeline.compute.fan_out import TaskProgress, fan_out, thread_count
from pipeline.compute.scratch import ensure_folder, is_damaged, load_array
from pipeline.ingest.assemble import BucketCounts, DomainBuckets, count_bucket, plan_files, write_file
from pipeline.ingest.buckets import BucketInputs, domain_names, plan_buckets
from pipeline.ingest.deduplicate import DeduplicatedBucket, deduplicate_bucket
from pipeline.ingest.inputs import ingest_inputs
from pipeline.ingest.notices import say_unused_ratings, say_what_is_odd
from pipeline.ingest.partition import LogPartition, PartitionTask, ids_path, partition_log, require_one_unit
from pipeline.ingest.rejects import DroppedRows, open_dropped_rows, rejected_rows
from pipeline.ingest.row_counts import RowLedger
from pipeline.ingest.splits import with_resolved_cut_offs
from pipeline.ingest.trained_pairs import TrainedPairsTask, partition_trained_pairs
from pipeline.ingest.vocabulary import Vocabulary, VocabularyTask, build_vocabulary, write_known_ids
from pipeline.logs.discovery import LogFile
from pipeline.logs.formats import find_format, wanted_columns

log = logging.getLogger(__name__)


def ingest(
    store: Store,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    compute: ComputeSettings,
    progress: Progress = silent,
    previous: Artifacts = NO_ARTIFACTS,
) -> dict[str, Artifact]:
    """Read, clean, merge, split and number raw logs.

    Files are partitioned in parallel, a block of each at a time; then buckets of users are deduplicated in parallel,
    and the files of the interactions written. Finished work stays when the stage is killed. The rejects are published
    first, and also where the run then fails because there are too many.

    Args:
        store: where the artifacts go.
        settings: how to split, and what to drop.
        logs: from `pipeline.logs.discovery.find_logs`.
        compute: threads or Dask scheduler, and memory for blocks and buckets. Dask workers need the store's folder and
            the logs under the same paths.
        progress: called after each file, bucket, and part of the interactions.
        previous: in an update the earlier `nodes` and `interactions`. Users and items keep the order of their numbers,
            new ones follow in the order of their ids; pairs that were trained on stay in training (protocol clean).

    Returns:
        `interactions` and `rejects`. Without any usable row, interactions without partitions.

    Raises:
        LogError: a file cannot be read as its source says, units of time differ, too large a share of the rows is
            malformed, or too few rows of a source, file or domain become interactions.
    """
    names = "\n".join(sorted(f"{log.name} {log.sha256}" for log in logs))

    def compute_result(draft: Draft) -> IngestResult:
        # An interrupted attempt knew files by the order of their names, on which interactions do not depend.
        scratch = draft.scratch / hashlib.sha256(names.encode()).hexdigest()[:16]
        scratch.mkdir(exist_ok=True)
        return run_ingest(scratch, settings, logs, previous, compute, progress)

    def make_rejects(write: Callable[[Draft], None]) -> Artifact:
        return store.make(REJECTS, ingest_inputs(REJECTS, settings, logs), trained, write)

    def write(draft: Draft) -> None:
        result = compute_result(draft)
        rejects = make_rejects(result.write_rejects)
        result.rows.require_limits(settings, rejects.path)
        result.rows.say_unknown_domains(rejects.path)
        result.write_interactions(draft)

    parents = {str(Role.parse(role).previous): artifact for role, artifact in previous.items()}
    trained = {role: artifact for role, artifact in parents.items() if artifact.contract is INTERACTIONS}
    interactions = store.make(INTERACTIONS, ingest_inputs(INTERACTIONS, settings, logs), parents, write)
    return {
        "interactions": interactions,
        "rejects": make_rejects(lambda draft: compute_result(draft).write_rejects(draft)),
    }


_BLOCK_BYTES = (1 << 16, 1 << 23)
_BYTES_IN_USE = 24
"""Working memory per byte of a block: its fields, their values, and copies of both."""

_BUCKET_ROWS = (1 << 12, 1 << 19)
_BYTES_PER_ROW = 256
"""Working memory per row of a bucket."""

_ROWS_PER_FILE = 1 << 19
_TEXT_BYTES_PER_ROW = 1 << 7
"""Rejects that have more text on average make files of fewer rows."""


@dataclass(frozen=True)
class IngestResult:
    """Logs partitioned, and their rows deduplicated in buckets, in a scratch folder.

    Attributes:
        partitions: by the name of the file, in order.
        sources: path of each file's source.
        ids: folders of the vocabularies of users and items.
        domains: their names, sorted.
        buckets: folders of the deduplicated buckets.
        scratch: for files that are made when the results are written.
        compute: threads or Dask scheduler.
        progress: called after each file of the interactions.
    """

    partitions: dict[str, LogPartition]
    sources: tuple[str, ...]
    ids: tuple[Path, Path]
    domains: tuple[str, ...]
    buckets: tuple[Path, ...]
    scratch: Path
    compute: ComputeSettings
    progress: Progress

    def write_rejects(self, draft: Draft) -> None:
        """Every rejected row, sorted by file and line."""
        users, items = (Vocabulary(folder) for folder in self.ids)
        rows = rejected_rows(self.partitions, self._dropped, (users, items))

        def count_rows(table: pa.Table) -> int:
            by_text: int = table["text"].nbytes // _TEXT_BYTES_PER_ROW
            return max(int(table.num_rows), by_text)

        for tables in coalesce(rows, _ROWS_PER_FILE, count_rows):
            draft.write(pa.concat_tables(tables))
        if not self.partitions:
            draft.write(REJECTS.file_schema.empty_table())
        draft.statistics |= RejectsStatistics(
            raw_rows=self.rows.all.rows, reasons=dict(sorted((+self.rows.all.reasons).items()))
        )

    @cached_property
    def rows(self) -> RowLedger:
        """What became of the raw rows."""
        return RowLedger(self.partitions, self.sources, self.domains, self._dropped)

    def write_interactions(self, draft: Draft) -> None:
        """Every domain's rows with ids numbered over all domains."""
        counts = fan_out(count_bucket, [(self._domain_buckets, folder) for folder in self.buckets], self.compute)
        by_domain: list[Sequence[BucketCounts]] = list(zip(*counts, strict=True)) or [()] * len(self.domains)
        files = [
            file
            for domain, counts_of_domain in zip(self._domain_buckets, by_domain, strict=True)
            for file in plan_files(
                domain, counts_of_domain, _ROWS_PER_FILE, self.scratch / "files" / str(domain.number)
            )
        ]
        paths = fan_out(write_file, files, self.compute, TaskProgress(self.progress, "parts"))
        for file, path in zip(files, paths, strict=True):
            draft.adopt(path, domain=file.domain.domain)
        statistics = self._statistics(by_domain)
        draft.statistics |= statistics
        self._log_domains(statistics)

    def _log_domains(self, statistics: InteractionsStatistics) -> None:
        """One line for each domain."""
        duplicates = {name: domain["duplicates"] for name, domain in statistics.get("domains", {}).items()}
        for rows in self.rows.by_domain:
            merged = duplicates.get(rows.name, 0)
            rejected = rows.reasons.total() - rows.reasons["leaked"] - rows.reasons["cold"]
            log.info(
                "domain %s: %s rows, %s interactions, %s merged, %s rejected, %s leaked, %s cold",
                *(rows.name, f"{rows.rows:,}", f"{rows.interactions - merged:,}", f"{merged:,}", f"{rejected:,}"),
                *(f"{rows.reasons[reason]:,}" for reason in ("leaked", "cold")),
            )

    def _statistics(self, by_domain: Sequence[Sequence[BucketCounts]]) -> InteractionsStatistics:
        domains = {
            domain.domain: self._domain_statistics(domain, counts)
            for domain, counts in zip(self._domain_buckets, by_domain, strict=True)
        }
        users, items = (int(load_array(path).max(initial=-1)) + 1 for path in self._number_paths)
        rows = self.rows.all
        statistics = InteractionsStatistics(
            raw_rows=rows.rows,
            malformed=rows.malformed,
            rating=rows.reasons["rating"],
            leaked=rows.reasons["leaked"],
            cold=rows.reasons["cold"],
            duplicates=sum(domain["duplicates"] for domain in domains.values()),
            pairs_in_several_domains=self._count_shared_pairs(),
            tied_users=self._count_tied_users(),
            users=users,
            items=items,
        )
        return InteractionsStatistics(domains=domains, **statistics) if domains else statistics

    def _count_shared_pairs(self) -> dict[str, int]:
        counts = sum((DeduplicatedBucket(folder).shared_pairs() for folder in self.buckets), np.zeros(len(SPLITS), int))
        return dict(zip(SPLITS, counts.tolist(), strict=True))

    def _count_tied_users(self) -> int:
        """Users whose times leave open what is held out; says their share."""
        users, tied = sum(
            (DeduplicatedBucket(folder).tied_users() for folder in self.buckets), np.zeros(2, int)
        ).tolist()
        if tied:
            log.info(
                "leave-last-out: %.0f%% of %s users with three or more items in a domain have two at the same time "
                "among the last three; a hash draws which are held out",
                *(100 * tied / users, f"{users:,}"),
            )
        return int(tied)

    def _domain_statistics(self, domain: DomainBuckets, counts: Sequence[BucketCounts]) -> IngestedDomainStatistics:
        train, valid, test = np.sum([bucket.splits for bucket in counts], axis=0).tolist()
        dropped = self._dropped_by_domain[domain.number]
        return IngestedDomainStatistics(
            users=sum(len(bucket.users) for bucket in counts),
            items=int(load_array(domain.warm_items).sum()),
            train=train,
            valid=valid,
            test=test,
            duplicates=sum(bucket.raw_rows for bucket in counts) - (train + valid + test),
            leaked=dropped["leaked"],
            cold=dropped["cold"],
        )

    @cached_property
    def _domain_buckets(self) -> tuple[DomainBuckets, ...]:
        return tuple(
            DomainBuckets(
                domain=domain,
                number=number,
                warm_items=self._kept / f"warm-{number}.npy",
                numbers=self._number_paths,
                ids=self.ids,
                buckets=self.buckets,
            )
            for number, domain in enumerate(self.domains)
        )

    @property
    def _number_paths(self) -> tuple[Path, Path]:
        """Files of the final numbers of users and of items, by rank."""
        return self._kept / "users.npy", self._kept / "items.npy"

    @cached_property
    def _dropped(self) -> DroppedRows:
        return open_dropped_rows(self.buckets, [domain.warm_items for domain in self._domain_buckets])

    @cached_property
    def _dropped_by_domain(self) -> list[dict[str, int]]:
        return self._dropped.reasons("domain", len(self.domains))

    @cached_property
    def _kept(self) -> Path:
        return ensure_folder(self.scratch / "kept", self._write_kept)

    def _write_kept(self, folder: Path) -> None:
        """The number of each kept user and item, and each domain's warm items."""
        users, items = (np.zeros(len(Vocabulary(ids)), dtype=bool) for ids in self.ids)
        buckets = [DeduplicatedBucket(folder) for folder in self.buckets]
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


def run_ingest(
    scratch: Path,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    previous: Artifacts,
    compute: ComputeSettings,
    progress: Progress,
) -> IngestResult:
    """Partition every log, build vocabularies of all ids, then deduplicate buckets of users, each step in parallel.

    Args:
        scratch: private folder; what an interrupted attempt completed there is used.
        settings: how to split, and what to drop.
        logs: the files.
        previous: in an update the earlier `nodes`, whose ids keep the order of their numbers, and `interactions`, whose
            train pairs stay in training; else nothing.
        compute: threads or Dask scheduler, and memory for blocks and buckets.
        progress: called after each file and bucket.

    Raises:
        LogError: a file cannot be read as its source says, units of time differ, or a domain has a reserved name.
    """
    ordered = sorted(logs, key=lambda log: log.name)
    for log in ordered:
        find_format(log)
    say_unused_ratings(ordered)
    memory = (compute.memory_mib << 20) // thread_count(compute)
    folder = scratch / "partitions"
    tasks = _plan_partitions(ordered, settings, folder, memory)
    pairs = _find_trained_pairs(previous, settings, scratch / "trained")
    folders_of_runs = [*(task.folder for task in tasks), *(pair.folder for pair in pairs)]
    _remove_what_came_of_damage(scratch, folders_of_runs, compute)
    partitions = fan_out(partition_log, tasks, compute, TaskProgress(progress, "files"))
    by_name = {log.name: partition for log, partition in zip(ordered, partitions, strict=True)}
    if settings.split.method in ("time", "leave-last-out"):
        require_one_unit(by_name, by_domain=settings.split.method == "leave-last-out")
    if settings.split.method == "time":
        settings = with_resolved_cut_offs(settings, [times for part in partitions for times in part.times.values()])
    trained = tuple(fan_out(partition_trained_pairs, pairs, compute))
    with_ids = [*(partition.folder for partition in partitions), *trained]
    users, items = fan_out(build_vocabulary, _plan_vocabularies(with_ids, previous, scratch), compute)
    sources, domains = tuple(log.source.path for log in ordered), domain_names(partitions)
    say_what_is_odd(by_name, sources, domains, (users, items))
    bucket_rows = int(np.clip(memory // _BYTES_PER_ROW, *_BUCKET_ROWS))
    buckets = plan_buckets(partitions, BucketInputs(folder, trained, (users, items), settings), bucket_rows, scratch)
    folders = tuple(fan_out(deduplicate_bucket, buckets, compute, TaskProgress(progress, "buckets")))
    return IngestResult(by_name, sources, (users, items), domains, folders, scratch, compute, progress)


def _plan_partitions(
    logs: Sequence[LogFile], settings: IngestSettings, folder: Path, memory: int
) -> list[PartitionTask]:
    """A task for each log, with blocks for so many bytes of memory."""
    block_bytes = int(np.clip(memory // _BYTES_IN_USE, *_BLOCK_BYTES))
    return [
        PartitionTask(
            log,
            wanted_columns(log.source, settings, log),
            folder / str(number),
            block_bytes,
            settings.line_bytes_at_most,
        )
        for number, log in enumerate(logs)
    ]


def _plan_vocabularies(folders: Sequence[Path], previous: Artifacts, scratch: Path) -> list[VocabularyTask]:
    """A task for users and one for items: all ids in these folders, after those of an earlier run."""
    return [
        VocabularyTask(
            tuple(ids_path(folder, kind) for folder in folders),
            scratch / "ids" / kind,
            write_known_ids(previous[NODES.name], kind, scratch / f"known-{kind}.arrow") if previous else None,
        )
        for kind in KINDS
    ]


def _remove_what_came_of_damage(scratch: Path, partitions: Sequence[Path], compute: ComputeSettings) -> None:
    """Delete what an earlier attempt made from partitions if one of these is damaged now.

    A partition that is made again with more or less memory has other runs, and vocabularies and buckets number runs.
    """
    if any(fan_out(is_damaged, partitions, compute)):
        for name in ("ids", "runs", "buckets", "kept", "files"):
            shutil.rmtree(scratch / name, ignore_errors=True)


def _find_trained_pairs(previous: Artifacts, settings: IngestSettings, folder: Path) -> list[TrainedPairsTask]:
    if INTERACTIONS.name not in previous or settings.protocol == "released":
        return []
    # Opening it by its path fetches its files here, so that workers do not need the remote store.
    earlier = Artifact(INTERACTIONS, previous[INTERACTIONS.name].path)
    domains = [partition["domain"] for partition in earlier.partitions()]
    return [TrainedPairsTask(earlier, domain, folder / str(number)) for number, domain in enumerate(domains)]
