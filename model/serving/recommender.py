"""Recommendations of a run, requested and returned by the logs' own ids. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from data_contracts.store.artifact import Artifact
from model.evidence.user_evidence import UserEvidence
from model.serving.catalogue import Catalogue
from model.serving.exact import TopK, fold_in, similar_items, top_items, top_items_without_vector
from model.serving.explanations import Explanation, RankedLists, Reason, explain_lists, listed_dots
from model.serving.ids import (
    UnknownError,
    item_numbers,
    unknown_domain,
    unknown_history,
    unknown_item,
    unknown_user,
    user_numbers,
)
from model.serving.scorer import DomainScorer, DomainScorers, ItemMask, Query
from model.sparse.rows import Ints, Longs

if TYPE_CHECKING:
    from model.evidence.domain_evidence import Histories

__all__ = [
    "Explanation",
    "NewUserRanking",
    "RankedBy",
    "Ranking",
    "Reason",
    "Recommender",
    "ScoredItem",
    "UnknownError",
]

Search = Callable[[DomainScorer, Query, int], TopK]
"""Finds the top items for a query: `model.serving.exact.top_items` or an index."""

RankedBy = Literal["blend", "vectors", "evidence", "popularity"]
"""What a list is ranked by: vectors and evidence, vectors alone, evidence alone, or the number of train users."""


class ScoredItem(NamedTuple):
    """An item of a list, ranked from 1; `why` is its explanation if that was requested and the score is not 0."""

    rank: int
    item: str
    score: float
    why: Explanation | None = None


@dataclass(frozen=True)
class Ranking:
    """A list of items, best first, and what it is ranked by."""

    items: list[ScoredItem]
    by: RankedBy


@dataclass(frozen=True)
class NewUserRanking(Ranking):
    """A ranking for a user who was not in training, and the items it is derived from.

    Attributes:
        used: given ids that contribute, ascending: items of the domain, and of other domains if they have neighbours.
        ignored: the other given ids, and the domains that have each.
    """

    used: list[str]
    ignored: dict[str, list[str]]


@dataclass(frozen=True)
class _Wanted:
    """What a list is to have: its length, reasons for each item, and the items that it may contain (None: all)."""

    top: int
    reasons: int
    allowed: ItemMask | None


class Recommender:
    """Recommends from a run's vectors and evidence; may be used from several threads.

    Every method takes `reasons`: how many items of the user's history to name for each recommended item, at most; 0
    gives no explanations. `allowed` has the items that may be recommended, by their numbers in the domain; None: all.

    Args:
        artifacts: the run's, by role.
        search: finds the top items for users; exact by default.
    """

    def __init__(self, artifacts: Mapping[str, Artifact], search: Search = top_items) -> None:
        self._scorers, self._search = DomainScorers(artifacts), search

    @property
    def domains(self) -> list[str]:
        """Names of the domains, ascending."""
        return self._scorers.domains

    def catalogue(self, domain: str) -> Catalogue:
        """A domain's ids and vectors.

        Raises:
            UnknownError: the run has no such domain.
        """
        return self._scorer(domain).catalogue

    def has_item(self, item: str) -> bool:
        """Whether any domain has an item."""
        return any(item_numbers(self.catalogue(domain), [item])[0] >= 0 for domain in self.domains)

    def popular(self, domain: str, top: int, *, allowed: ItemMask | None = None) -> Ranking:
        """The items of a domain with most train users.

        Raises:
            UnknownError: no such domain.
        """
        scorer = self._scorer(domain)
        items, scores = top_items_without_vector(scorer.catalogue, UserEvidence.empty(), top, allowed)
        return replace(self._rankings(scorer, RankedLists(items, scores, np.zeros_like(scores)), 0)[0], by="popularity")

    def for_user(
        self, domain: str, user: str, top: int, reasons: int = 0, *, allowed: ItemMask | None = None
    ) -> Ranking:
        """The best items for a user, without the train items in the domain.

        A user of other domains only has no vector in this one and is ranked by evidence, if the run has any.

        Raises:
            UnknownError: no such domain, or no such user.
        """
        ranking = self.for_users(domain, [user], top, reasons, allowed=allowed)[user]
        if ranking is None:
            raise unknown_user(self.catalogue(domain), user)
        return ranking

    def for_users(
        self, domain: str, users: Sequence[str], top: int, reasons: int = 0, *, allowed: ItemMask | None = None
    ) -> dict[str, Ranking | None]:
        """As `for_user`, for many users; None for an unknown one."""
        scorer, wanted = self._scorer(domain), _Wanted(top, reasons, allowed)
        numbers = user_numbers(scorer.catalogue, users)
        rankings: dict[str, Ranking | None] = dict.fromkeys(users)
        if (numbers >= 0).any():
            known_users = [user for user, number in zip(users, numbers, strict=True) if number >= 0]
            known = numbers[numbers >= 0]
            union_users = scorer.blend.evidence.union_users[known] if scorer.blend else None
            known_rankings = self._for_query(scorer, scorer.query(known), wanted, union_users)
            rankings |= zip(known_users, known_rankings, strict=True)
        for user in [user for user, ranking in rankings.items() if ranking is None]:
            rankings[user] = self._for_user_of_others(scorer, user, wanted)
        return rankings

    def similar(
        self, domain: str, item: str, top: int, reasons: int = 0, *, allowed: ItemMask | None = None
    ) -> Ranking:
        """The items most similar to an item, by the cosine of their vectors and the item's evidence.

        Raises:
            UnknownError: no such domain, or no such item in it.
        """
        scorer = self._scorer(domain)
        number = int(item_numbers(scorer.catalogue, [item])[0])
        if number < 0:
            raise unknown_item(scorer.catalogue, item)
        similar = similar_items(scorer, number, top, allowed)
        lists = RankedLists(similar.items[None], similar.scores[None], similar.cosines[None])
        if scorer.blend:
            history = scorer.blend.evidence.history(scorer.blend.evidence.union_items[[number]])
            lists = replace(lists, blend=scorer.blend.for_spread(similar.spread), histories=history)
        return self._rankings(scorer, lists, reasons)[0]

    def for_new_user(
        self,
        domain: str,
        items: Sequence[str],
        top: int,
        reasons: int = 0,
        *,
        allowed: ItemMask | None = None,
        or_popular: bool = False,
    ) -> NewUserRanking:
        """The best items for a user who was not in training, from the user's items, which are excluded.

        Args:
            domain: of the recommended items.
            items: ids of any domain.
            top: number of items, at most.
            reasons: items to name for each.
            allowed: items that may be recommended; None: all.
            or_popular: rank by popularity if none of the items contributes anything.

        Raises:
            UnknownError: no such domain, or, without `or_popular`, none of the items contributes anything in it.
        """
        scorer = self._scorer(domain)
        numbers = item_numbers(scorer.catalogue, items)
        known = np.unique(numbers[numbers >= 0])
        elsewhere = [item for item, number in zip(items, numbers, strict=True) if number < 0]
        domains, others = self._find_elsewhere(scorer, elsewhere)
        if known.size and scorer.blend and not scorer.blend.weights.evidence:  # the folded-in vector ranks alone
            others = {}
        ignored = {item: names for item, names in domains.items() if item not in others}
        if not known.size and not others:
            if or_popular:
                popular = self.popular(domain, top, allowed=allowed)
                return NewUserRanking(popular.items, popular.by, [], ignored)
            raise unknown_history(scorer.catalogue, ignored)
        other_items = np.array(list(others.values()), np.int32)
        ranking = self._for_history(scorer, known, other_items, _Wanted(top, reasons, allowed))
        used = sorted([*scorer.catalogue.item_ids.take(known).to_pylist(), *others])
        return NewUserRanking(ranking.items, ranking.by, used, ignored)

    def _scorer(self, domain: str) -> DomainScorer:
        if domain not in self.domains:
            raise unknown_domain(domain, self.domains)
        return self._scorers[domain]

    def _others(self, scorer: DomainScorer) -> list[DomainScorer]:
        return [self._scorers[name] for name in self.domains if name != scorer.catalogue.domain]

    def _for_user_of_others(self, scorer: DomainScorer, user: str, wanted: _Wanted) -> Ranking | None:
        """The list for a user who is in other domains only; None for unknown users, and in a run without evidence."""
        if scorer.blend is None:
            return None
        for other in self._others(scorer):
            number = user_numbers(other.catalogue, [user])
            if number[0] >= 0 and other.blend:
                union_user = other.blend.evidence.union_users[number]
                history = scorer.blend.evidence.histories.pick(union_user)
                return self._without_vector(scorer, history, wanted, union_user)
        return None

    def _for_history(self, scorer: DomainScorer, known: Longs, others: Ints, wanted: _Wanted) -> Ranking:
        """The list for a new user with known items of the domain, and of others by their numbers over all domains."""
        history = None
        if scorer.blend:
            evidence = scorer.blend.evidence
            history = evidence.history(np.concatenate([evidence.union_items[known], others]))
        if history and not known.size:
            return self._without_vector(scorer, history, wanted)
        vectors, indptr = fold_in(scorer.catalogue, [known]), np.array([0, known.size])
        query = Query(vectors, history, indptr, known.astype(np.int32))
        return self._for_query(scorer, query, wanted)[0]

    def _for_query(
        self, scorer: DomainScorer, query: Query, wanted: _Wanted, users: Ints | None = None
    ) -> list[Ranking]:
        items, scores = self._search(scorer, replace(query, allowed=wanted.allowed), wanted.top)
        dots = listed_dots(query.vectors, scorer.catalogue.items, items) if wanted.reasons else np.zeros_like(scores)
        lists = RankedLists(items, scores, dots, scorer.blend, query.histories, users)
        return self._rankings(scorer, lists, wanted.reasons)

    def _without_vector(
        self, scorer: DomainScorer, history: Histories, wanted: _Wanted, user: Ints | None = None
    ) -> Ranking:
        assert scorer.blend
        blend = scorer.blend.without_vectors()
        evidence = blend.for_one_user(history.items)
        items, scores = top_items_without_vector(scorer.catalogue, evidence, wanted.top, wanted.allowed)
        lists = RankedLists(items, scores, np.zeros_like(scores), blend, history, user)
        return replace(
            self._rankings(scorer, lists, wanted.reasons)[0], by="evidence" if evidence.items.size else "popularity"
        )

    def _rankings(self, scorer: DomainScorer, lists: RankedLists, reasons: int) -> list[Ranking]:
        explanations: list[list[Explanation | None]] = [[None] * lists.items.shape[1]] * len(lists.items)
        if reasons:
            explanations = explain_lists([self._scorers[name] for name in self.domains], lists, reasons)
        rankings = []
        for row, (items, scores) in enumerate(zip(lists.items, lists.scores, strict=True)):
            kept = items >= 0
            ids = scorer.catalogue.item_ids.take(pa.array(items[kept])).to_pylist()
            scored = map(ScoredItem, range(1, len(ids) + 1), ids, scores[kept].tolist(), explanations[row])
            rankings.append(Ranking(list(scored), "blend" if lists.are_blended[row] else "vectors"))
        return rankings

    def _find_elsewhere(
        self, scorer: DomainScorer, items: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, int]]:
        """By item, the other domains that have it; and the numbers over all domains of items that have neighbours."""
        domains: dict[str, list[str]] = {item: [] for item in items}
        numbers: dict[str, int] = {}
        for other in self._others(scorer) if items else ():
            other_numbers = item_numbers(other.catalogue, list(domains))
            for (item, of_item), number in zip(domains.items(), other_numbers, strict=True):
                if number >= 0:
                    of_item.append(other.catalogue.domain)
                    if other.blend:
                        numbers[item] = int(other.blend.evidence.union_items[number])
        if scorer.blend:
            numbers = {item: number for item, number in numbers.items() if scorer.blend.evidence.has_neighbours(number)}
        return domains, numbers
