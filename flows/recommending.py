"""What a run recommends, asked and answered in the logs' own ids."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_contracts.artifact import Artifact
from data_contracts.contracts import EMBEDDINGS
from data_contracts.remote_store import store_of
from data_contracts.store import Store
from flows.inspection import find_run
from model.catalogue import Catalogue, domains_of, numbers_of, open_catalogue, place_of
from model.ragged import pick_rows
from model.recommending import Best, best_items, fold_in, similar_items

if TYPE_CHECKING:
    import pyarrow as pa

    from model.world import Longs

log = logging.getLogger(__name__)

_NEIGHBOURS = 500
"""Ids on either side, in the order of ids, among which the nearest to an unknown one are sought."""
_SHOWN = 60
"""Characters of an unknown id that a message shows."""

Search = Callable[[Catalogue, Any, tuple[Any, Any], int], Best]
"""`model.recommending.best_items`, or an index in its place."""


class UnknownError(ValueError):
    """A domain, user or item that the run does not have, with the nearest it has."""


class Scored(NamedTuple):
    """One place of a list, from rank 1."""

    rank: int
    item: str
    score: float


@dataclass(frozen=True)
class NewUser:
    """What is recommended to a user who was not in training, and what it rests on.

    Attributes:
        items: the list, best first.
        used: ids of the domain's items that the user knows.
        ignored: ids given that the domain does not have, each with the other domains that do.
    """

    items: list[Scored]
    used: list[str]
    ignored: dict[str, list[str]]


class Recommender:
    """The domains of a run, each opened when it is first asked for; safe to use from several threads.

    Args:
        artifacts: the run's `embeddings` and `graph`.
        search: finds the best items for vectors; exact by default.
    """

    def __init__(self, artifacts: Mapping[str, Artifact], search: Search = best_items) -> None:
        self.domains = domains_of(artifacts)
        self._artifacts, self._search = artifacts, search
        self._open: dict[str, Catalogue] = {}
        self._opening = Lock()

    def catalogue(self, domain: str) -> Catalogue:
        """A domain's ids and vectors.

        Raises:
            UnknownError: the run has no such domain.
        """
        if domain not in self.domains:
            raise UnknownError(f"domain {_shown(domain)} is unknown; known: {', '.join(self.domains)}")
        with self._opening:
            if domain not in self._open:
                self._open[domain] = open_catalogue(self._artifacts, domain)
            return self._open[domain]

    def for_user(self, domain: str, user: str, top: int) -> list[Scored]:
        """The best items for a user, those of training left out.

        Raises:
            UnknownError: no such domain, or no such user in it.
        """
        catalogue = self.catalogue(domain)
        return self._lists(catalogue, _places(catalogue, "user", [user]), top)[0]

    def for_users(self, domain: str, users: Sequence[str], top: int) -> dict[str, list[Scored] | None]:
        """As `for_user`, for many; None for a user that the domain does not have."""
        catalogue = self.catalogue(domain)
        places = numbers_of(catalogue.user_ids, catalogue.user_order, users)
        found: dict[str, list[Scored] | None] = dict.fromkeys(users)
        lists = self._lists(catalogue, places[places >= 0], top)
        known = (user for user, place in zip(users, places, strict=True) if place >= 0)
        return found | dict(zip(known, lists, strict=True))

    def similar(self, domain: str, item: str, top: int) -> list[Scored]:
        """The items most like an item, by the cosine of their vectors.

        Raises:
            UnknownError: no such domain, or no such item in it.
        """
        catalogue = self.catalogue(domain)
        return _named(catalogue, similar_items(catalogue, _places(catalogue, "item", [item]), top))[0]

    def for_new_user(self, domain: str, items: Sequence[str], top: int) -> NewUser:
        """The best items for a user who was not in training, from items known; these are left out.

        Args:
            domain: where to recommend.
            items: ids; what the domain does not have is ignored.
            top: items at most.

        Raises:
            UnknownError: no such domain, or it has none of the items.
        """
        catalogue = self.catalogue(domain)
        places = numbers_of(catalogue.item_ids, catalogue.item_order, items)
        ignored = {
            item: self._other_domains(domain, item) for item, place in zip(items, places, strict=True) if place < 0
        }
        known = np.unique(places[places >= 0])
        if not known.size:
            raise UnknownError(self._none_known(catalogue, ignored))
        left_out = np.array([0, known.size]), known.astype(np.int32)
        best = self._search(catalogue, fold_in(catalogue, [known]), left_out, top)
        return NewUser(_named(catalogue, best)[0], catalogue.item_ids.take(known).to_pylist(), ignored)

    def _lists(self, catalogue: Catalogue, users: Longs, top: int) -> list[list[Scored]]:
        left_out = pick_rows(catalogue.indptr, catalogue.known, users)
        return _named(catalogue, self._search(catalogue, catalogue.users[users], left_out, top))

    def _other_domains(self, domain: str, item: str) -> list[str]:
        others = (self.catalogue(name) for name in self.domains if name != domain)
        return [other.domain for other in others if numbers_of(other.item_ids, other.item_order, [item])[0] >= 0]

    def _none_known(self, catalogue: Catalogue, ignored: Mapping[str, list[str]]) -> str:
        elsewhere = [f"{_shown(item)} is in {', '.join(domains)} only" for item, domains in ignored.items() if domains]
        item = next(iter(ignored), "")
        near = f"near {_shown(item)}: {', '.join(_nearest(catalogue.item_ids, catalogue.item_order, item))}"
        return (
            f"none of the new user's items is in domain {catalogue.domain!r} ({len(catalogue.item_ids):,} items), "
            f"must be one at least; {'; '.join(elsewhere[:3]) or near}"
        )


def open_run(run: str, store: str | None, *, index: bool = False) -> Recommender:
    """The recommender of a run.

    Args:
        run: a run's name in the store, or its TOML file.
        store: folder of all artifacts, or its address; without it the file's, else the default.
        index: search by the run's index, in place of exactly.

    Raises:
        UnknownError: the run has no embeddings, or no index.
    """
    _, artifacts, home = exported_run(run, store)
    if not index:
        return Recommender(artifacts)
    from model.index import find_index, open_index

    found = find_index(home, artifacts)
    if found is None:
        raise UnknownError(f"run {run} has no index of its embeddings yet; make it with: edda index {run}")
    return Recommender(artifacts, open_index(found))


def exported_run(run: str, store: str | None) -> tuple[str, dict[str, Artifact], Store]:
    """A run's name, its artifacts and the store they are in.

    Raises:
        UnknownError: the run has no embeddings.
    """
    name, artifacts, missing = find_run(run, store)
    if EMBEDDINGS.name not in artifacts:
        raise UnknownError(f"run {run} has no embeddings yet; {missing or 'make them with: edda export RUN.toml'}")
    if missing:
        log.warning("%s; what follows was made before", missing)
    return name, artifacts, store_of(artifacts[EMBEDDINGS.name])


def _named(catalogue: Catalogue, best: Best) -> list[list[Scored]]:
    return [
        [
            Scored(rank, catalogue.item_ids[item].as_py(), score)
            for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
            if item >= 0
        ]
        for items, scores in zip(best[0].tolist(), best[1].tolist(), strict=True)
    ]


def _places(catalogue: Catalogue, kind: str, names: Sequence[str]) -> Longs:
    users, items = (catalogue.user_ids, catalogue.user_order), (catalogue.item_ids, catalogue.item_order)
    ids, order = users if kind == "user" else items
    places = numbers_of(ids, order, names)
    for name, place in zip(names, places, strict=True):
        if place < 0:
            raise UnknownError(
                f"{kind} {_shown(name)} is not in domain {catalogue.domain!r} ({len(ids):,} {kind}s); "
                f"near: {', '.join(_nearest(ids, order, name))}"
            )
    return places


def _nearest(ids: pa.LargeStringArray, order: Longs, name: str) -> list[str]:
    """The most similar of the ids around a name's place in their order; three of them where none is similar."""
    place = place_of(ids, order, name)
    around = ids.take(order[max(place - _NEIGHBOURS, 0) : place + _NEIGHBOURS]).to_pylist()
    return difflib.get_close_matches(name, around, n=3) or ids.take(order[max(place - 2, 0) :][:3]).to_pylist()


def _shown(name: str) -> str:
    return repr(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!r}…"
