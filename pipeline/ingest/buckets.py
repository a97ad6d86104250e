"""Buckets: all rows of some users, over all domains, few enough to be processed in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from data_contracts.contracts import DOMAIN_BYTES, MACRO
from data_contracts.settings.ingest import IngestSettings
from pipeline.compute.fan_out import bounded_ranges
from pipeline.compute.scratch import ensure_folder, load_array
from pipeline.ingest.partition import SHARDS, TEXT_SHOWN, LogPartition, SortedRuns
from pipeline.logs.discovery import LogError


class SortedRun(NamedTuple):
    """A run: the index of its file among the sorted logs, its position in the file, and its number over all files."""

    file: int
    position: int
    number: int


@dataclass(frozen=True)
class BucketInputs:
    """What all buckets of an ingest share.

    Attributes:
        partitions: folder of all files' partitions, by number.
        trained: folders of runs of the pairs that an update's tables were trained on, numbered after the logs' runs.
        ids: folders of the vocabularies of users and items.
        settings: how to split, and what to drop.
    """

    partitions: Path
    trained: tuple[Path, ...]
    ids: tuple[Path, Path]
    settings: IngestSettings


@dataclass(frozen=True)
class Bucket:
    """Rows of the users of consecutive shards.

    Attributes:
        shards: of the users.
        domains: names of all domains, sorted.
        runs: file of int32 [runs, 3]: each run's domain, file and index in the file, in the order of their numbers. It
            is a file because every bucket needs all of them.
        inputs: shared by all buckets.
        folder: of the result.
    """

    shards: range
    domains: tuple[str, ...]
    runs: Path
    inputs: BucketInputs
    folder: Path

    def runs_by_domain(self) -> Iterator[list[SortedRun]]:
        """The runs of each domain, in the order of their numbers."""
        runs = load_array(self.runs)
        for domain in range(len(self.domains)):
            numbers = np.flatnonzero(runs[:, 0] == domain)
            positions = zip(runs[numbers, 1:].tolist(), numbers.tolist(), strict=True)
            yield [SortedRun(file, position, number) for (file, position), number in positions]

    def trained_runs(self) -> Iterator[tuple[SortedRuns, int, int]]:
        """Of the pairs trained on before: the runs of a folder, a run's index among them, and its number over all."""
        number = len(load_array(self.runs))
        for folder in self.inputs.trained:
            runs = SortedRuns(folder)
            for index in range(len(runs)):
                yield runs, index, number + index
            number += len(runs)


def domain_names(partitions: Sequence[LogPartition]) -> tuple[str, ...]:
    """All domains of the logs, sorted.

    Raises:
        LogError: a name is reserved, or too long for a folder.
    """
    names = tuple(sorted({domain for partition in partitions for domain in partition.domains}))
    for name in names:
        _require_name(name)
    return names


def _require_name(domain: str) -> None:
    if domain == MACRO:
        raise LogError(f"a domain is called {MACRO!r}, must not be: metrics call the mean over domains so; rename it")
    size = len(quote(domain, safe=""))
    if size > DOMAIN_BYTES:
        raise LogError(
            f"a domain is called {domain[:TEXT_SHOWN]!r}…, whose name has {size} bytes when percent-encoded for "
            f"folders, must have at most {DOMAIN_BYTES}; shorten it, or correct the column or pattern that names it"
        )


def plan_buckets(
    partitions: Sequence[LogPartition], inputs: BucketInputs, most_rows: int, scratch: Path
) -> list[Bucket]:
    """All buckets: consecutive shards with at most `most_rows` rows together, or one larger shard.

    Args:
        partitions: of every log file, in order, in folders `0`, `1` and so on of `inputs.partitions`.
        inputs: shared by all buckets.
        most_rows: bound on a bucket's rows.
        scratch: for the list of runs and the folders of buckets.

    Returns:
        In the order of shards; none for no rows.
    """
    domains = domain_names(partitions)
    number_of = {domain: number for number, domain in enumerate(domains)}
    runs: list[tuple[int, int, int]] = []
    sizes = np.zeros(SHARDS, np.int64)
    for file, partition in enumerate(partitions):
        runs_of_file = SortedRuns(partition.folder)
        for index, domain in enumerate(partition.domains):
            runs.append((number_of[domain], file, index))
            sizes += runs_of_file.rows_by_shard(index)
    table = np.array(runs, np.int32).reshape(-1, 3)
    runs_path = ensure_folder(scratch / "runs", lambda folder: np.save(folder / "runs.npy", table)) / "runs.npy"
    return [
        Bucket(shards, domains, runs_path, inputs, scratch / "buckets" / f"{shards.start}-{shards.stop}")
        for shards in bounded_ranges(sizes, most_rows)
        if sizes[shards.start : shards.stop].any()
    ]
