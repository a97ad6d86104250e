"""Rejected rows of a file: what could not be read or used, and what the buckets dropped, by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import REJECTS
from pipeline.compute.fan_out import ranges
from pipeline.compute.scratch import load_array
from pipeline.ingest.deduplicate import LEAKED, SUSPECT, SiftedBucket
from pipeline.ingest.partition import Piece
from pipeline.ingest.vocabulary import NumberedIds

_LINES = 1 << 20
"""Lines of a file whose rejects are held at a time."""


@dataclass(frozen=True)
class Dropped:
    """What the buckets dropped.

    Attributes:
        tables: of buckets that dropped or suspect anything, as `SiftedBucket.dropped`.
        warm_items: of each domain, bool [items], by rank: suspects of these items were kept after all.
    """

    tables: tuple[pa.Table, ...]
    warm_items: tuple[npt.NDArray[np.bool_], ...]

    def reasons(self) -> list[dict[str, int]]:
        """Of each domain the raw rows dropped as leaked and as cold."""
        counts = np.zeros((len(self.warm_items), 2), np.int64)
        for table in self.tables:
            settled = self._settled(table)
            place = 2 * settled["domain"].to_numpy() + (settled["reason"].to_numpy() != LEAKED)
            counts += np.bincount(place, minlength=counts.size).reshape(counts.shape)
        return [{"leaked": leaked, "cold": cold} for leaked, cold in counts.tolist()]

    def of_lines(self, file: int, lines: range) -> Iterator[pa.Table]:
        """Dropped rows of some lines of a file."""
        for table in self.tables:
            first, end = np.searchsorted(table["file"].to_numpy(), [file, file + 1])
            of_file = table.slice(first, end - first)
            yield self._settled(_between(of_file, lines))

    def _settled(self, table: pa.Table) -> pa.Table:
        """Without the suspects that were kept."""
        kept = table["reason"].to_numpy() == SUSPECT
        domain, item = table["domain"].to_numpy(), table["item"].to_numpy()
        for number in np.unique(domain[kept]):
            rows = np.flatnonzero(kept & (domain == number))
            kept[rows] = self.warm_items[number][item[rows]]
        return table.filter(pa.array(~kept))


def dropped(folders: Sequence[Path], warm_items: Sequence[Path]) -> Dropped:
    """What the sifted buckets in these folders dropped, settled by each domain's file of warm items."""
    tables = (SiftedBucket(folder).dropped() for folder in folders)
    warm = tuple(load_array(path, mode="r") for path in warm_items)
    return Dropped(tuple(table for table in tables if table.num_rows), warm)


def rejected_rows(
    pieces: Mapping[str, Piece], dropped_rows: Dropped, ids: tuple[NumberedIds, NumberedIds]
) -> Iterator[pa.Table]:
    """Every rejected row, under REJECTS, sorted by file and line; a stretch of a file's lines at a time.

    Args:
        pieces: the pieces of each file, by its name, in order.
        dropped_rows: what the buckets dropped.
        ids: of users and items.
    """
    for number, (name, piece) in enumerate(pieces.items()):
        for lines in ranges(piece.last_line + 1, _LINES):
            found = [_between(piece.rejects(), lines)]
            found += [_as_rejects(rows, ids) for rows in dropped_rows.of_lines(number, lines)]
            rows = pa.concat_tables(found).sort_by("line")
            yield rows.add_column(0, "file", pa.repeat(name, rows.num_rows)).cast(REJECTS.file_schema)


def _between(table: pa.Table, lines: range) -> pa.Table:
    first, end = np.searchsorted(table["line"].to_numpy(), [lines.start, lines.stop])
    return table.slice(first, end - first)


def _as_rejects(rows: pa.Table, ids: tuple[NumberedIds, NumberedIds]) -> pa.Table:
    """Their text is user id, tab, item id."""
    named = (kind.ids.take(rows[column]) for kind, column in zip(ids, ("user", "item"), strict=True))
    text = pc.binary_join_element_wise(*named, "\t")
    return pa.table({"line": rows["line"], "reason": _reasons(rows), "text": text})


def _reasons(rows: pa.Table) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(rows["reason"], LEAKED), "leaked", "cold")
