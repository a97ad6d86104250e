"""Notices about logs that can be read and yet are odd: unread ratings, odd ids and times, domains alike, …"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.files import fold_name, show_name
from pipeline.compute.dtypes import Ints, Mask
from pipeline.ingest.partition import LogPartition
from pipeline.ingest.vocabulary import Vocabulary
from pipeline.logs.discovery import LogError, LogFile
from pipeline.logs.formats import read_log
from pipeline.logs.numbers import parse_ratings

log = logging.getLogger(__name__)

_SAMPLE_BYTES = 1 << 18
"""Text from the start of a log in which ratings are looked at."""

_SAMPLED_IDS = 10_000
"""Users, and as many items, in which swapped columns are looked for."""
_FEW, _MANY, _ALMOST = 0.01, 0.2, 0.9
_ENOUGH = 100
"""Rows from which on numbers of users and items tell something."""

_MISSING = ["nan", "NaN", "NaT", "<NA>", "NULL", "null", "(null)", "None", "\\N", "undefined"]
"""What data frames, databases and programs write for a missing value."""

_SINCE_1970, _YEAR_1980, _YEAR_2100 = 10**8, 315_532_800, 4_102_444_800
"""Seconds: smaller times may count from anything; two limits of times that events have."""

_SCIENTIFIC = r"^[0-9][.,]?[0-9]*[eE]\+[0-9]{2}$"
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


def say_what_is_odd(
    partitions: Mapping[str, LogPartition], sources: Sequence[str], domains: Sequence[str], ids: tuple[Path, Path]
) -> None:
    """Warn of odd times and ids, of columns that are no ids, of domains that look alike, and of swapped columns.

    Args:
        partitions: by the name of the file, in order.
        sources: path of each file's source.
        domains: all names.
        ids: folders of the vocabularies of users and items.
    """
    say_odd_times(partitions)
    say_odd_ids(ids)
    say_odd_counts(sum(sum(partition.rows.values()) for partition in partitions.values()), ids)
    say_similar_domains(domains)
    say_swapped_columns(sources, list(partitions.values()), ids)


def say_odd_ids(ids: tuple[Path, Path]) -> None:
    """Warn of ids that are what stands for a missing value, or mostly decimals, as data frames write integers then."""
    for kind, folder in zip(("user", "item"), ids, strict=True):
        texts = Vocabulary(folder).ids
        missing = texts.filter(pc.is_in(texts, pa.array(_MISSING)))
        if len(missing):
            log.warning(
                "%s is the id of %s %s; if that is a missing value, leave it empty, and the row is rejected",
                *(repr(missing[0].as_py()), "a" if kind == "user" else "an", kind),
            )
        rounded = texts.filter(pc.match_substring_regex(texts, _SCIENTIFIC))
        if len(rounded):
            log.warning(
                "%s %s ids are numbers that a spreadsheet has rounded, such as %s, so that several %ss may have become "
                "one; export them as text",
                *(f"{len(rounded):,}", kind, rounded[0].as_py(), kind),
            )
        padded = texts.filter(pc.not_equal(pc.utf8_trim_whitespace(texts), texts))
        if len(padded):
            log.warning(
                "%s %s ids begin or end with blanks, such as %r; in another log %r would be another %s; trim them",
                *(f"{len(padded):,}", kind, padded[0].as_py(), padded[0].as_py().strip(), kind),
            )
        formulas = texts.filter(pc.match_substring_regex(texts, '^=".*"$'))
        if len(formulas):
            log.warning(
                "%s %s ids are formulas of a spreadsheet, such as %s; in another log %s would be another %s",
                *(f"{len(formulas):,}", kind, formulas[0].as_py(), formulas[0].as_py()[2:-1], kind),
            )
        decimals = texts.filter(pc.match_substring_regex(texts, _WHOLE_DECIMAL))
        if len(decimals) > len(texts) / 2:
            example = decimals[0].as_py()
            log.warning(
                "%s ids are written as decimals, such as %s: in another log %s would be another %s; write them as "
                "integers",
                *(kind, example, example.removesuffix(".0"), kind),
            )


def say_odd_counts(rows: int, ids: tuple[Path, Path]) -> None:
    """Warn of columns that have a value for almost each row, as numbers of orders do, or the same in all."""
    for kind, folder in zip(("user", "item"), ids, strict=True):
        vocabulary = Vocabulary(folder)
        if rows >= _ENOUGH and len(vocabulary) > _ALMOST * rows:
            log.warning(
                "%s rows have %s different %ss, so almost nothing repeats; is columns.%s the number of an order, event "
                "or session?",
                *(f"{rows:,}", f"{len(vocabulary):,}", kind, kind),
            )
        if rows >= _ENOUGH and len(vocabulary) == 1:
            log.warning(
                "all %s rows have the %s %r; is columns.%s another column?",
                *(f"{rows:,}", kind, vocabulary.ids[0].as_py(), kind),
            )


def say_odd_times(partitions: Mapping[str, LogPartition]) -> None:
    """Warn of files with times before 1980 or after 2100: defaults for no time, or years of two digits."""
    for name, partition in partitions.items():
        if not partition.times:
            continue
        earliest, latest = (
            choose(times) for choose, times in zip((min, max), zip(*partition.times.values(), strict=True), strict=True)
        )
        per_second = _ticks_per_second(earliest) or _ticks_per_second(latest)
        per_second = per_second or (10**6 if earliest < 0 else 0)  # texts are in microseconds
        if per_second and (earliest < _YEAR_1980 * per_second or latest > _YEAR_2100 * per_second):
            log.warning(
                "times of %s go from %s to %s; if nothing happened then, correct the log or its timestamp_format (%%y "
                "reads years of two digits)",
                *(name, _day(earliest // per_second), _day(latest // per_second)),
            )


def _ticks_per_second(time: int) -> int:
    """The unit of a time between 1973 and the year 5138; 0 if there is none in which it is."""
    return next((unit for unit in (1, 10**3, 10**6, 10**9) if 1 <= time // (_SINCE_1970 * unit) < 1000), 0)


def _day(seconds: int) -> str:
    """The day of a time since 1970; the seconds where it is in no year of the calendar."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).date().isoformat()
    except OverflowError:
        return f"{seconds} s since 1970"


