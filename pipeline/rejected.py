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
from pipeline.fanout import ranges
from pipeline.numbering import NumberedIds
from pipeline.pieces import Piece
from pipeline.scratch import mapped_table
from pipeline.sifting import LEAKED, SUSPECT
from pipeline.spill import load_array

_LINES = 1 << 20
"""Lines of a file whose rejects are held at a time."""


@dataclass(frozen=True)
class Dropped:
    """What the buckets of a domain dropped.

    Attributes:
        tables: DROPPED_SCHEMA, one per bucket.
        warm_items: bool [items], by rank: suspects of these items were kept after all.
    """

    tables: tuple[pa.Table, ...]
    warm_items: npt.NDArray[np.bool_]

    def reasons(self) -> dict[str, int]:
        """Raw rows dropped as leaked and as cold."""
        counts = {"leaked": 0, "cold": 0}
        for table in self.tables:
            reason = _reasons(self._settled(table))
            counts["leaked"] += int(pc.sum(pc.equal(reason, "leaked")).as_py() or 0)
            counts["cold"] += int(pc.sum(pc.equal(reason, "cold")).as_py() or 0)
        return counts

    def of_lines(self, file: int, lines: range) -> Iterator[pa.Table]:
        """Dropped rows of some lines of a file."""
        for table in self.tables:
            first, end = np.searchsorted(table["file"].to_numpy(), [file, file + 1])
            of_file = table.slice(first, end - first)
            yield self._settled(_between(of_file, lines))

    def _settled(self, table: pa.Table) -> pa.Table:
        is_suspect = table["reason"].to_numpy() == SUSPECT
        return table.filter(pa.array(~(is_suspect & self.warm_items[table["item"].to_numpy()])))


def dropped(folders: Sequence[Path], warm_items: Path) -> Dropped:
    """What the buckets in these folders dropped; buckets that dropped nothing are left out."""
    tables = (mapped_table(folder / "dropped.arrow") for folder in folders)
    return Dropped(tuple(table for table in tables if table.num_rows), load_array(warm_items, mode="r"))


def rejected_rows(
    pieces: Mapping[str, Piece], domains: Sequence[Dropped], ids: tuple[NumberedIds, NumberedIds]
) -> Iterator[pa.Table]:
    """Every rejected row, under REJECTS, sorted by file and line; a stretch of a file's lines at a time.

    Args:
        pieces: the pieces of each file, by its name, in order.
        domains: what their buckets dropped.
        ids: of users and items.
    """
    for number, (name, piece) in enumerate(pieces.items()):
        for lines in ranges(piece.last_line + 1, _LINES):
            found = [_between(piece.rejects(), lines)]
            found += [_as_rejects(rows, ids) for domain in domains for rows in domain.of_lines(number, lines)]
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
