"""Adapters of MovieLens 100k, 1M and 32M as published, with genres as domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.logs.cleaning import RejectCollector
from pipeline.logs.records import Records
from pipeline.published.blocks import AdaptedBlock, adapt_block, is_missing, read_csv, read_separated


def build_adapter(films: Callable[[Path], Iterator[Films]], ratings: str) -> Callable[[Path], Iterator[AdaptedBlock]]:
    """An adapter that repeats each rating for each genre of its film.

    Args:
        films: reader of the table of films.
        ratings: name of the file of ratings.
    """

    def adapt(folder: Path) -> Iterator[AdaptedBlock]:
        genres: dict[str, list[str]] = {}
        for path, records, genres_of_block in films(folder):
            genres |= genres_of_block
            yield adapt_block(path, records, RejectCollector(len(records.lines)), None)
        film_ids, genres_of_film = pa.array(genres, pa.string()), pa.array(genres.values(), pa.list_(pa.string()))
        path = folder / ratings
        for records in _RATING_READERS[path.suffix](path):
            yield _adapt_ratings(path, records, film_ids, genres_of_film)

    return adapt


def _adapt_ratings(path: Path, records: Records, films: pa.Array, genres: pa.Array) -> AdaptedBlock:
    fields = records.fields
    genres_of_row = genres.take(pc.index_in(fields["item"], value_set=films))
    rejects = RejectCollector(len(records.lines))
    rejects.reject("missing", is_missing(fields, *fields), None)
    rejects.reject("unknown", pc.is_null(genres_of_row), fields["item"])
    rows = [genres_of_row, *(fields[name] for name in ("user", "item", "rating", "timestamp"))]
    return adapt_block(path, records, rejects, pa.table(rows, ["genre", "user_id", "item_id", "rating", "timestamp"]))


_COLUMNS = {"user": 0, "item": 1, "rating": 2, "timestamp": 3}
_RATING_READERS: Mapping[str, Callable[[Path], Iterator[Records]]] = {
    ".data": lambda path: read_csv(path, _COLUMNS),
    ".dat": lambda path: read_separated(path, "::", _COLUMNS, 4),
    ".csv": lambda path: read_csv(
        path, {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"}
    ),
}


Films = tuple[Path, Records, dict[str, list[str]]]
"""A block of a table of films: its file, its records, film → genres."""


def read_films_100k(folder: Path) -> Iterator[Films]:
    """Reader of a table with a flag for each genre; the genres' names are in u.genre."""
    blocks = read_separated(folder / "u.genre", "|", {"name": 0, "number": 1}, 2)
    names = {int(number): name for records in blocks for name, number in _values(records)}
    flags = {name: 5 + number for number, name in names.items()}
    path = folder / "u.item"
    for records in read_separated(path, "|", {"item": 0, **flags}, 5 + len(flags)):
        genres = {
            item: [name for name, flag in zip(flags, values, strict=True) if flag == "1"]
            for item, *values in _values(records)
        }
        yield path, records, genres


def read_films_1m(folder: Path) -> Iterator[Films]:
    """Reader of a table with a list of genres for each film."""
    path = folder / "movies.dat"
    yield from _split_genres(path, read_separated(path, "::", {"item": 0, "genres": 2}, 3))


def read_films_32m(folder: Path) -> Iterator[Films]:
    """Reader of a CSV table with a list of genres for each film."""
    path = folder / "movies.csv"
    yield from _split_genres(path, read_csv(path, {"item": "movieId", "genres": "genres"}))


def _split_genres(path: Path, blocks: Iterable[Records]) -> Iterator[Films]:
    for records in blocks:
        yield path, records, {item: genres.split("|") for item, genres in _values(records)}


def _values(records: Records) -> Iterator[tuple[str, ...]]:
    return zip(*(values.to_pylist() for values in records.fields.values()), strict=True)
