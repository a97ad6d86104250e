"""Sifting: a bucket's rows merged, split, and freed of leaked and cold ones.

A bucket holds all rows of some of a domain's users, so every pair and every user's split is decided within it. Only
whether an item has train rows elsewhere in the domain is not known yet: held-out rows of an item without any in the
bucket are kept and also listed as suspects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.contracts import SPLITS
from pipeline.buckets import Bucket
from pipeline.numbering import NumberedIds
from pipeline.runs import Runs
from pipeline.scratch import made, write_table
from pipeline.splits import TRAIN_CODE, Codes, Numbers, Pairs, assign_splits

LEAKED, COLD, SUSPECT = 0, 1, 2
"""Why a raw row was dropped. A suspect was dropped as cold if no bucket of the domain has a train row of its item."""

_ALPHABETICAL = np.argsort(np.argsort(SPLITS))
"""Index into SPLITS → rank of its name, the order in which contracts sort."""

_NO_TIME = np.iinfo(np.int64).max

DROPPED_SCHEMA = pa.schema(
    [("file", pa.int32()), ("line", pa.int64()), ("user", pa.int32()), ("item", pa.int32()), ("reason", pa.int8())]
)
"""Raw rows that a bucket dropped or suspects, by file and line; `file` is an index into the sorted logs."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Raw:
    """Raw rows of a bucket: ranks of ids, split codes (0 where undecided), times (_NO_TIME without one), origin."""

    user: Numbers
    item: Numbers
    split: Codes
    timestamp: Numbers
    has_time: Mask
    file: npt.NDArray[np.int32]
    line: Numbers


@dataclass(frozen=True)
class _Merged:
    """Groups of raw rows with equal user, item and split, sorted so. `order` lists raw rows by group."""

    user: Numbers
    item: Numbers
    split: Codes
    timestamp: Numbers
    has_time: Mask
    count: Numbers
    order: Numbers


def sift(bucket: Bucket) -> Path:
    """Merge a bucket's duplicates, assign splits, and drop leaked and cold rows, unless an earlier attempt did.

    Returns:
        A folder of four files. `rows.arrow`: user and item (int32 ranks among all ids), split (int8 index into
        SPLITS), timestamp (int64, null where the logs have none), count (int32), sorted by user, item, split name.
        `dropped.arrow`: DROPPED_SCHEMA. `users.npy`, `items.npy`: ascending ranks of the ids that keep the bucket's
        rows from being cold: those with train rows, or all where cold rows stay.
    """
    return made(bucket.folder, partial(_write, bucket))


def _write(bucket: Bucket, folder: Path) -> None:
    users, items = (NumberedIds(path) for path in bucket.ids)
    raw = _read(bucket, users, items)
    merged = _merge(raw, len(items))
    settings = bucket.settings
    split, leaked = merged.split, np.zeros(len(merged.user), dtype=bool)
    if settings.split.method != "given":
        places = items.places.take(merged.item).astype(np.int64)
        pairs = Pairs(bucket.domain, merged.user, merged.item, places, merged.timestamp, users.ids, items.ids)
        split = assign_splits(pairs, settings.split)
    elif settings.protocol == "clean":
        leaked = _repeats_pair(merged)
    warming = ~leaked if settings.cold == "keep" else split == TRAIN_CODE
    has_warm_user = _occurs(merged.user[warming], len(users))[merged.user]
    has_warm_item = _occurs(merged.item[warming], len(items))[merged.item]
    cold = ~leaked & ~has_warm_user
    reasons = {LEAKED: leaked, COLD: cold, SUSPECT: ~leaked & ~cold & ~has_warm_item}
    write_table(folder / "dropped.arrow", _dropped(raw, merged, reasons))
    write_table(folder / "rows.arrow", _kept(merged, split, ~(leaked | cold)))
    np.save(folder / "users.npy", _distinct(merged.user[warming]))
    np.save(folder / "items.npy", _distinct(merged.item[warming]))


def _read(bucket: Bucket, users: NumberedIds, items: NumberedIds) -> _Raw:
    found: list[tuple[npt.NDArray[Any], ...]] = []
    for file, of_file in groupby(bucket.runs, attrgetter("file")):
        runs = Runs(bucket.pieces / str(file))
        for run in of_file:
            rows = runs.rows(run.place, bucket.parts)
            is_given = bucket.settings.split.method == "given"
            split = rows["split"] if is_given else pa.nulls(rows.num_rows, pa.int8())
            found.append(
                (
                    users.ranks(run.number, rows["user"].to_numpy()),
                    items.ranks(run.number, rows["item"].to_numpy()),
                    split.fill_null(TRAIN_CODE).to_numpy(),
                    rows["timestamp"].fill_null(_NO_TIME).to_numpy(),
                    rows["timestamp"].is_valid().to_numpy(zero_copy_only=False),
                    np.full(rows.num_rows, file, np.int32),
                    rows["line"].to_numpy(),
                )
            )
    return _Raw(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _merge(raw: _Raw, items: int) -> _Merged:
    key = (raw.user.astype(np.int64) * items + raw.item) * len(SPLITS) + raw.split
    order = np.argsort(key)
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    first = order[starts]
    return _Merged(
        user=raw.user[first],
        item=raw.item[first],
        split=raw.split[first],
        timestamp=np.minimum.reduceat(raw.timestamp[order], starts),
        has_time=np.logical_or.reduceat(raw.has_time[order], starts),
        count=np.diff(starts, append=len(key)),
        order=order,
    )


def _repeats_pair(merged: _Merged) -> Mask:
    """True where an earlier split has the same user and item: groups of a pair are neighbours, by split."""
    same: Mask = (np.diff(merged.user, prepend=-1) == 0) & (np.diff(merged.item, prepend=-1) == 0)
    return same


def _occurs(ranks: Numbers, size: int) -> Mask:
    occurs = np.zeros(size, dtype=bool)
    occurs[ranks] = True
    return occurs


def _distinct(ranks: Numbers) -> Numbers:
    ordered = np.sort(ranks)
    distinct: Numbers = ordered[np.diff(ordered, prepend=-1) != 0]
    return distinct


def _dropped(raw: _Raw, merged: _Merged, reasons: dict[int, Mask]) -> pa.Table:
    """Every raw row of the groups of each reason."""
    tables = [DROPPED_SCHEMA.empty_table()]
    for reason, groups in reasons.items():
        rows = merged.order[np.repeat(groups, merged.count)]
        columns = [raw.file[rows], raw.line[rows], raw.user[rows], raw.item[rows], np.full(len(rows), reason, np.int8)]
        tables.append(pa.table([pa.array(column) for column in columns], DROPPED_SCHEMA))
    return pa.concat_tables(tables).sort_by([("file", "ascending"), ("line", "ascending")])


def _kept(merged: _Merged, split: Codes, kept: Mask) -> pa.Table:
    rows = np.flatnonzero(kept)
    repeats = _repeats_pair(merged)[rows]
    if repeats.any():
        rows = rows[np.argsort(np.cumsum(~repeats) * len(SPLITS) + _ALPHABETICAL[split[rows]])]
    return pa.table(
        {
            "user": pa.array(merged.user[rows], pa.int32()),
            "item": pa.array(merged.item[rows], pa.int32()),
            "split": pa.array(split[rows], pa.int8()),
            "timestamp": pa.array(merged.timestamp[rows], pa.int64(), mask=~merged.has_time[rows]),
            "count": pa.array(merged.count[rows], pa.int32()),
        }
    )
