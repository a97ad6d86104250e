"""Why an item is recommended: the items of the user's history that it follows from, and what vectors add. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.serving.scorer import DomainScorer
from model.sparse.rows import Floats32, Ints, Longs

if TYPE_CHECKING:
    from model.evidence.blend import Blend
    from model.evidence.domain_evidence import Histories

REASONS = 3
"""Items of a history that are named for a recommended one, at most."""


class Because(NamedTuple):
    """An item of the user's history that a recommended one follows from.

    Attributes:
        item: its id.
        domains: where the user has it in the train split; of items that are only given, the domains that have it.
        share: of the recommended item's evidence, from 0 to 1.
    """

    item: str
    domains: list[str]
    share: float


class Why(NamedTuple):
    """What an item's score rests on.

    Attributes:
        because_of: the items of the history that most of the evidence comes from, the largest share first.
        vectors, evidence: shares of the score, 1 together: |v| / (|v| + |e|) and |e| / (|v| + |e|), where v is the
            weighted dot product and e the weighted evidence that the score is the sum of.
    """

    because_of: list[Because]
    vectors: float
    evidence: float


@dataclass(frozen=True)
class Lists:
    """Lists of recommended items, and what scored them.

    Attributes:
        items: int32 (lists, top), numbers of the domain's items, best first; -1 where too few are left.
        scores: float32, as they are served.
        dots: float32, of the vectors alone.
        blend: of both; None where the run ranks by vectors alone.
        histories: what evidence comes from, a row for each list; None likewise.
        users: int32 (lists), numbers over all domains of users who are in any; None for histories without one.
    """

    items: Ints
    scores: Floats32
    dots: Floats32
    blend: Blend | None = None
    histories: Histories | None = None
    users: Ints | None = None

    @property
    def are_blended(self) -> NDArray[np.bool_]:
        """Whether evidence is part of each list's scores."""
        if self.blend is None or self.histories is None:
            return np.zeros(len(self.items), np.bool_)
        return self.blend.weights.factors(self.histories.lengths)[1] > 0


def listed_dots(vectors: Floats32, item_vectors: Floats32, items: Ints) -> Floats32:
    """Dot products of vectors (users, width) with the items of each user's list (users, top); 0 where that is -1."""
    dots = np.zeros(items.shape, np.float32)
    for row, (vector, listed) in enumerate(zip(vectors, items, strict=True)):
        kept = listed[listed >= 0]
        dots[row, : kept.size] = item_vectors[kept] @ vector
    return dots


@dataclass(frozen=True)
class Explanation:
    """What the scores of all recommended items of some lists rest on, list after list.

    Attributes:
        indptr: int64 (recommended + 1), where the reasons of each recommended item begin.
        ids: string (reasons), the items of the history with the largest weights S[j, i], the largest first.
        domains: list<string> (reasons), as in `Because`.
        shares: float32 (reasons), each weight's share of the recommended item's evidence.
        evidence: float32 (recommended), evidence's share of the score as in `Why`; NaN where both parts are 0.
    """

    indptr: Longs
    ids: pa.Array
    domains: pa.Array
    shares: Floats32
    evidence: Floats32


def explain(scorers: Sequence[DomainScorer], lists: Lists, most: int = REASONS) -> Explanation:
    """What the scores of the recommended items of some lists rest on.

    Args:
        scorers: of all domains.
        lists: of one domain.
        most: items of a history to name for each, at most.
    """
    owners, places = np.nonzero(lists.items >= 0)
    if lists.blend is None or lists.histories is None:
        indptr, nothing = np.zeros(owners.size + 1, np.int64), np.empty(0, np.float32)
        names = pa.array([], pa.string()), pa.array([], pa.list_(pa.string()))
        return Explanation(indptr, *names, nothing, np.zeros(owners.size, np.float32))
    of_vectors, of_evidence = (factors[owners] for factors in lists.blend.weights.factors(lists.histories.lengths))
    items, weights, totals = lists.blend.evidence.strongest(lists.histories, owners, lists.items[owners, places], most)
    is_reason = (items >= 0) & (of_evidence[:, None] > 0)
    reasons = is_reason.sum(axis=1)
    users = None if lists.users is None else np.repeat(lists.users[owners], reasons)
    ids, domains = _named(scorers, items[is_reason], users)
    vectors, evidence = np.abs(of_vectors * lists.dots[owners, places]), np.abs(of_evidence * totals)
    both = vectors + evidence
    share: Floats32 = np.where(both > 0, evidence / np.where(both > 0, both, 1), np.nan).astype(np.float32)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(reasons)])
    shares = np.divide(weights[is_reason], np.repeat(totals, reasons), dtype=np.float32)
    return Explanation(indptr, ids, domains, shares, share)


def explain_lists(scorers: Sequence[DomainScorer], lists: Lists, most: int) -> list[list[Why | None]]:
    """Why each item of each list is recommended; None where neither vectors nor evidence say anything for it.

    Args:
        scorers: of all domains.
        lists: of one domain.
        most: items of a history to name for each, at most.
    """
    found = explain(scorers, lists, most)
    becauses = list(map(Because, found.ids.to_pylist(), found.domains.to_pylist(), found.shares.tolist()))
    whys = iter(
        None if math.isnan(share) else Why(becauses[start:end], 1.0 - share, share)
        for start, end, share in zip(found.indptr, found.indptr[1:], found.evidence.tolist(), strict=False)
    )
    return [[next(whys) for _ in range(length)] for length in (lists.items >= 0).sum(axis=1)]


def _named(scorers: Sequence[DomainScorer], items: Ints, users: Ints | None) -> tuple[pa.Array, pa.Array]:
    """Ids of items, and the names of the domains in which the user beside each has it in the train split.

    Args:
        scorers: of all domains, with evidence.
        items: int32 (items), numbers over all domains; each in one of those domains at least.
        users: int32 (items), numbers over all domains; None: domains are those that have the item.

    Returns:
        string (items) and list<string> (items), domains in the order of the scorers.
    """
    places = [_places(scorer, items, users) for scorer in scorers]
    rows = np.concatenate([rows for rows, _ in places])
    order = np.argsort(rows, kind="stable")
    offsets = np.searchsorted(rows[order], np.arange(items.size + 1)).astype(np.int32)
    ids = [scorer.catalogue.item_ids.take(pa.array(found)) for scorer, (_, found) in zip(scorers, places, strict=True)]
    domains = np.repeat(np.arange(len(scorers)), [rows.size for rows, _ in places])[order]
    names = pa.array([scorer.catalogue.domain for scorer in scorers], pa.string()).take(pa.array(domains))
    first = pa.concat_arrays(ids).take(pa.array(order[offsets[:-1]]))
    return first.cast(pa.string()), pa.ListArray.from_arrays(offsets, names)


def _places(scorer: DomainScorer, items: Ints, users: Ints | None) -> tuple[Longs, Ints]:
    """Which of the items a domain has, for the user beside each: their positions, and their numbers in the domain."""
    assert scorer.blend
    evidence = scorer.blend.evidence
    numbers = evidence.position[items]
    if users is None:
        rows = np.flatnonzero(numbers >= 0)
    else:
        of_users = evidence.numbers_of_users(users)
        rows = np.flatnonzero((numbers >= 0) & (of_users >= 0))
        rows = rows[scorer.catalogue.are_known(of_users[rows], numbers[rows])]
    return rows, numbers[rows]
