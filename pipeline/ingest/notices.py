"""Notices about logs that can be read and yet are odd: ratings that nothing reads, ids that are written as decimals."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ingest.vocabulary import Vocabulary
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import read_log
from pipeline.logs.numbers import parse_ratings

log = logging.getLogger(__name__)

_SAMPLE_BYTES = 1 << 18
"""Text from the start of a log in which ratings are looked at."""

_WHOLE_DECIMAL = r"^[0-9]+\.0$"


def say_unused_ratings(logs: Iterable[LogFile]) -> None:
    """Warn of sources that name a column of ratings which nothing reads, with the ratings of the first rows."""
    first_of_source = {file.source.path: file for file in reversed(list(logs))}
    for file in reversed(first_of_source.values()):
        column = file.source.columns.rating
        if column is not None and file.source.rating_at_least is None:
            log.warning(
                "%s: columns.rating is %r and is not used, so every row is a positive%s; set rating_at_least, or "
                "remove columns.rating",
                *(file.name, column, _describe_ratings(file, column)),
            )


def _describe_ratings(file: LogFile, column: str | int) -> str:
    """The range of the first ratings and the share of those that are not positive; "" where there are none."""
    try:
        blocks = [records.fields["rating"] for records in islice(read_log(file, {"rating": column}, _SAMPLE_BYTES), 1)]
    except LogError:
        return ""
    ratings = parse_ratings(pa.concat_arrays([pa.array([], pa.string()), *blocks])).drop_null()
    if not len(ratings):
        return ""
    low, high = pc.min_max(ratings).as_py().values()
    share = pc.mean(pc.less_equal(ratings, 0.0)).as_py()
    return f": of the first {len(ratings):,} ratings, which are {low:g} to {high:g}, {share:.0%} are 0 or less"


def say_odd_ids(ids: tuple[Path, Path]) -> None:
    """Warn of what data frames write for integers beside missing values: ids that are mostly decimals, and `nan`."""
    for kind, folder in zip(("user", "item"), ids, strict=True):
        texts = Vocabulary(folder).ids
        missing = texts.filter(pc.is_in(texts, pa.array(["nan", "NaN"])))
        if len(missing):
            log.warning(
                "%s is the id of %s %s; if that is a missing value, leave it empty, and the row is rejected",
                *(repr(missing[0].as_py()), "a" if kind == "user" else "an", kind),
            )
        decimals = texts.filter(pc.match_substring_regex(texts, _WHOLE_DECIMAL))
        if len(decimals) > len(texts) / 2:
            example = decimals[0].as_py()
            log.warning(
                "%s ids are written as decimals, such as %s: in another log %s would be another %s; write them as "
                "integers",
                *(kind, example, example.removesuffix(".0"), kind),
            )
