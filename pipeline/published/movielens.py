"""MovieLens 100k, 1M and 32M, as published, made logs with genres as domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logs.cleaning import Sorter
from pipeline.logs.records import Records
from pipeline.published.blocks import Part, delimited, is_missing, part_of, separated


def _movielens(films: Callable[[Path], Iterator[Films]], ratings: str) -> Callable[[Path], Iterator[Part]]:
    """Ratings, once for each genre of the film."""

    def parts(folder: Path) -> Iterator[Part]:
        genres: dict[str, list[str]] = {}
        for path, records, found in films(folder):
            genres |= found
            yield part_of(path, records, Sorter(len(records.lines)), None)
        known, of_film = pa.array(genres, pa.string()), pa.array(genres.values(), pa.list_(pa.string()))
        path = folder / ratings
        for records in _RATINGS[path.suffix](path):
            yield _ratings(path, records, known, of_film)

    return parts


def _ratings(path: Path, records: Records, films: pa.Array, genres: pa.Array) -> Part:
    fields = records.fields
    found = genres.take(pc.index_in(fields["item"], value_set=films))
    sorter = Sorter(len(records.lines))
    sorter.reject("missing", is_missing(fields, *fields), None)
    sorter.reject("unknown", pc.is_null(found), fields["item"])
    rows = [found, *(fields[name] for name in ("user", "item", "rating", "timestamp"))]
    return part_of(path, records, sorter, pa.table(rows, ["genre", "user_id", "item_id", "rating", "timestamp"]))


_RATED = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
_RATINGS: Mapping[str, Callable[[Path], Iterator[Records]]] = {
    ".data": lambda path: delimited(path, _RATED),
    ".dat": lambda path: separated(path, "::", _RATED, 4),
    ".csv": lambda path: delimited(
        path, {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}
    ),
}  # fmt: skip


Films = tuple[Path, Records, dict[str, list[str]]]
"""A block of a table of films: its file, its records, film → genres."""


def _films_100k(folder: Path) -> Iterator[Films]:
    """A flag for each genre, whose names are in u.genre."""
    names = {int(number): name for records in separated(folder / "u.genre", "|", {"name": 0, "number": 1}, 2)
             for name, number in _values(records)}  # fmt: skip
    flags = {name: 5 + number for number, name in names.items()}
    path = folder / "u.item"
    for records in separated(path, "|", {"item": 0, **flags}, 5 + len(flags)):
        yield (
            path,
            records,
            {
                item: [name for name, flag in zip(flags, has, strict=True) if flag == "1"]
                for item, *has in _values(records)
            },
        )


def _films_1m(folder: Path) -> Iterator[Films]:
    path = folder / "movies.dat"
    yield from _split_genres(path, separated(path, "::", {"item": 0, "genres": 2}, 3))


def _films_32m(folder: Path) -> Iterator[Films]:
    path = folder / "movies.csv"
    yield from _split_genres(path, delimited(path, {"item": "movieId", "genres": "genres"}))


def _split_genres(path: Path, blocks: Iterable[Records]) -> Iterator[Films]:
    for records in blocks:
        yield path, records, {item: genres.split("|") for item, genres in _values(records)}


def _values(records: Records) -> Iterator[tuple[str, ...]]:
    return zip(*(values.to_pylist() for values in records.fields.values()), strict=True)
