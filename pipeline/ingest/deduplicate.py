"""Sifting: a bucket's rows merged, split, and freed of leaked and cold ones.

A bucket holds all rows of some users, so every pair and every user's split is decided within it. Only whether an item
has train rows elsewhere in a domain is not known yet: held-out rows of an item without any in the bucket are kept and
also listed as suspects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.contracts import SPLITS
from pipeline.compute.scratch import load_array, made, mapped_table, write_table
from pipeline.ingest.buckets import Bucket
from pipeline.ingest.pair_splits import Rows, split_rows
from pipeline.ingest.partition import Runs
from pipeline.ingest.splits import TRAIN_CODE, Codes, Mask, Numbers
from pipeline.ingest.vocabulary import NumberedIds

LEAKED, COLD, SUSPECT = 0, 1, 2
"""Why a raw row was dropped. A suspect was dropped as cold if no bucket has a train row of its item in its domain."""

_ALPHABETICAL = np.argsort(np.argsort(SPLITS))
"""Index into SPLITS → rank of its name, the order in which contracts sort."""

_NO_TIME = np.iinfo(np.int64).max

_DROPPED = pa.schema(
    [
        ("file", pa.int32()),
        ("line", pa.int64()),
        ("domain", pa.int32()),
        ("user", pa.int32()),
        ("item", pa.int32()),
        ("reason", pa.int8()),
    ]
)


@dataclass(frozen=True)
class _Raw:
    """Raw rows of a bucket, domain after domain.

    Ranks of ids, split codes (that of train where undecided), times (_NO_TIME without one), and where rows are from.
    """

    domain: npt.NDArray[np.int32]
    user: Numbers
    item: Numbers
    split: Codes
    timestamp: Numbers
    has_time: Mask
    file: npt.NDArray[np.int32]
    line: Numbers


@dataclass(frozen=True)
class _Merged(Rows):
    """Groups of raw rows with equal domain, user, item and split. `order` lists raw rows by group."""

    has_time: Mask
    count: Numbers
    order: Numbers


@dataclass(frozen=True)
class SiftedBucket:
    """What `sift` left in a folder; tables and long arrays are pages of its files, read when touched."""

    folder: Path

    def rows(self, domain: int) -> pa.Table:
        """A domain's rows, sorted by user, item and name of the split.

        User and item (int32 ranks among all ids), split (int8 index into SPLITS), timestamp (int64, null where the
        logs have none), count (int32).
        """
        first, end = self._bounds("row", domain)
        return mapped_table(self.folder / "rows.arrow").slice(first, end - first)

    def dropped(self) -> pa.Table:
        """Raw rows that were dropped or are suspects, by file and line.

        File and domain (int32 indices into the sorted logs and domains), line, user and item (int32 ranks), reason.
        """
        return mapped_table(self.folder / "dropped.arrow")

    def warm_users(self) -> Numbers:
        """Ascending ranks of users that have a train row in some domain, or any row where cold ones stay."""
        return load_array(self.folder / "users.npy")

    def warm_items(self, domain: int) -> Numbers:
        """Ascending ranks of items that have a train row in the domain, or any row where cold ones stay."""
        first, end = self._bounds("item", domain)
        return load_array(self.folder / "items.npy", mode="r")[first:end]

    def shared_pairs(self) -> Numbers:
        """int64 [splits], pairs that live in several domains, by split."""
        return load_array(self.folder / "shared_pairs.npy")

    def _bounds(self, kind: str, domain: int) -> tuple[int, int]:
        first, end = load_array(self.folder / f"{kind}_bounds.npy", mode="r")[domain : domain + 2]
        return int(first), int(end)


def sift(bucket: Bucket) -> Path:
    """Merge a bucket's duplicates, assign splits, and drop leaked and cold rows, unless an earlier attempt did.

    Returns:
        A folder for `SiftedBucket`.
    """
    return made(bucket.folder, partial(_write, bucket))


def _write(bucket: Bucket, folder: Path) -> None:
    users, items = (NumberedIds(path) for path in bucket.ids)
    raw = _read(bucket, users, items)
    merged = _merge(raw, bucket, users, items)
    splits = split_rows(merged, bucket.settings)
    warming = ~splits.leaked if bucket.settings.cold == "keep" else splits.split == TRAIN_CODE
    warm_items = [_distinct(merged.item[rows][warming[rows]]) for rows in merged.by_domain()]
    cold = ~splits.leaked & ~_of_warm_users(merged, warming)
    suspect = ~splits.leaked & ~cold & ~_of_warm_items(merged, warm_items)
    write_table(folder / "dropped.arrow", _dropped(raw, merged, {LEAKED: splits.leaked, COLD: cold, SUSPECT: suspect}))
    kept = _in_order_of_names(merged, splits.split, np.flatnonzero(~(splits.leaked | cold)))
    write_table(folder / "rows.arrow", _kept(merged, splits.split, kept))
    np.save(
        folder / "row_bounds.npy",
        np.searchsorted(merged.domain[kept], np.arange(len(bucket.domains) + 1, dtype=np.int32)),
    )
    np.save(folder / "users.npy", _distinct(merged.user[warming]))
    np.save(folder / "items.npy", np.concatenate(warm_items))
    np.save(folder / "item_bounds.npy", np.cumsum([0, *map(len, warm_items)]))
    np.save(folder / "shared_pairs.npy", splits.shared_pairs)


def _read(bucket: Bucket, users: NumberedIds, items: NumberedIds) -> _Raw:
    is_given = bucket.settings.split.method == "given"
    blocks: list[tuple[npt.NDArray[Any], ...]] = []
    for domain, of_domain in enumerate(bucket.runs_by_domain()):
        for file, of_file in groupby(of_domain, attrgetter("file")):
            runs = Runs(bucket.pieces / str(file))
            for run in of_file:
                rows = runs.rows(run.place, bucket.parts)
                split = rows["split"] if is_given else pa.nulls(rows.num_rows, pa.int8())
                blocks.append(
                    (
                        np.full(rows.num_rows, domain, np.int32),
                        users.ranks(run.number, rows["user"].to_numpy()),
                        items.ranks(run.number, rows["item"].to_numpy()),
                        split.fill_null(TRAIN_CODE).to_numpy(),
                        rows["timestamp"].fill_null(_NO_TIME).to_numpy(),
                        rows["timestamp"].is_valid().to_numpy(zero_copy_only=False),
                        np.full(rows.num_rows, file, np.int32),
                        rows["line"].to_numpy(),
                    )
                )
    return _Raw(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _merge(raw: _Raw, bucket: Bucket, users: NumberedIds, items: NumberedIds) -> _Merged:
    domains = bucket.domains
    key = (raw.user.astype(np.int64) * len(items) + raw.item) * len(SPLITS) + raw.split
    bounds = np.searchsorted(raw.domain, np.arange(len(domains) + 1, dtype=np.int32)).tolist()
    order = np.concatenate([first + np.argsort(key[first:end]) for first, end in pairwise(bounds)])
    starts = np.flatnonzero((np.diff(key[order], prepend=-1) != 0) | (np.diff(raw.domain, prepend=-1) != 0))
    first = order[starts]
    trained = _pairs_trained_before(bucket, users, items)
    return _Merged(
        domain=raw.domain[first],
        user=raw.user[first],
        item=raw.item[first],
        split=raw.split[first],
        timestamp=np.minimum.reduceat(raw.timestamp[order], starts),
        trained=np.isin(key[first] // len(SPLITS), trained) if len(trained) else np.zeros(len(first), dtype=bool),
        names=domains,
        users=users,
        items=items,
        has_time=np.logical_or.reduceat(raw.has_time[order], starts),
        count=np.diff(starts, append=len(key)),
        order=order,
    )


def _pairs_trained_before(bucket: Bucket, users: NumberedIds, items: NumberedIds) -> Numbers:
    """User · items + item of the pairs of the bucket's users, by rank."""
    pairs = [np.zeros(0, np.int64)]
    for runs, place, number in bucket.trained_runs():
        rows = runs.rows(place, bucket.parts)
        user, item = users.ranks(number, rows["user"].to_numpy()), items.ranks(number, rows["item"].to_numpy())
        pairs.append(user.astype(np.int64) * len(items) + item)
    return np.concatenate(pairs)


