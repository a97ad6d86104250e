"""Assembly: the sifted buckets of a domain put together in the order of users, as the files of the interactions.

Every user is in one bucket, so a stretch of users is a slice of each bucket, and sorting these by user alone puts them
in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.contracts import INTERACTIONS, SPLITS
from data_contracts.store.files import write_checked
from pipeline.compute.scratch import load_array, made
from pipeline.ingest.deduplicate import SiftedBucket
from pipeline.ingest.splits import TRAIN_CODE
from pipeline.ingest.vocabulary import NumberedIds

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shelf:
    """What the buckets of one domain are read with.

    Attributes:
        domain: its name.
        number: its index among the sorted domains.
        warm_items: file of bool [items], by rank: whose rows are kept.
        numbers: files of int32 [ids], by rank: the final numbers of users and of items.
        ids: folders of the numbered user and item ids.
    """

    domain: str
    number: int
    warm_items: Path
    numbers: tuple[Path, Path]
    ids: tuple[Path, Path]


@dataclass(frozen=True)
class Weight:
    """What one bucket keeps of one domain.

    Attributes:
        users: int32, ranks of its users, ascending.
        rows: int64, kept rows of each of these.
        splits: kept rows of each split, in the order of SPLITS.
        raw_rows: raw rows that the kept ones were.
    """

    users: npt.NDArray[np.int32]
    rows: Counts
    splits: tuple[int, ...]
    raw_rows: int


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of a domain that fill one file.

    Attributes:
        shelf: how to read the domain's buckets.
        buckets: their folders.
        users: ranks of the users whose rows these are.
        rows: of the rows of these users together, the ones of this file.
        folder: where the file goes.
    """

    shelf: Shelf
    buckets: tuple[Path, ...]
    users: range
    rows: range
    folder: Path


def weigh(bucket: tuple[Sequence[Shelf], Path]) -> list[Weight]:
    """Count what a bucket keeps of each domain."""
    shelves, folder = bucket
    return [_weigh(_warm(shelf, SiftedBucket(folder).rows(shelf.number))) for shelf in shelves]


def _weigh(rows: pa.Table) -> Weight:
    user = rows["user"].to_numpy()
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    splits = np.bincount(rows["split"].to_numpy(), minlength=len(SPLITS)).tolist()
    return Weight(user[starts], np.diff(starts, append=len(user)), tuple(splits), int(rows["count"].to_numpy().sum()))


def stretches(
    shelf: Shelf, buckets: Sequence[Path], weights: Sequence[Weight], rows_per_file: int, folder: Path
) -> Iterator[Stretch]:
    """The domain's files; none for a domain without kept rows.

    Args:
        shelf: how to read the domain's buckets.
        buckets: their folders.
        weights: of the buckets.
        rows_per_file: rows of each file but the last.
        folder: where folders of files go.
    """
    users = np.concatenate([weight.users for weight in weights])
    order = np.argsort(users)
    users, ends = users[order], np.cumsum(np.concatenate([weight.rows for weight in weights])[order])
    total = int(ends[-1]) if len(ends) else 0
    for number, start in enumerate(range(0, total, rows_per_file)):
        stop = min(start + rows_per_file, total)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        base = int(ends[first - 1]) if first else 0
        of_users = range(int(users[first]), int(users[last]) + 1)
        yield Stretch(shelf, tuple(buckets), of_users, range(start - base, stop - base), folder / str(number))


def write_stretch(stretch: Stretch) -> Path:
    """Write a file of the interactions, unless an earlier attempt did, and tell where it is."""
    return made(stretch.folder, partial(_write, stretch)) / "rows.parquet"


def _write(stretch: Stretch, folder: Path) -> None:
    shelf = stretch.shelf
    rows = _ordered(stretch)
    columns: dict[str, pa.Array] = {}
    for kind, numbers, path in zip(("user", "item"), shelf.numbers, shelf.ids, strict=True):
        columns[f"{kind}_id"] = NumberedIds(path).ids.take(rows[kind])
        columns[kind] = pa.array(load_array(numbers, mode="r").take(rows[kind].to_numpy()))
    columns["split"] = pa.array(SPLITS).take(rows["split"])
    columns |= {name: rows[name] for name in ("timestamp", "count")}
    write_checked(INTERACTIONS, pa.table(columns), folder / "rows.parquet", f"interactions/domain={shelf.domain}")


def _ordered(stretch: Stretch) -> pa.RecordBatch:
    slices = []
    for folder in stretch.buckets:
        rows = SiftedBucket(folder).rows(stretch.shelf.number)
        first, end = np.searchsorted(rows["user"].to_numpy(), [stretch.users.start, stretch.users.stop])
        slices.append(_warm(stretch.shelf, rows.slice(first, end - first)))
    rows = pa.concat_tables(slices)
    order = np.argsort(rows["user"].to_numpy(), kind="stable")[stretch.rows.start : stretch.rows.stop]
    return rows.combine_chunks().to_batches()[0].take(pa.array(order))


def _warm(shelf: Shelf, rows: pa.Table) -> pa.Table:
    """Rows without the held-out ones of items that have no train row in the domain."""
    is_warm: Mask = load_array(shelf.warm_items, mode="r")
    kept = (rows["split"].to_numpy() == TRAIN_CODE) | is_warm[rows["item"].to_numpy()]
    return rows if kept.all() else rows.filter(pa.array(kept))
