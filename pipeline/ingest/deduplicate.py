"""Deduplication of a bucket: merge its rows, split them, and drop leaked and cold ones.

A bucket holds all rows of some users, so every pair and every user's split is decided within it. Only whether an item
has train rows in other buckets of a domain is not known yet: held-out rows of an item without any in this bucket are
kept and also listed as suspects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import SPLITS
from pipeline.compute.dtypes import Array, Ints, Longs, Mask
from pipeline.compute.scratch import ensure_folder, load_array, map_table, write_table
from pipeline.ingest.buckets import Bucket
from pipeline.ingest.pair_splits import DistinctPairs, split_pairs
from pipeline.ingest.partition import SortedRuns
from pipeline.ingest.splits import TRAIN_CODE, Codes
from pipeline.ingest.vocabulary import Vocabulary

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
class _RawRows:
    """Raw rows of a bucket, domain after domain.

    Ranks of ids, split codes (that of train where undecided), times (_NO_TIME without one), and file and line.
    """

    domain: Ints
    user: Longs
    item: Longs
    split: Codes
    timestamp: Longs
    has_time: Mask
    file: Ints
    line: Longs


@dataclass(frozen=True)
class _MergedRows(DistinctPairs):
    """Groups of raw rows with equal domain, user, item and split; `order` has the raw rows by group."""

    has_time: Mask
    count: Longs
    order: Longs


@dataclass(frozen=True)
class DeduplicatedBucket:
    """The result of `deduplicate_bucket` in a folder; tables and long arrays are mapped."""

    folder: Path

    def rows(self, domain: int) -> pa.Table:
        """A domain's rows, sorted by user, item and name of the split.

        Columns: user and item (int32 ranks among all ids), split (int8 index into SPLITS), timestamp (int64, null where
        the logs have none), count (int32).
        """
        first, end = self._bounds("row", domain)
        return map_table(self.folder / "rows.arrow").slice(first, end - first)

    def dropped(self) -> pa.Table:
        """Raw rows that were dropped or are suspects, by file and line.

        Columns: file and domain (int32 indices into the sorted logs and domains), line, user and item (int32 ranks),
        reason.
        """
        return map_table(self.folder / "dropped.arrow")

    def warm_users(self) -> Longs:
        """Ascending ranks of users that have a train row in some domain, or any row where cold rows are kept."""
        return load_array(self.folder / "users.npy")

    def warm_items(self, domain: int) -> Longs:
        """Ascending ranks of items that have a train row in the domain, or any row where cold rows are kept."""
        first, end = self._bounds("item", domain)
        return load_array(self.folder / "items.npy", mode="r")[first:end]

    def shared_pairs(self) -> Longs:
        """int64 [splits], pairs that occur in several domains, by split."""
        return load_array(self.folder / "shared_pairs.npy")

    def tied_users(self) -> Longs:
        """int64 [2], as of `PairSplits`."""
        return load_array(self.folder / "tied_users.npy")

    def _bounds(self, kind: str, domain: int) -> tuple[int, int]:
        first, end = load_array(self.folder / f"{kind}_bounds.npy", mode="r")[domain : domain + 2]
        return int(first), int(end)


def deduplicate_bucket(bucket: Bucket) -> Path:
    """Merge a bucket's duplicates, assign splits, and drop leaked and cold rows, unless an earlier attempt did.

    Returns:
        A folder for `DeduplicatedBucket`.
    """
    return ensure_folder(bucket.folder, partial(_write_bucket, bucket))


def _write_bucket(bucket: Bucket, folder: Path) -> None:
    users, items = (Vocabulary(path) for path in bucket.inputs.ids)
    raw = _read_rows(bucket, users, items)
    merged = _merge(raw, bucket, users, items)
    settings = bucket.inputs.settings
    splits = split_pairs(merged, settings)
    makes_warm = ~splits.is_leaked if settings.cold == "keep" else splits.split == TRAIN_CODE
    warm_items = [_distinct(merged.item[rows][makes_warm[rows]]) for rows in merged.by_domain()]
    is_cold = ~splits.is_leaked & ~_have_warm_users(merged, makes_warm)
    is_suspect = ~splits.is_leaked & ~is_cold & ~_have_warm_items(merged, warm_items)
    dropped = {LEAKED: splits.is_leaked, COLD: is_cold, SUSPECT: is_suspect}
    write_table(folder / "dropped.arrow", _dropped_table(raw, merged, dropped))
    kept = _in_order_of_names(merged, splits.split, np.flatnonzero(~(splits.is_leaked | is_cold)))
    write_table(folder / "rows.arrow", _kept_table(merged, splits.split, kept))
    np.save(
        folder / "row_bounds.npy",
        np.searchsorted(merged.domain[kept], np.arange(len(bucket.domains) + 1, dtype=np.int32)),
    )
    np.save(folder / "users.npy", _distinct(merged.user[makes_warm]))
    np.save(folder / "items.npy", np.concatenate(warm_items))
    np.save(folder / "item_bounds.npy", np.cumsum([0, *map(len, warm_items)]))
    np.save(folder / "shared_pairs.npy", splits.shared_pairs)
    np.save(folder / "tied_users.npy", splits.tied_users)


def _read_rows(bucket: Bucket, users: Vocabulary, items: Vocabulary) -> _RawRows:
    is_given = bucket.inputs.settings.split.method == "given"
    blocks: list[tuple[Array, ...]] = []
    for domain, runs_of_domain in enumerate(bucket.runs_by_domain()):
        for file, runs_of_file in groupby(runs_of_domain, attrgetter("file")):
            runs = SortedRuns(bucket.inputs.partitions / str(file))
            for run in runs_of_file:
                rows = runs.rows(run.position, bucket.shards)
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
    return _RawRows(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def _merge(raw: _RawRows, bucket: Bucket, users: Vocabulary, items: Vocabulary) -> _MergedRows:
    domains = bucket.domains
    key = (raw.user.astype(np.int64) * len(items) + raw.item) * len(SPLITS) + raw.split
    bounds = np.searchsorted(raw.domain, np.arange(len(domains) + 1, dtype=np.int32)).tolist()
    order = np.concatenate([first + np.argsort(key[first:end]) for first, end in pairwise(bounds)])
    starts = np.flatnonzero((np.diff(key[order], prepend=-1) != 0) | (np.diff(raw.domain, prepend=-1) != 0))
    first = order[starts]
    trained = _trained_pairs(bucket, users, items)
    return _MergedRows(
        domain=raw.domain[first],
        user=raw.user[first],
        item=raw.item[first],
        split=raw.split[first],
        timestamp=np.minimum.reduceat(raw.timestamp[order], starts),
        is_trained=np.isin(key[first] // len(SPLITS), trained) if len(trained) else np.zeros(len(first), dtype=bool),
        names=domains,
        users=users,
        items=items,
        has_time=np.logical_or.reduceat(raw.has_time[order], starts),
        count=np.diff(starts, append=len(key)),
        order=order,
    )


def _trained_pairs(bucket: Bucket, users: Vocabulary, items: Vocabulary) -> Longs:
    """int64 [pairs], user rank · items + item rank of the pairs of the bucket's users that were trained on before."""
    pairs = [np.zeros(0, np.int64)]
    for runs, index, number in bucket.trained_runs():
        rows = runs.rows(index, bucket.shards)
        user, item = users.ranks(number, rows["user"].to_numpy()), items.ranks(number, rows["item"].to_numpy())
        pairs.append(user.astype(np.int64) * len(items) + item)
    return np.concatenate(pairs)


