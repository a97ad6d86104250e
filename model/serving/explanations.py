"""Explanations of recommendations: the items of the history that each follows from, and the vectors' share.

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
"""Items of a history that are named as reasons for a recommended item, at most."""


class Reason(NamedTuple):
    """An item of the user's history that a recommended item follows from.

    Attributes:
        item: its id.
        domains: domains in which it is a train item of the user; if the user is not known, the domains that have it.
        share: of the recommended item's evidence, from 0 to 1.
    """

    item: str
    domains: list[str]
    share: float


class Explanation(NamedTuple):
    """What the score of a recommended item is made of.

    Attributes:
        because_of: the items of the history with most of the evidence, the largest share first.
        vectors, evidence: shares of the score, which add up to 1: |v| / (|v| + |e|) and |e| / (|v| + |e|), where v is
            the weighted dot product and e the weighted evidence whose sum is the score.
    """

    because_of: list[Reason]
    vectors: float
    evidence: float


@dataclass(frozen=True)
class RankedLists:
    """Lists of recommended items, and what their scores were computed from.

    Attributes:
        items: int32 (lists, top), numbers of the domain's items, best first, padded with -1.
        scores: float32, the served ones.
        dots: float32, of the vectors alone.
        blend: of both; None if the run ranks by vectors alone.
        histories: the source of the evidence, a row for each list; None if the run ranks by vectors alone.
        users: int32 (lists), numbers over all domains; None if the histories are of users who are not in the logs.
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
    """Dot products of vectors (users, width) with the items of each user's list (users, top); 0 for padding."""
    dots = np.zeros(items.shape, np.float32)
    for row, (vector, listed) in enumerate(zip(vectors, items, strict=True)):
        kept = listed[listed >= 0]
        dots[row, : kept.size] = item_vectors[kept] @ vector
    return dots


@dataclass(frozen=True)
class ExplanationArrays:
    """Explanations of all recommended items of some lists, list after list, as arrays.

    Attributes:
        indptr: int64 (recommended + 1), the first reason of each recommended item.
        ids: string (reasons), the items of the history with the largest weights S[j, i], the largest first.
        domains: list<string> (reasons), as in `Reason`.
        shares: float32 (reasons), each weight's share of the recommended item's evidence.
        evidence: float32 (recommended), evidence's share of the score as in `Explanation`; NaN if both parts are 0.
    """

    indptr: Longs
    ids: pa.Array
    domains: pa.Array
    shares: Floats32
    evidence: Floats32


def explain_as_arrays(scorers: Sequence[DomainScorer], lists: RankedLists, most: int = REASONS) -> ExplanationArrays:
    """Explain the scores of the recommended items of some lists.

    Args:
        scorers: of all domains.
        lists: of one domain.
        most: reasons for each item, at most.
    """
    rows, columns = np.nonzero(lists.items >= 0)
    if lists.blend is None or lists.histories is None:
        no_ids, no_domains = pa.array([], pa.string()), pa.array([], pa.list_(pa.string()))
        no_shares, no_evidence = np.empty(0, np.float32), np.zeros(rows.size, np.float32)
        return ExplanationArrays(np.zeros(rows.size + 1, np.int64), no_ids, no_domains, no_shares, no_evidence)
    vector_factors, evidence_factors = (
        factors[rows] for factors in lists.blend.weights.factors(lists.histories.lengths)
    )
    items, weights, totals = lists.blend.evidence.strongest(lists.histories, rows, lists.items[rows, columns], most)
    is_reason = (items >= 0) & (evidence_factors[:, None] > 0)
    reason_counts = is_reason.sum(axis=1)
    users = None if lists.users is None else np.repeat(lists.users[rows], reason_counts)
    ids, domains = _name_reasons(scorers, items[is_reason], users)
    vectors, evidence = np.abs(vector_factors * lists.dots[rows, columns]), np.abs(evidence_factors * totals)
    both = vectors + evidence
    evidence_shares = np.where(both > 0, evidence / np.where(both > 0, both, 1), np.nan).astype(np.float32)
    return ExplanationArrays(
        indptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(reason_counts)]),
        ids=ids,
        domains=domains,
        shares=np.divide(weights[is_reason], np.repeat(totals, reason_counts), dtype=np.float32),
        evidence=evidence_shares,
    )


def explain_lists(scorers: Sequence[DomainScorer], lists: RankedLists, most: int) -> list[list[Explanation | None]]:
    """The explanation of each item of each list; None if both its dot product and its evidence are 0.

    Args:
        scorers: of all domains.
        lists: of one domain.
        most: reasons for each item, at most.
    """
    arrays = explain_as_arrays(scorers, lists, most)
    reasons = list(map(Reason, arrays.ids.to_pylist(), arrays.domains.to_pylist(), arrays.shares.tolist()))
    explanations = iter(
        None if math.isnan(share) else Explanation(reasons[start:end], 1.0 - share, share)
        for (start, end), share in zip(pairwise(arrays.indptr), arrays.evidence.tolist(), strict=True)
    )
    return [[next(explanations) for _ in range(length)] for length in (lists.items >= 0).sum(axis=1)]


def _name_reasons(scorers: Sequence[DomainScorer], items: Ints, users: Ints | None) -> tuple[pa.Array, pa.Array]:
    """Ids of items, and the domains in which each is a train item of the user at the same position.

    Args:
        scorers: of all domains, with evidence.
        items: int32 (items), numbers over all domains; each in at least one of the domains returned.
        users: int32 (items), numbers over all domains; None: the domains are those that have the item.

    Returns:
        string (items) and list<string> (items), domains in the order of the scorers.
    """
    by_domain = [_find_in_domain(scorer, items, users) for scorer in scorers]
    positions = np.concatenate([positions for positions, _ in by_domain])
    order = np.argsort(positions, kind="stable")
    offsets = np.searchsorted(positions[order], np.arange(items.size + 1)).astype(np.int32)
    ids = [
        scorer.catalogue.item_ids.take(pa.array(numbers))
        for scorer, (_, numbers) in zip(scorers, by_domain, strict=True)
    ]
    domains = np.repeat(np.arange(len(scorers)), [positions.size for positions, _ in by_domain])[order]
    names = pa.array([scorer.catalogue.domain for scorer in scorers], pa.string()).take(pa.array(domains))
    first = pa.concat_arrays(ids).take(pa.array(order[offsets[:-1]]))
    return first.cast(pa.string()), pa.ListArray.from_arrays(offsets, names)


def _find_in_domain(scorer: DomainScorer, items: Ints, users: Ints | None) -> tuple[Longs, Ints]:
    """The items that a domain has, for the user at the same position: their positions, and numbers in the domain."""
    assert scorer.blend
    evidence = scorer.blend.evidence
    item_numbers = evidence.domain_numbers[items]
    if users is None:
        positions = np.flatnonzero(item_numbers >= 0)
    else:
        user_numbers = evidence.find_users(users)
        positions = np.flatnonzero((item_numbers >= 0) & (user_numbers >= 0))
        are_known = scorer.catalogue.are_known(user_numbers[positions], item_numbers[positions])
        positions = positions[are_known]
    return positions, item_numbers[positions]
