"""The deduplicated buckets of a domain joined in the order of users, as the files of the interactions.

Every user is in one bucket, so a range of users is a slice of each bucket, and sorting these by user alone orders them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import INTERACTIONS, SPLITS
from data_contracts.store.files import write_checked
from pipeline.compute.dtypes import Ints, Longs, Mask
from pipeline.compute.scratch import ensure_folder, load_array
from pipeline.ingest.deduplicate import DeduplicatedBucket
from pipeline.ingest.splits import TRAIN_CODE
from pipeline.ingest.vocabulary import Vocabulary


@dataclass(frozen=True)
class DomainBuckets:
    """One domain in all buckets.

    Attributes:
        domain: its name.
        number: its index among the sorted domains.
        warm_items: file of bool [items], by rank: whose rows are kept.
        numbers: files of int32 [ids], by rank: the final numbers of users and of items.
        ids: folders of the vocabularies of users and items.
        buckets: folders of the buckets.
    """

    domain: str
    number: int
    warm_items: Path
    numbers: tuple[Path, Path]
    ids: tuple[Path, Path]
    buckets: tuple[Path, ...]

    def kept_rows(self, bucket: Path) -> pa.Table:
        """The domain's rows in a bucket, without held-out ones of cold items."""
        return self._without_cold_items(DeduplicatedBucket(bucket).rows(self.number))

    def kept_rows_of(self, users: range) -> pa.Table:
        """The domain's rows of some users, without held-out ones of cold items; bucket after bucket."""
        slices = []
        for folder in self.buckets:
            rows = DeduplicatedBucket(folder).rows(self.number)
            first, end = np.searchsorted(rows["user"].to_numpy(), [users.start, users.stop])
            slices.append(self._without_cold_items(rows.slice(first, end - first)))
        return pa.concat_tables(slices)

    def _without_cold_items(self, rows: pa.Table) -> pa.Table:
        is_warm: Mask = load_array(self.warm_items, mode="r")
        kept = (rows["split"].to_numpy() == TRAIN_CODE) | is_warm[rows["item"].to_numpy()]
        return rows if kept.all() else rows.filter(pa.array(kept))


@dataclass(frozen=True)
class BucketCounts:
    """The rows of one domain that one bucket keeps.

    Attributes:
        users: int32, ranks of its users, ascending.
        rows: int64, kept rows of each of these.
        splits: kept rows of each split, in the order of SPLITS.
        raw_rows: raw rows that were merged into the kept ones.
    """

    users: Ints
    rows: Longs
    splits: tuple[int, ...]
    raw_rows: int

    @classmethod
    def from_rows(cls, rows: pa.Table) -> BucketCounts:
        """Count kept rows."""
        user = rows["user"].to_numpy()
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        splits = np.bincount(rows["split"].to_numpy(), minlength=len(SPLITS)).tolist()
        return cls(user[starts], np.diff(starts, append=len(user)), tuple(splits), int(rows["count"].to_numpy().sum()))


@dataclass(frozen=True)
class OutputFile:
    """Consecutive rows of a domain that make one file.

    Attributes:
        domain: in all buckets.
        users: ranks of the users whose rows these are.
        rows: the range of this file among the rows of these users.
        folder: of the file.
    """

    domain: DomainBuckets
    users: range
    rows: range
    folder: Path


def count_bucket(bucket: tuple[Sequence[DomainBuckets], Path]) -> list[BucketCounts]:
    """Count the rows that a bucket keeps of each domain."""
    domains, folder = bucket
    return [BucketCounts.from_rows(domain.kept_rows(folder)) for domain in domains]


def plan_files(
    domain: DomainBuckets, counts: Sequence[BucketCounts], rows_per_file: int, folder: Path
) -> Iterator[OutputFile]:
    """The domain's files; none for a domain without kept rows.

    Args:
        domain: in all buckets.
        counts: of each bucket.
        rows_per_file: rows of each file but the last.
        folder: for a folder per file.
    """
    users = np.concatenate([bucket.users for bucket in counts])
    order = np.argsort(users)
    users, ends = users[order], np.cumsum(np.concatenate([bucket.rows for bucket in counts])[order])
    total = int(ends[-1]) if len(ends) else 0
    for number, start in enumerate(range(0, total, rows_per_file)):
        stop = min(start + rows_per_file, total)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        base = int(ends[first - 1]) if first else 0
        users_of_file = range(int(users[first]), int(users[last]) + 1)
        yield OutputFile(domain, users_of_file, range(start - base, stop - base), folder / str(number))


def write_file(file: OutputFile) -> Path:
    """Write a file of the interactions, unless an earlier attempt did, and return its path."""
    return ensure_folder(file.folder, partial(_write_rows, file)) / "rows.parquet"


def _write_rows(file: OutputFile, folder: Path) -> None:
    domain, rows = file.domain, file.domain.kept_rows_of(file.users)
    order = np.argsort(rows["user"].to_numpy(), kind="stable")[file.rows.start : file.rows.stop]
    batch = rows.combine_chunks().to_batches()[0].take(pa.array(order))
    columns: dict[str, pa.Array] = {}
    for kind, numbers, path in zip(("user", "item"), domain.numbers, domain.ids, strict=True):
        columns[f"{kind}_id"] = Vocabulary(path).ids.take(batch[kind])
        columns[kind] = pa.array(load_array(numbers, mode="r").take(batch[kind].to_numpy()))
    columns["split"] = pa.array(SPLITS).take(batch["split"])
    columns |= {name: batch[name] for name in ("timestamp", "count")}
    write_checked(INTERACTIONS, pa.table(columns), folder / "rows.parquet", f"interactions/domain={domain.domain}")