def _of_warm_users(merged: _Merged, warming: Mask) -> Mask:
    """Rows whose user has a warming row in the domain."""
    starts, sizes = merged.by_user()
    return np.repeat(np.logical_or.reduceat(warming, starts), sizes)


def _of_warm_items(merged: _Merged, warm_items: list[Numbers]) -> Mask:
    """Rows whose item is among the warm ones of the domain."""
    result = np.zeros(len(merged.item), dtype=bool)
    for rows, warm in zip(merged.by_domain(), warm_items, strict=True):
        is_warm = np.zeros(len(merged.items), dtype=bool)
        is_warm[warm] = True
        result[rows] = is_warm[merged.item[rows]]
    return result


def _distinct(ranks: Numbers) -> Numbers:
    ordered = np.sort(ranks)
    distinct: Numbers = ordered[np.diff(ordered, prepend=-1) != 0]
    return distinct


def _dropped(raw: _Raw, merged: _Merged, reasons: dict[int, Mask]) -> pa.Table:
    """Every raw row of the groups of each reason."""
    tables = [_DROPPED.empty_table()]
    for reason, groups in reasons.items():
        rows = merged.order[np.repeat(groups, merged.count)]
        columns = [getattr(raw, name)[rows] for name in _DROPPED.names[:-1]]
        columns.append(np.full(len(rows), reason, np.int8))
        tables.append(pa.table([pa.array(column) for column in columns], _DROPPED.names).cast(_DROPPED))
    return pa.concat_tables(tables).sort_by([("file", "ascending"), ("line", "ascending")])


def _in_order_of_names(merged: _Merged, split: Codes, rows: Numbers) -> Numbers:
    """These rows by the name of their split, not its index, where domain, user and item are equal."""
    same = [np.diff(column[rows], prepend=-1) == 0 for column in (merged.domain, merged.user, merged.item)]
    repeats = np.logical_and.reduce(same)
    if repeats.any():
        rows = rows[np.argsort(np.cumsum(~repeats) * len(SPLITS) + _ALPHABETICAL[split[rows]])]
    return rows


def _kept(merged: _Merged, split: Codes, rows: Numbers) -> pa.Table:
    return pa.table(
        {
            "user": pa.array(merged.user[rows], pa.int32()),
            "item": pa.array(merged.item[rows], pa.int32()),
            "split": pa.array(split[rows], pa.int8()),
            "timestamp": pa.array(merged.timestamp[rows], pa.int64(), mask=~merged.has_time[rows]),
            "count": pa.array(merged.count[rows], pa.int32()),
        }
    )
