"""Notices about logs that can be read and yet are odd: unread ratings, odd ids, domains alike, swapped columns."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
_FEW, _MANY = 0.01, 0.2

_MISSING = ["nan", "NaN", "NaT", "<NA>", "NULL", "null", "(null)", "None", "\\N", "undefined"]
"""What data frames, databases and programs write for a missing value."""

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
    """Warn of ids that are what stands for a missing value, or mostly decimals, as data frames write integers then."""
    for kind, folder in zip(("user", "item"), ids, strict=True):
        texts = Vocabulary(folder).ids
        missing = texts.filter(pc.is_in(texts, pa.array(_MISSING)))
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


def say_similar_domains(domains: Sequence[str]) -> None:
    """Warn of domains whose names differ only in case, blanks, or how letters are composed: likely one domain."""
    alike: dict[str, list[str]] = {}
    for domain in domains:
        alike.setdefault("".join(unicodedata.normalize("NFKC", domain).casefold().split()), []).append(domain)
    groups = [
        " and ".join(map(repr if all(unicodedata.is_normalized("NFC", name) for name in names) else ascii, names))
        for names in alike.values()
        if len(names) > 1
    ]
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
