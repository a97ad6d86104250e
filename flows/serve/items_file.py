"""The items file: titles, pictures and further columns of items, by the ids of the logs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_contracts.store.files import one_line
from model.serving.catalogue import find_numbers
from model.sparse.rows import Longs

log = logging.getLogger(__name__)

_IDS, _TITLES, _PICTURES = ("id", "item_id", "item"), ("title", "name"), ("picture", "image")
"""Names of the columns with a meaning, the first that there is."""
PICTURE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
}
"""Ending of a picture's file → its media type. Not SVG, which may hold scripts."""


@dataclass(frozen=True)
class ItemDetails:
    """What the items file says of an item."""

    title: str | None
    has_picture: bool
    columns: dict[str, str]


class ItemsFile:
    """Titles, pictures and other columns of items; of rows with the same id the first counts.

    Args:
        path: CSV, TSV or Parquet with a header; CSV and TSV may end in .gz. Pictures are files beside it or below.

    Raises:
        ValueError: it is of no known kind, damaged, or has no column of ids.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        table = _read(path)
        self._id = _first_of(table, _IDS)
        if self._id is None:
            found = ", ".join(map(repr, table.column_names[:20]))
            raise ValueError(f"{path}: no column of ids, must be one of {', '.join(_IDS)}; its columns are {found}")
        if unnamed := pc.sum(pc.equal(table[self._id], "")).as_py() or 0:
            log.warning("%s: %s rows have no id and are left out", path, f"{unnamed:,}")
            table = table.filter(pc.not_equal(table[self._id], ""))
        self._path, self._table = path, table
        self._ids = table[self._id].combine_chunks()
        self._title, self._picture = _first_of(table, _TITLES), _first_of(table, _PICTURES)
        self.columns = [name for name in table.column_names if name not in (self._id, self._picture)]
        """Columns to filter by."""
        if doubles := len(self._ids) - pc.count_distinct(self._ids).as_py():
            log.warning("%s: %s ids are there again, the first row of each counts", path, f"{doubles:,}")

    @property
    def ids(self) -> list[str]:
        """Of all rows."""
        ids: list[str] = self._ids.to_pylist()
        return ids

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _order(self) -> Longs:
        order: Longs = pc.sort_indices(self._ids).to_numpy().astype(np.int64)
        return order

    def rows(self, ids: pa.LargeStringArray) -> Longs:
        """The row of each id, int64; -1 for those that the file does not have."""
        rows: Longs = pc.index_in(ids, self._ids).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return rows

    def has_value(self, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each row has one of the values in one of the file's `columns`, bool (rows)."""
        wanted = pc.is_in(self._table[column].combine_chunks(), pa.array(values, pa.large_string()))
        has_value: NDArray[np.bool_] = wanted.to_numpy(zero_copy_only=False)
        return has_value

    def details(self, items: Sequence[str]) -> dict[str, ItemDetails]:
        """What the file says of items, without those that it does not have."""
        rows = zip(items, find_numbers(self._ids, self._order, items).tolist(), strict=True)
        return {item: self._details(row) for item, row in rows if row >= 0}

    def _details(self, row: int) -> ItemDetails:
        value = {name: self._table[name][row].as_py() or "" for name in (*self.columns, self._picture) if name}
        others = {name: value[name] for name in self.columns if name != self._title and value[name]}
        title = value.get(self._title or "") or None
        return ItemDetails(title, self._picture_path(value.get(self._picture or "", "")) is not None, others)

    def titled(self, words: str, most: int) -> list[str]:
        """Ids of items whose title contains some words, in whichever case; at most so many, in the file's order."""
        if self._title is None:
            return []
        matches = pc.match_substring(self._table[self._title].combine_chunks(), words, ignore_case=True)
        found: list[str] = self._ids.filter(matches)[:most].to_pylist()
        return found

    def picture(self, item: str) -> Path | None:
        """The file of an item's picture, which lies beside the items file or below; None if it has none."""
        (row,) = find_numbers(self._ids, self._order, [item]).tolist()
        if row < 0 or self._picture is None:
            return None
        path = self._picture_path(self._table[self._picture][row].as_py() or "")
        return path if path is not None and path.is_file() else None

    def _picture_path(self, name: str) -> Path | None:
        if not name or "\0" in name or "://" in name or Path(name).suffix.lower() not in PICTURE_TYPES:
            return None
        folder = self._path.absolute().parent.resolve()
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder) else None


def _read(path: Path) -> pa.Table:
    """All columns as text."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is a device or a pipe" if path.exists() else "is not there"
        raise FileNotFoundError(f"{path} {found}, must be a CSV, TSV or Parquet file")
    try:
        if ending == ".parquet":
            table = pq.read_table(path)
            columns = [pc.fill_null(column.cast(pa.large_string()), "") for column in table.columns]
            return pa.table(columns, table.column_names)
        if ending not in (".csv", ".tsv"):
            raise ValueError(f"{path} ends in {ending!r}, must end in .csv, .tsv or .parquet")
        return _read_delimited(path, "\t" if ending == ".tsv" else ",")
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}; correct it, or copy it again") from error


def _read_delimited(path: Path, delimiter: str) -> pa.Table:
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: the header has a column twice, must name each once")
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string()))
    return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)


def _first_of(table: pa.Table, names: Sequence[str]) -> str | None:
    """The table's column with one of the names, in whichever case."""
    by_name = {column.strip().lower(): column for column in reversed(table.column_names)}
    return next((by_name[name] for name in names if name in by_name), None)
