"""Pair splits: a pair of a user and an item is trained or held out, in all domains that it lives in.

The graph of all domains together shows a train row of one domain to the models of the others. So under the clean
protocol no pair that is held out in one domain is a train row of another, nor is it for validation in one and for test
in another.

random           the pair is drawn in its home, the domain in which its user has the fewest pairs, and has that split
                 wherever it lives. So the shares of every user and home are exact, and those of other domains close.
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
from data_contracts.settings import IngestSettings, SplitSettings
from pipeline.ingest.splits import TRAIN_CODE, Codes, Mask, Numbers, Pairs, assign_splits
from pipeline.ingest.vocabulary import NumberedIds

_UNDECIDED = np.int8(127)
_T = TypeVar("_T", bound=np.integer[Any])


@dataclass(frozen=True)
class Rows:
    """Distinct rows of some users, all that these users have, sorted by domain, user, item and split.

    Attributes:
        domain: index into `names`.
        user, item: ranks among `users` and `items`.
        split: index into SPLITS, as the logs give it; that of train where they give none.
        timestamp: earliest time of the row.
        trained: in an update, whether the pair was trained on before: then it stays in training.
        names: the domains' names, sorted.
        users, items: the ids.
    """

    domain: npt.NDArray[np.int32]
    user: Numbers
    item: Numbers
    split: Codes
    timestamp: Numbers
    trained: Mask
    names: tuple[str, ...]
    users: NumberedIds
    items: NumberedIds

    def by_user(self) -> tuple[Numbers, Numbers]:
        """Where the rows of each user and domain begin, and how many they are."""
        starts = np.flatnonzero((np.diff(self.user, prepend=-1) != 0) | (np.diff(self.domain, prepend=-1) != 0))
        return starts, np.diff(starts, append=len(self.user))

    def by_domain(self) -> list[slice]:
        """The rows of each domain."""
        bounds = np.searchsorted(self.domain, np.arange(len(self.names) + 1, dtype=np.int32)).tolist()
        return [slice(first, end) for first, end in pairwise(bounds)]


@dataclass(frozen=True)
class RowSplits:
    """What became of rows.

    Attributes:
        split: index into SPLITS, by row.
        leaked: rows to be dropped, because an earlier split has their pair.
        shared_pairs: of the pairs that live in several domains, how many have each of SPLITS.
    """

    split: Codes
    leaked: Mask
    shared_pairs: Numbers


def split_rows(rows: Rows, settings: IngestSettings) -> RowSplits:
    """Give every row its split."""
    method, pairs = settings.split.method, _ByPair(rows)
    leaked = np.zeros(len(rows.user), dtype=bool)
    if method == "random" and settings.protocol == "clean":
        split = pairs.minimum(_split_at_home(rows, pairs, settings.split))
    elif method == "given":
        split = rows.split
    else:
        split = _split_by_domain(rows, settings.split)
    if settings.protocol == "clean":
        earliest = pairs.minimum(np.where(rows.trained, np.int8(TRAIN_CODE), split))
        if method == "leave-last-out":
            split = earliest
        leaked = split > earliest
    return RowSplits(split, leaked, pairs.count_shared(split, rows.domain))


class _ByPair:
    """Rows by user and item, whatever their domain. Only the rows of pairs that have several are kept."""

    def __init__(self, rows: Rows) -> None:
        pair = rows.user.astype(np.int64) * len(rows.items) + rows.item
        order = np.argsort(pair, kind="stable")  # so that a pair's rows are sorted by domain
        sizes = np.diff(np.flatnonzero(np.diff(pair[order], prepend=-1, append=-1)))
        self._sizes = sizes[sizes > 1]
        self._order = order[np.repeat(sizes > 1, sizes)]
        self._starts = np.cumsum(self._sizes) - self._sizes

    def minimum(self, values: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """By row, the least of the values that the rows of its pair have."""
        result = values.copy()
        if len(self._order):
            result[self._order] = np.repeat(np.minimum.reduceat(values[self._order], self._starts), self._sizes)
        return result

    def count_shared(self, split: Codes, domain: npt.NDArray[np.int32]) -> Numbers:
        """Pairs that live in several domains, by the earliest of their splits."""
        first, last = self._order[self._starts], self._order[self._starts + self._sizes - 1]
        is_shared = domain[first] != domain[last]
        return np.bincount(self.minimum(split)[first][is_shared], minlength=len(SPLITS))


def _split_at_home(rows: Rows, pairs: _ByPair, settings: SplitSettings) -> Codes:
    """The splits of rows that are at home, the others undecided."""
    _, sizes = rows.by_user()
    preference = np.repeat(sizes, sizes) * len(rows.names) + rows.domain
    return _split_by_domain(rows, settings, preference == pairs.minimum(preference))


def _split_by_domain(rows: Rows, settings: SplitSettings, chosen: Mask | None = None) -> Codes:
    """Splits that follow from the chosen rows of each domain alone, by default all; other rows are undecided."""
    codes = np.full(len(rows.user), _UNDECIDED)
    places, users, items = rows.items.places, rows.users.ids, rows.items.ids
    for name, of_domain in zip(rows.names, rows.by_domain(), strict=True):
        at = np.arange(of_domain.start, of_domain.stop)
        at = at if chosen is None else at[chosen[of_domain]]
        user, item = rows.user[at], rows.item[at]
        place, trained = places.take(item).astype(np.int64), rows.trained[at]
        codes[at] = assign_splits(Pairs(name, user, item, place, rows.timestamp[at], trained, users, items), settings)
    return codes
