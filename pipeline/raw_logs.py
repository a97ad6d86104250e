"""Adapters: published logs that `[[logs]]` cannot read as they are, made Parquet logs that it can.

Each goes through its files block by block. Lines that are no record, or that name what another file should know and
does not, are kept with file, line and reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.progress import Progress, silent
from pipeline.cleaning import Sorter
from pipeline.logs import LogError
from pipeline.raw_files import GroupWriter, Part, clicked_of, delimited, is_missing, part_of, separated
from pipeline.records import Records
from pipeline.scratch import made

LOGS, REJECTS = "logs.parquet", "rejects.parquet"
"""Files of a converted folder: the log, all columns text; what was rejected (file, line, reason, text)."""

_CATEGORIES = 16


class Converted(NamedTuple):
    """What a conversion left: the folder, rows of the log, rejected lines by reason."""

    folder: Path
    rows: int
    rejects: Mapping[str, int]


def convert(adapter: str, folder: Path, progress: Progress = silent) -> Converted:
    """Convert published files to `converted/logs.parquet` and `converted/rejects.parquet`; done before, it is kept.

    Args:
        adapter: one of ADAPTERS.
        folder: where the published files lie.
        progress: is told the lines read.

    Raises:
        FileNotFoundError: a published file is missing.
        LogError: a file is another than expected, empty or damaged.
    """

    def write(target: Path) -> None:
        lines = 0
        with GroupWriter(target / LOGS) as logs, GroupWriter(target / REJECTS) as rejects:
            for part in ADAPTERS[adapter](folder):
                if part.rows is not None:
                    logs.write(part.rows)
                rejects.write(part.rejects.add_column(0, "file", pa.repeat(part.file, part.rejects.num_rows)))
                lines += part.lines
                progress(lines, 0, "lines")
        if not (target / LOGS).exists():
            raise LogError(f"{folder}: the file that should become the log is empty; fetch it again")

    converted = made(folder / "converted", write)
    reasons: Counter[str] = Counter()
    for batch in pq.ParquetFile(converted / REJECTS).iter_batches(columns=["reason"]):
        reasons.update(batch.column(0).to_pylist())
    return Converted(converted, pq.read_metadata(converted / LOGS).num_rows, dict(sorted(reasons.items())))


def _ali_ccp(folder: Path) -> Iterator[Part]:
    """Clicks; a line's session leads to its user in the common features, its own features to item and scenario."""
    for split in ("train", "test"):
        path = folder / f"common_features_{split}.csv"
        sessions, users = [], []
        for records in delimited(path, {"session": 0, "features": 2}):
            fields = {**records.fields, "user": _feature(records.fields["features"], 101)}
            sorter = Sorter(len(records.lines))
            sorter.reject("missing", is_missing(fields, "session", "user"), fields["features"])
            good = sorter.of_good(pa.table([fields["session"], fields["user"]], ["session", "user"]))
            sessions += good["session"].chunks
            users += good["user"].chunks
            yield part_of(path, records, sorter, None)
        known, names = pa.chunked_array(sessions, pa.string()), pa.chunked_array(users, pa.string())
        path = folder / f"sample_skeleton_{split}.csv"
        for records in delimited(path, {"click": 1, "session": 3, "features": 5}):
            yield _ali_ccp_clicks(path, records, known, names)


def _ali_ccp_clicks(path: Path, records: Records, sessions: pa.ChunkedArray, users: pa.ChunkedArray) -> Part:
    clicked = clicked_of(records)
    fields = clicked.fields
    features = fields["features"]
    item, scenario = _feature(features, 205), _feature(features, 301)
    user = users.take(pc.index_in(fields["session"], value_set=sessions))
    sorter = Sorter(len(clicked.lines))
    sorter.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
    sorter.reject("missing", is_missing({"item": item, "scenario": scenario}, "item", "scenario"), features)
    sorter.reject("unknown", pc.is_null(user.combine_chunks()), fields["session"])
    rows = pa.table([user, item, scenario], ["user_id", "item_id", "scenario"])
    return part_of(path, clicked, sorter, rows, len(records.lines))


def _feature(features: pa.Array, field: int) -> pa.Array:
    """The id of a line's feature of a field; features stand as field, \\x02, id, \\x03, value, with \\x01 between."""
    found = pc.extract_regex(features, rf"(?:^|\x01){field}\x02(?P<id>[^\x01-\x03]+)\x03")
    return pc.struct_field(found, "id")


def _taobao_ad(folder: Path) -> Iterator[Part]:
    """Clicks with the ad's product category: the largest by clicks, else `other`."""
    path = folder / "ad_feature.csv"
    ads, categories = [], []
    for records in delimited(path, {"item": "adgroup_id", "category": "cate_id"}):
        ads.append(records.fields["item"])
        categories.append(records.fields["category"])
        yield part_of(path, records, Sorter(len(records.lines)), None)
    known, of_ad = pa.chunked_array(ads, pa.string()), pa.chunked_array(categories, pa.string())
    path = folder / "raw_sample.csv"
    largest = _largest(path, known, of_ad)
    columns = {"user": "user", "item": "adgroup_id", "pid": "pid", "timestamp": "time_stamp", "click": "clk"}
    for records in delimited(path, columns):
        clicked = clicked_of(records)
        fields = clicked.fields
        category = of_ad.take(pc.index_in(fields["item"], value_set=known)).combine_chunks()
        sorter = Sorter(len(clicked.lines))
        sorter.reject("number", pc.not_equal(fields["click"], "1"), fields["click"])
        sorter.reject("missing", is_missing(fields, "user", "item", "pid", "timestamp"), None)
        sorter.reject("unknown", pc.is_null(category), fields["item"])
        category = pc.if_else(pc.is_in(category, value_set=largest), category, "other")
        rows = pa.table(
            [fields["user"], fields["item"], fields["pid"], category, fields["timestamp"]],
            ["user_id", "item_id", "pid", "category", "timestamp"],
        )
        yield part_of(path, clicked, sorter, rows, len(records.lines))


def _largest(path: Path, ads: pa.ChunkedArray, categories: pa.ChunkedArray) -> pa.Array:
    clicks: Counter[str] = Counter()
    for records in delimited(path, {"item": "adgroup_id", "click": "clk"}):
        items = records.fields["item"].filter(pc.equal(records.fields["click"], "1"))
        found = categories.take(pc.index_in(items, value_set=ads)).drop_null()
        clicks.update({count["values"]: count["counts"] for count in found.value_counts().to_pylist()})
    return pa.array(sorted(clicks, key=lambda category: (-clicks[category], category))[:_CATEGORIES], pa.string())


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


ADAPTERS: Mapping[str, Callable[[Path], Iterator[Part]]] = {
    "ali-ccp": _ali_ccp,
    "taobao-ad": _taobao_ad,
    "ml-100k": _movielens(_films_100k, "u.data"),
    "ml-1m": _movielens(_films_1m, "ratings.dat"),
    "ml-32m": _movielens(_films_32m, "ratings.csv"),
}
"""By the data set's name, the parts of its files."""
