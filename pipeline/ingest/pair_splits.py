"""Splits of pairs: a pair of a user and an item is trained or held out, in all domains in which it occurs.

The graph of all domains together shows a train row of one domain to the models of the others. So under the clean
protocol no pair that is held out in one domain is a train row of another, or for validation in one and for test in
another.

random           the pair is drawn in its home, the domain in which its user has the fewest pairs, and has that split
                 in all its domains. So the shares of every user and home are exact, and those of other domains close.
leave-last-out   the pair has the earliest of the splits that it has in its domains: it is held out if all hold it out.
given, time      rows keep their splits; held-out rows of a pair that an earlier split has, anywhere, are leaked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from data_contracts.contracts import SPLITS
from data_contracts.settings.ingest import IngestSettings, SplitSettings
from pipeline.compute.dtypes import Ints, Longs, Mask
from pipeline.ingest.splits import TRAIN_CODE, Codes, PairsOfUsers, assign_splits
from pipeline.ingest.vocabulary import Vocabulary

_UNDECIDED = np.int8(127)
_T = TypeVar("_T", bound=np.integer[Any])


@dataclass(frozen=True)
class DistinctPairs:
    """All distinct rows of some users, sorted by domain, user, item and split.

    Attributes:
        domain: index into `names`.
        user, item: ranks among `users` and `items`.
        split: index into SPLITS, as given by the logs; that of train where they give none.
        timestamp: earliest time of the row.
        is_trained: in an update, whether the pair was trained on before: then it stays in training.
        names: the domains' names, sorted.
        users, items: the vocabularies.
    """

    domain: Ints
    user: Longs
    item: Longs
    split: Codes
    timestamp: Longs
    is_trained: Mask
    names: tuple[str, ...]
    users: Vocabulary
    items: Vocabulary

    def by_user(self) -> tuple[Longs, Longs]:
        """The first row of each user and domain, and the number of their rows."""
        starts = np.flatnonzero((np.diff(self.user, prepend=-1) != 0) | (np.diff(self.domain, prepend=-1) != 0))
        return starts, np.diff(starts, append=len(self.user))

    def by_domain(self) -> list[slice]:
        """The rows of each domain."""
        bounds = np.searchsorted(self.domain, np.arange(len(self.names) + 1, dtype=np.int32)).tolist()
        return [slice(first, end) for first, end in pairwise(bounds)]


@dataclass(frozen=True)
class PairSplits:
    """The splits of distinct pairs.

    Attributes:
        split: index into SPLITS, by row.
        is_leaked: rows to be dropped, because an earlier split has their pair.
        shared_pairs: int64 [splits], pairs that occur in several domains.
        tied_users: int64 [2], as from `count_tied_users`; zeros unless the method is leave-last-out.
    """

    split: Codes
    is_leaked: Mask
    shared_pairs: Longs
    tied_users: Longs


def split_pairs(rows: DistinctPairs, settings: IngestSettings) -> PairSplits:
    """Give every row its split."""
    method, pairs = settings.split.method, _PairIndex(rows)
    is_leaked = np.zeros(len(rows.user), dtype=bool)
    if method == "random" and settings.protocol == "clean":
        split = pairs.minimum(_split_at_home(rows, pairs, settings.split))
    elif method == "given":
        split = rows.split
    else:
        split = _split_by_domain(rows, settings.split)
    if settings.protocol == "clean":
        earliest = pairs.minimum(np.where(rows.is_trained, np.int8(TRAIN_CODE), split))
        if method == "leave-last-out":
            split = earliest
        is_leaked = split > earliest
    tied_users = count_tied_users(rows) if method == "leave-last-out" else np.zeros(2, np.int64)
    return PairSplits(split, is_leaked, pairs.count_shared(split, rows.domain), tied_users)


def count_tied_users(rows: DistinctPairs) -> Longs:
    """int64 [2], users with three or more pairs in a domain, and those whose times do not tell which are the last two.

    That is so where two of the last three have the same time. Users are counted in each of their domains.
    """
    starts, sizes = rows.by_user()
    time = rows.timestamp[np.lexsort((rows.timestamp, np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)))]
    last = (starts + sizes - 1)[sizes >= 3]
    is_tied = (time[last] == time[last - 1]) | (time[last - 1] == time[last - 2])
    return np.array([len(last), is_tied.sum()], np.int64)


class _PairIndex:
    """Rows by user and item over all domains. Only rows of pairs that have several are indexed."""

    def __init__(self, rows: DistinctPairs) -> None:
        pair = rows.user.astype(np.int64) * len(rows.items) + rows.item
        order = np.argsort(pair, kind="stable")  # so that a pair's rows are sorted by domain
        sizes = np.diff(np.flatnonzero(np.diff(pair[order], prepend=-1, append=-1)))
        self._sizes = sizes[sizes > 1]
        self._order = order[np.repeat(sizes > 1, sizes)]
        self._starts = np.cumsum(self._sizes) - self._sizes

    def minimum(self, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """By row, the smallest of the values of its pair's rows."""
        result = values.copy()
        if len(self._order):
            result[self._order] = np.repeat(np.minimum.reduceat(values[self._order], self._starts), self._sizes)
        return result

    def count_shared(self, split: Codes, domain: Ints) -> Longs:
        """int64 [splits], pairs that occur in several domains, by the earliest of their splits."""
        first, last = self._order[self._starts], self._order[self._starts + self._sizes - 1]
        is_shared = domain[first] != domain[last]
        return np.bincount(self.minimum(split)[first][is_shared], minlength=len(SPLITS))


def _split_at_home(rows: DistinctPairs, pairs: _PairIndex, settings: SplitSettings) -> Codes:
    """The splits of rows in the home domain of their pair; others are undecided."""
    _, sizes = rows.by_user()
    preference = np.repeat(sizes, sizes) * len(rows.names) + rows.domain
    return _split_by_domain(rows, settings, preference == pairs.minimum(preference))


def _split_by_domain(rows: DistinctPairs, settings: SplitSettings, chosen: Mask | None = None) -> Codes:
    """Splits that depend on the chosen rows of each domain alone, by default all; other rows are undecided."""
    codes = np.full(len(rows.user), _UNDECIDED)
    byte_rank, user_ids, item_ids = rows.items.byte_rank, rows.users.ids, rows.items.ids
    for name, rows_of_domain in zip(rows.names, rows.by_domain(), strict=True):
        indices = np.arange(rows_of_domain.start, rows_of_domain.stop)
        indices = indices if chosen is None else indices[chosen[rows_of_domain]]
        pairs = PairsOfUsers(
            domain=name,
            user=rows.user[indices],
            item=rows.item[indices],
            byte_rank=byte_rank.take(rows.item[indices]).astype(np.int64),
            timestamp=rows.timestamp[indices],
            is_trained=rows.is_trained[indices],
            user_ids=user_ids,
            item_ids=item_ids,
        )
        codes[indices] = assign_splits(pairs, settings)
    return codes
