"""Sifting: one domain's rows merged, split, and freed of leaked and cold ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.contracts import SPLITS
from data_contracts.settings import IngestSettings
from pipeline.pieces import Piece
from pipeline.splits import TRAIN_CODE, Codes, Numbers, Pairs, assign_splits

_ALPHABETICAL = np.argsort(np.argsort(SPLITS))
"""Index into SPLITS → rank of its name, the order in which contracts sort."""

DROPPED_SCHEMA = pa.schema([("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
"""Raw rows that a domain dropped; `file` is an index into the sorted logs."""


@dataclass(frozen=True)
class Sifted:
    """What one domain keeps, with ids numbered by rank among the domain's kept ids.

    Attributes:
        domain: its name.
        rows: user, item (int32 ranks), split (int8 index into SPLITS), timestamp (int64, null where the logs have
            none), count (int32); sorted by user, item, split name.
        user_ids, item_ids: sorted distinct ids of the kept rows.
        dropped: DROPPED_SCHEMA.
        duplicates: raw rows merged into another kept row.
    """

    domain: str
    rows: pa.Table
    user_ids: pa.StringArray
    item_ids: pa.StringArray
    dropped: pa.Table
    duplicates: int


@dataclass(frozen=True)
class _Raw:
    """Raw rows of a domain: ranks of ids, split codes (0 where undecided), times, origin."""

    user: Numbers
    item: Numbers
    split: Codes
    timestamp: pa.ChunkedArray
    file: npt.NDArray[np.int32]
    line: Numbers
    user_ids: pa.StringArray
    item_ids: pa.StringArray


@dataclass(frozen=True)
class _Merged:
    """Groups of raw rows with equal user, item and split, sorted so. `order` lists raw rows by group."""

    user: Numbers
    item: Numbers
    split: Codes
    timestamp: Numbers
    has_time: npt.NDArray[np.bool_]
    count: Numbers
    order: Numbers


def sift(domain: str, pieces: Sequence[Piece], settings: IngestSettings) -> Sifted:
    """One domain's rows: duplicates merged, splits assigned, leaked and cold rows dropped.

    Args:
        domain: the domain.
        pieces: of every log file, sorted by the file's name.
        settings: how to split, and what to drop.

    Returns:
        Zero rows where everything was dropped.
    """
    raw = _read(domain, pieces)
    merged = _merge(raw)
    split, leaked = merged.split, np.zeros(len(merged.user), dtype=bool)
    if settings.split.method != "given":
        pairs = Pairs(domain, merged.user, merged.item, merged.timestamp, raw.user_ids, raw.item_ids)
        split = assign_splits(pairs, settings.split)
    elif settings.protocol == "clean":
        leaked = _repeats_pair(merged)
    cold = np.zeros_like(leaked)
    if settings.cold == "drop":
        cold = ~leaked & (split != TRAIN_CODE) & _lacks_train(merged, (split == TRAIN_CODE) & ~leaked)
    dropped = [_dropped(raw, merged, rows, reason) for reason, rows in (("leaked", leaked), ("cold", cold))]
    return _kept(domain, raw, merged, split, ~(leaked | cold), pa.concat_tables(dropped))


def _read(domain: str, pieces: Sequence[Piece]) -> _Raw:
    ids = ["user_id", "item_id"]
    tables, files = [], []
    for number, piece in enumerate(pieces):
        for path in piece.paths(domain):
            tables.append(pq.read_table(path, read_dictionary=ids, page_checksum_verification=True))
            files.append(np.full(tables[-1].num_rows, number, np.int32))
    table = pa.concat_tables(tables)
    user, user_ids = _ranks(table["user_id"])
    item, item_ids = _ranks(table["item_id"])
    split = table["split"].fill_null(TRAIN_CODE).to_numpy()
    return _Raw(
        user, item, split, table["timestamp"], np.concatenate(files), table["line"].to_numpy(), user_ids, item_ids
    )


def _ranks(values: pa.ChunkedArray) -> tuple[Numbers, pa.StringArray]:
    """Each value's rank among the sorted distinct values (byte order of UTF-8), and these."""
    encoded = values.unify_dictionaries().combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(order))


def _merge(raw: _Raw) -> _Merged:
    key = (raw.user * len(raw.item_ids) + raw.item) * len(SPLITS) + raw.split
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    pair, split = np.divmod(key[starts], len(SPLITS))
    user, item = np.divmod(pair, len(raw.item_ids))
    has_time = raw.timestamp.is_valid().to_numpy()[order]
    time = raw.timestamp.fill_null(np.iinfo(np.int64).max).to_numpy()[order]
    return _Merged(
        user=user,
        item=item,
        split=split.astype(np.int8),
        timestamp=np.minimum.reduceat(time, starts),
        has_time=np.logical_or.reduceat(has_time, starts),
        count=np.diff(starts, append=len(key)),
        order=order,
    )


def _repeats_pair(merged: _Merged) -> npt.NDArray[np.bool_]:
    """True where an earlier split has the same user and item: groups of a pair are neighbours, by split."""
    same: npt.NDArray[np.bool_] = (np.diff(merged.user, prepend=-1) == 0) & (np.diff(merged.item, prepend=-1) == 0)
    return same


def _lacks_train(merged: _Merged, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    user_has, item_has = (np.zeros(ids.max() + 1, dtype=bool) for ids in (merged.user, merged.item))
    user_has[merged.user[train]] = True
    item_has[merged.item[train]] = True
    return ~(user_has[merged.user] & item_has[merged.item])


def _dropped(raw: _Raw, merged: _Merged, groups: npt.NDArray[np.bool_], reason: str) -> pa.Table:
    """Every raw row of the dropped groups; its text is user id, tab, item id."""
    rows = merged.order[np.repeat(groups, merged.count)]
    ids = (raw.user_ids.take(pa.array(raw.user[rows])), raw.item_ids.take(pa.array(raw.item[rows])))
    text = pc.binary_join_element_wise(*ids, "\t")
    return pa.table([raw.file[rows], raw.line[rows], pa.repeat(reason, len(rows)), text], DROPPED_SCHEMA)


def _kept(
    domain: str, raw: _Raw, merged: _Merged, split: Codes, kept: npt.NDArray[np.bool_], dropped: pa.Table
) -> Sifted:
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((_ALPHABETICAL[split[rows]], merged.item[rows], merged.user[rows]))]
    users, user = np.unique(merged.user[rows], return_inverse=True)
    items, item = np.unique(merged.item[rows], return_inverse=True)
    table = pa.table(
        {
            "user": pa.array(user, pa.int32()),
            "item": pa.array(item, pa.int32()),
            "split": pa.array(split[rows], pa.int8()),
            "timestamp": pa.array(merged.timestamp[rows], pa.int64(), mask=~merged.has_time[rows]),
            "count": pa.array(merged.count[rows], pa.int32()),
        }
    )
    duplicates = int(merged.count[rows].sum()) - len(rows)
    return Sifted(
        domain, table, raw.user_ids.take(pa.array(users)), raw.item_ids.take(pa.array(items)), dropped, duplicates
    )


def save(sifted: Sifted, folder: Path) -> None:
    """Keep a domain's rows, ids and dropped rows in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "rows": sifted.rows,
        "users": pa.table({"id": sifted.user_ids}),
        "items": pa.table({"id": sifted.item_ids}),
        "dropped": sifted.dropped,
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="lz4", write_page_checksum=True)


def saved(folder: Path, name: str) -> pa.Table:
    """One of the tables `rows`, `users`, `items`, `dropped` that `save` kept."""
    return pq.read_table(folder / f"{name}.parquet", page_checksum_verification=True)