def _have_warm_users(merged: _MergedRows, makes_warm: Mask) -> Mask:
    """Whether the user of each row has a row in the domain that makes it warm."""
    starts, sizes = merged.by_user()
    return np.repeat(np.logical_or.reduceat(makes_warm, starts), sizes)


def _have_warm_items(merged: _MergedRows, warm_items: list[Longs]) -> Mask:
    """Whether the item of each row is among the warm ones of the domain."""
    result = np.zeros(len(merged.item), dtype=bool)
    for rows, warm in zip(merged.by_domain(), warm_items, strict=True):
        is_warm = np.zeros(len(merged.items), dtype=bool)
        is_warm[warm] = True
        result[rows] = is_warm[merged.item[rows]]
    return result


def _distinct(ranks: Longs) -> Longs:
    ordered = np.sort(ranks)
    distinct: Longs = ordered[np.diff(ordered, prepend=-1) != 0]
    return distinct


def _dropped_table(raw: _RawRows, merged: _MergedRows, reasons: dict[int, Mask]) -> pa.Table:
    """The raw rows of the groups that each reason applies to, by file and line."""
    tables = [_DROPPED.empty_table()]
    for reason, groups in reasons.items():
        rows = merged.order[np.repeat(groups, merged.count)]
        columns = [getattr(raw, name)[rows] for name in _DROPPED.names[:-1]]
        columns.append(np.full(len(rows), reason, np.int8))
        tables.append(pa.table([pa.array(column) for column in columns], _DROPPED.names).cast(_DROPPED))
    return pa.concat_tables(tables).sort_by([("file", "ascending"), ("line", "ascending")])


def _in_order_of_names(merged: _MergedRows, split: Codes, rows: Longs) -> Longs:
    """The rows, sorted by the name of their split, not its index, where domain, user and item are equal."""
    same = [np.diff(column[rows], prepend=-1) == 0 for column in (merged.domain, merged.user, merged.item)]
    repeats = np.logical_and.reduce(same)
    if repeats.any():
        rows = rows[np.argsort(np.cumsum(~repeats) * len(SPLITS) + _ALPHABETICAL[split[rows]])]
    return rows


def _kept_table(merged: _MergedRows, split: Codes, rows: Longs) -> pa.Table:
    return pa.table(
        {
            "user": pa.array(merged.user[rows], pa.int32()),
            "item": pa.array(merged.item[rows], pa.int32()),
            "split": pa.array(split[rows], pa.int8()),
            "timestamp": pa.array(merged.timestamp[rows], pa.int64(), mask=~merged.has_time[rows]),
            "count": pa.array(merged.count[rows], pa.int32()),
        }
    )