def say_similar_domains(domains: Sequence[str]) -> None:
    """Warn of domains whose names differ only in case, blanks, or how letters are composed: likely one domain."""
    alike: dict[str, list[str]] = {}
    for domain in domains:
        alike.setdefault(fold_name(domain), []).append(domain)
    groups = [" and ".join(map(show_name, names)) for names in alike.values() if len(names) > 1]
    if groups:
        log.warning(
            "domains whose names differ only in case, blanks or composed letters are domains of their own: %s; write "
            "them alike in the logs if they are one",
            "; ".join(groups),
        )


def say_swapped_columns(sources: Sequence[str], partitions: Sequence[LogPartition], ids: tuple[Path, Path]) -> None:
    """Warn of sources that have no users in common with others, but users that are items there, or the reverse.

    Where users and items of a source have the same ids, as if both are numbered from 1, nothing can be told.

    Args:
        sources: path of each file's source.
        partitions: of the files.
        ids: folders of the vocabularies of users and items.
    """
    if len(set(sources)) < 2:
        return
    is_user, is_item = _sample_by_source(sources, partitions, tuple(map(Vocabulary, ids)))
    if ((is_user & is_item).sum(axis=1) >= _MANY * np.maximum(is_user.sum(axis=1), 1)).any():
        return
    swapped = []
    for number, path in enumerate(dict.fromkeys(sources)):
        users, items = is_user[number], is_item[number]
        other_users, other_items = (np.delete(each, number, axis=0).any(axis=0) for each in (is_user, is_item))
        is_apart = (users & other_users).sum() < _FEW * users.sum()
        is_crossed = (users & other_items).sum() >= _MANY * max(users.sum(), 1)
        is_crossed |= (items & other_users).sum() >= _MANY * max(items.sum(), 1)
        if is_apart and is_crossed:
            swapped.append(repr(path))
    if swapped:
        log.warning(
            "log source %s: no users in common with the other sources, but what is a user in one is an item in the "
            "other: are columns.user and columns.item swapped?",
            ", ".join(swapped),
        )


def _sample_by_source(
    sources: Sequence[str], partitions: Sequence[LogPartition], vocabularies: Sequence[Vocabulary]
) -> tuple[Mask, Mask]:
    """bool [sources, sampled ids], whether an id is a user, and an item, of a source; in their order."""
    steps = (max(len(vocabulary) // _SAMPLED_IDS, 1) for vocabulary in vocabularies)
    ranks = (np.arange(0, len(each), step) for each, step in zip(vocabularies, steps, strict=True))
    texts = [each.ids.take(pa.array(chosen)) for each, chosen in zip(vocabularies, ranks, strict=True)]
    sample = pc.unique(pa.concat_arrays(texts))
    numbers = {path: number for number, path in enumerate(dict.fromkeys(sources))}
    occurs = []
    for vocabulary in vocabularies:
        index: Ints = pc.index_in(vocabulary.ids, sample).fill_null(-1).to_numpy()
        mask, run = np.zeros((len(numbers), len(sample)), dtype=bool), 0
        for path, partition in zip(sources, partitions, strict=True):
            for _ in partition.domains:
                sampled = index[vocabulary.ranks_of_run(run)]
                mask[numbers[path], sampled[sampled >= 0]] = True
                run += 1
        occurs.append(mask)
    return occurs[0], occurs[1]
