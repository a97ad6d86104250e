"""What a run recommends, asked and answered in the logs' own ids. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from data_contracts.store.artifact import Artifact
from model.serving.catalogue import Catalogue
from model.serving.exact import Best, best_items, best_without_vector, fold_in, similar_items
from model.serving.ids import (
    UnknownError,
    item_numbers,
    unknown_domain,
    unknown_history,
    unknown_item,
    unknown_user,
    user_numbers,
)
from model.serving.scorer import DomainScorer, DomainScorers, Query
from model.serving.why import Because, Lists, Why, explain_lists, listed_dots
from model.sparse.rows import Ints, Longs

if TYPE_CHECKING:
    from model.evidence.domain_evidence import Histories

__all__ = ["Because", "NewUserRanking", "RankedBy", "Ranking", "Recommender", "Scored", "UnknownError", "Why"]

Search = Callable[[DomainScorer, Query, int], Best]
"""`model.serving.exact.best_items`, or an index in its place."""

RankedBy = Literal["blend", "vectors", "evidence", "popularity"]
"""What ranks a list: vectors and evidence; vectors alone; without a vector evidence, or the number of train users."""


class Scored(NamedTuple):
    """One place of a list, from rank 1; with `why` where that was asked for and there is something to say."""

    rank: int
    item: str
    score: float
    why: Why | None = None


@dataclass(frozen=True)
class Ranking:
    """A list, best first, and what it is ranked by."""

    items: list[Scored]
    by: RankedBy


@dataclass(frozen=True)
class NewUserRanking(Ranking):
    """What is recommended to a user who was not in training, and what it rests on.

    Attributes:
        used: ids given that say something, ascending: items of the domain, and of others where walks start from them.
        ignored: the others, each with the domains that have it.
    """

    used: list[str]
    ignored: dict[str, list[str]]


class Recommender:
    """Answers from a run's vectors and evidence; safe to use from several threads.

    Every question takes `reasons`: how many items of the user's history to name for each recommended one, at most; 0
    leaves `why` out.

    Args:
        artifacts: the run's, by role.
        search: finds the best items for users; exact by default.
    """

    def __init__(self, artifacts: Mapping[str, Artifact], search: Search = best_items) -> None:
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

    def for_user(self, domain: str, user: str, top: int, reasons: int = 0) -> Ranking:
        """The best items for a user, those of training in the domain left out.

        A user of other domains has no vector here: evidence from what the user has there ranks, where the run has any.

        Raises:
            UnknownError: no such domain, or no such user.
        """
        ranking = self.for_users(domain, [user], top, reasons)[user]
        if ranking is None:
            raise unknown_user(self.catalogue(domain), user)
        return ranking

    def for_users(self, domain: str, users: Sequence[str], top: int, reasons: int = 0) -> dict[str, Ranking | None]:
        """As `for_user`, for many; None for an unknown user."""
        scorer = self._scorer(domain)
        places = user_numbers(scorer.catalogue, users)
        rankings: dict[str, Ranking | None] = dict.fromkeys(users)
        if (places >= 0).any():
            known = [user for user, place in zip(users, places, strict=True) if place >= 0]
            rankings |= zip(known, self._for_known(scorer, places[places >= 0], top, reasons), strict=True)
        for user in [user for user, ranking in rankings.items() if ranking is None]:
            rankings[user] = self._for_user_of_others(scorer, user, top, reasons)
        return rankings

    def similar(self, domain: str, item: str, top: int, reasons: int = 0) -> Ranking:
        """The items most like an item, by the cosine of their vectors and walks from the item.

        Raises:
            UnknownError: no such domain, or no such item in it.
        """
        scorer = self._scorer(domain)
        place = int(item_numbers(scorer.catalogue, [item])[0])
        if place < 0:
            raise unknown_item(scorer.catalogue, item)
        found = similar_items(scorer, place, top)
        lists = Lists(found.items[None], found.scores[None], found.cosines[None])
        if scorer.blend:
            history = scorer.blend.evidence.history(scorer.blend.evidence.union_items[[place]])
            lists = replace(lists, blend=scorer.blend.for_spread(found.spread), histories=history)
        return self._rankings(scorer, lists, reasons)[0]

    def for_new_user(self, domain: str, items: Sequence[str], top: int, reasons: int = 0) -> NewUserRanking:
        """The best items for a user who was not in training, from items known; these are left out.

        Args:
            domain: where to recommend.
            items: ids of any domain.
            top: items at most.
            reasons: items to name for each.

        Raises:
            UnknownError: no such domain, or none of the items says anything in it.
        """
        scorer = self._scorer(domain)
        places = item_numbers(scorer.catalogue, items)
        known = np.unique(places[places >= 0])
        elsewhere = [item for item, place in zip(items, places, strict=True) if place < 0]
        domains, others = self._items_of_others(scorer, elsewhere)
        if known.size and scorer.blend and not scorer.blend.weights.evidence:  # a vector, which is served alone
            others = {}
        ignored = {item: names for item, names in domains.items() if item not in others}
        if not known.size and not others:
            raise unknown_history(scorer.catalogue, ignored)
        ranking = self._for_history(scorer, known, np.array(list(others.values()), np.int32), top, reasons)
        used = sorted([*scorer.catalogue.item_ids.take(known).to_pylist(), *others])
        return NewUserRanking(ranking.items, ranking.by, used, ignored)

    def _scorer(self, domain: str) -> DomainScorer:
        if domain not in self.domains:
            raise unknown_domain(domain, self.domains)
        return self._scorers[domain]

    def _others(self, scorer: DomainScorer) -> list[DomainScorer]:
        return [self._scorers[name] for name in self.domains if name != scorer.catalogue.domain]

    def _for_known(self, scorer: DomainScorer, users: Longs, top: int, reasons: int) -> list[Ranking]:
        union_users = scorer.blend.evidence.union_users[users] if scorer.blend else None
        return self._for_query(scorer, scorer.query(users), top, reasons, union_users)

    def _for_user_of_others(self, scorer: DomainScorer, user: str, top: int, reasons: int) -> Ranking | None:
        """The list for a user who is in other domains only; None for one who is in none, or without evidence."""
        if scorer.blend is None:
            return None
        for other in self._others(scorer):
            place = user_numbers(other.catalogue, [user])
            if place[0] >= 0 and other.blend:
                union_user = other.blend.evidence.union_users[place]
                history = scorer.blend.evidence.histories.pick(union_user)
                return self._without_vector(scorer, history, top, reasons, union_user)
        return None

    def _for_history(self, scorer: DomainScorer, known: Longs, others: Ints, top: int, reasons: int) -> Ranking:
        """The list for a new user who knows items of the domain, and of others by their numbers over all domains."""
        history = None
        if scorer.blend:
            evidence = scorer.blend.evidence
            history = evidence.history(np.concatenate([evidence.union_items[known], others]))
        if history and not known.size:
            return self._without_vector(scorer, history, top, reasons)
        left_out = np.array([0, known.size]), known.astype(np.int32)
        query = Query(fold_in(scorer.catalogue, [known]), history, *left_out)
        return self._for_query(scorer, query, top, reasons)[0]

    def _for_query(
        self, scorer: DomainScorer, query: Query, top: int, reasons: int, users: Ints | None = None
    ) -> list[Ranking]:
        items, scores = self._search(scorer, query, top)
        dots = listed_dots(query.vectors, scorer.catalogue.items, items) if reasons else np.zeros_like(scores)
        return self._rankings(scorer, Lists(items, scores, dots, scorer.blend, query.histories, users), reasons)

    def _without_vector(
        self, scorer: DomainScorer, history: Histories, top: int, reasons: int, user: Ints | None = None
    ) -> Ranking:
        assert scorer.blend
        blend = scorer.blend.without_vectors()
        evidence = blend.of_user(history.items)
        items, scores = best_without_vector(scorer.catalogue, evidence, top)
        lists = Lists(items, scores, np.zeros_like(scores), blend, history, user)
        return replace(
            self._rankings(scorer, lists, reasons)[0], by="evidence" if evidence.items.size else "popularity"
        )

    def _rankings(self, scorer: DomainScorer, lists: Lists, reasons: int) -> list[Ranking]:
        whys = explain_lists([self._scorers[name] for name in self.domains], lists, reasons) if reasons else None
        rankings = []
        for row, (items, scores) in enumerate(zip(lists.items, lists.scores, strict=True)):
            kept = np.flatnonzero(items >= 0)
            names = scorer.catalogue.item_ids.take(pa.array(items[kept])).to_pylist()
            columns = range(1, kept.size + 1), names, scores[kept].tolist(), *([whys[row]] if whys else [])
            places = [Scored(*place) for place in zip(*columns, strict=True)]
            rankings.append(Ranking(places, "blend" if lists.are_blended[row] else "vectors"))
        return rankings

    def _items_of_others(
        self, scorer: DomainScorer, items: Sequence[str]
    ) -> tuple[dict[str, list[str]], dict[str, int]]:
        """By item, the other domains that have it; and numbers over all domains, of those that walks start from."""
        domains: dict[str, list[str]] = {item: [] for item in items}
        numbers: dict[str, int] = {}
        for other in self._others(scorer) if items else ():
            places = item_numbers(other.catalogue, list(domains))
            for (item, of_item), place in zip(domains.items(), places, strict=True):
                if place >= 0:
                    of_item.append(other.catalogue.domain)
                    numbers |= {item: int(other.blend.evidence.union_items[place])} if other.blend else {}
        if scorer.blend:
            numbers = {item: number for item, number in numbers.items() if scorer.blend.evidence.has_neighbours(number)}
        return domains, numbers
