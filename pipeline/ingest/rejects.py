"""Rejected rows of all files: those that could not be read or used, and those that buckets dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import REJECTS
from pipeline.compute.dtypes import Mask
from pipeline.compute.fan_out import ranges
from pipeline.compute.scratch import load_array
from pipeline.ingest.deduplicate import LEAKED, SUSPECT, DeduplicatedBucket
from pipeline.ingest.partition import LogPartition
from pipeline.ingest.vocabulary import Vocabulary
from pipeline.logs.cleaning import shorten
from pipeline.logs.records import TEXT_KEPT

_LINES = 1 << 20
"""Lines of a file whose rejects are held at a time."""

_TEXT_BYTES = 1 << 26
"""Text of rejects that is held at a time."""


@dataclass(frozen=True)
class DroppedRows:
    """The raw rows that the buckets dropped.

    Attributes:
        tables: `DeduplicatedBucket.dropped` of each bucket that has any.
        warm_items: of each domain, bool [items], by rank: suspects of these items are kept.
    """

    tables: tuple[pa.Table, ...]
    warm_items: tuple[Mask, ...]

    def reasons(self, kind: Literal["file", "domain"], size: int) -> list[dict[str, int]]:
        """For each of `size` files or domains, the raw rows dropped as leaked and as cold."""
        counts = np.zeros((size, 2), np.int64)
        for table in self.tables:
            dropped = self._without_kept(table)
            cell = 2 * dropped[kind].to_numpy() + (dropped["reason"].to_numpy() != LEAKED)
            counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
        return [{"leaked": leaked, "cold": cold} for leaked, cold in counts.tolist()]

    def rows_of_lines(self, file: int, lines: range) -> Iterator[pa.Table]:
        """Dropped rows of some lines of a file."""
        for table in self.tables:
            first, end = np.searchsorted(table["file"].to_numpy(), [file, file + 1])
            rows_of_file = table.slice(first, end - first)
            yield self._without_kept(_between(rows_of_file, lines))

    def _without_kept(self, table: pa.Table) -> pa.Table:
        """Without the suspects that are kept."""
        is_kept = table["reason"].to_numpy() == SUSPECT
        domain, item = table["domain"].to_numpy(), table["item"].to_numpy()
        for number in np.unique(domain[is_kept]):
            rows = np.flatnonzero(is_kept & (domain == number))
            is_kept[rows] = self.warm_items[number][item[rows]]
        return table.filter(pa.array(~is_kept))


def open_dropped_rows(folders: Sequence[Path], warm_items: Sequence[Path]) -> DroppedRows:
    """The rows that the buckets in these folders dropped, with each domain's file of warm items."""
    tables = (DeduplicatedBucket(folder).dropped() for folder in folders)
    warm = tuple(load_array(path, mode="r") for path in warm_items)
    return DroppedRows(tuple(table for table in tables if table.num_rows), warm)


def rejected_rows(
    partitions: Mapping[str, LogPartition], dropped: DroppedRows, ids: tuple[Vocabulary, Vocabulary]
) -> Iterator[pa.Table]:
    """Every rejected row, under REJECTS, sorted by file and line; a range of a file's lines at a time.

    Args:
        partitions: by the name of the file, in order.
        dropped: the rows that buckets dropped.
        ids: of users and items.
    """
    short_ids = tuple(_short_ids(kind) for kind in ids)
    for number, (name, partition) in enumerate(partitions.items()):
        for lines in ranges(partition.last_line + 1, _LINES):
            for rows in _rows_of_lines(lines, number, partition.rejects(), dropped, short_ids):
                yield rows.add_column(0, "file", pa.repeat(name, rows.num_rows)).cast(REJECTS.file_schema)


def _short_ids(ids: Vocabulary) -> pa.StringArray:
    """Ids, cut to what the rejects show of them."""
    longest = pc.max(pc.binary_length(ids.ids)).as_py() or 0
    return shorten(ids.ids) if longest > TEXT_KEPT else ids.ids


def _rows_of_lines(
    lines: range, file: int, rejects: pa.Table, dropped: DroppedRows, ids: Sequence[pa.StringArray]
) -> Iterator[pa.Table]:
    """Rejects and dropped rows of some lines of a file, sorted by line; in several tables where their text is long."""
    rejected, dropped_rows = _between(rejects, lines), list(dropped.rows_of_lines(file, lines))
    lengths = [
        pc.sum(pc.binary_length(kind.take(rows[name]))).as_py() or 0
        for rows in dropped_rows
        for kind, name in zip(ids, ("user", "item"), strict=True)
    ]
    if rejected["text"].nbytes + sum(lengths) > _TEXT_BYTES and len(lines) > 1:
        middle = len(lines) // 2
        for half in (lines[:middle], lines[middle:]):
            yield from _rows_of_lines(half, file, rejects, dropped, ids)
    else:
        yield pa.concat_tables([rejected, *(_as_rejects(rows, ids) for rows in dropped_rows)]).sort_by("line")


def _between(table: pa.Table, lines: range) -> pa.Table:
    first, end = np.searchsorted(table["line"].to_numpy(), [lines.start, lines.stop])
    return table.slice(first, end - first)


def _as_rejects(rows: pa.Table, ids: Sequence[pa.StringArray]) -> pa.Table:
    """Dropped rows as rejects; their text is user id, tab, item id."""
    named = (kind.take(rows[name]) for kind, name in zip(ids, ("user", "item"), strict=True))
    text = shorten(pc.binary_join_element_wise(*named, "\t"))
    reason = pc.if_else(pc.equal(rows["reason"], LEAKED), "leaked", "cold")
    return pa.table({"line": rows["line"], "reason": reason, "text": text})
