"""The people and items of a generated world: who lives in which domain, under which id, with which taste.

An item has a place: a topic, and a position in [0, 1) within it. A person likes a few topics with different weights,
and in each a small region around a centre of their own. Someone who lives in two domains, under one id or as twins
under two, has one taste in both; an item offered in two domains has one place in both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.settings import WorldSettings

Numbers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

TOPICS_PER_PERSON = 3
"""Topics that a person likes."""

_NAMES = ("north", "east", "south", "west", "harbour", "hill", "island", "valley")
_WEIGHTS = 1.5
"""Concentration of a person's weights over their topics: larger is more even."""
_POPULARITY_SPREAD = 0.7
_ACTIVITY_SPREAD = 0.6
"""Standard deviations of the logarithms of popularity and activity."""


@dataclass(frozen=True)
class Tastes:
    """One row per person: liked topics, their cumulated weights up to 1, and the centre of the liked region in each."""

    topics: Numbers
    weights: Reals
    centres: Reals

    def take(self, rows: Numbers) -> Tastes:
        """The tastes of some people."""
        return Tastes(self.topics[rows], self.weights[rows], self.centres[rows])


@dataclass(frozen=True)
class Shelf:
    """A domain's items sorted by place (topic + position in it), with the cumulated popularity in front of each."""

    ids: pa.StringArray
    places: Reals
    popularity: Reals


@dataclass(frozen=True)
class Domain:
    """One domain: its users with their tastes and numbers of interactions, and its shelf."""

    name: str
    number: int
    user_ids: pa.StringArray
    tastes: Tastes
    interactions: Numbers
    shelf: Shelf


@dataclass(frozen=True)
class Twins:
    """People of the largest domain who also live in a smaller one under another id."""

    target_domain: str
    source_ids: pa.StringArray
    target_ids: pa.StringArray


@dataclass(frozen=True)
class _Items:
    ids: pa.StringArray
    places: Reals
    popularity: Reals

    def take(self, rows: Numbers) -> _Items:
        return _Items(self.ids.take(pa.array(rows)), self.places[rows], self.popularity[rows])


def draws(settings: WorldSettings, purpose: str, *name: int | str) -> np.random.Generator:
    """The random numbers of one purpose: a function of the seed and the name alone."""
    text = "/".join(map(str, (settings.seed, purpose, *name)))
    key = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def domain_name(number: int) -> str:
    """Name of a domain by its number from 0, the largest: points of the compass, places, then `market-<number>`."""
    return _NAMES[number] if number < len(_NAMES) else f"market-{number + 1}"


def sizes(settings: WorldSettings, number: int) -> tuple[int, int, int]:
    """Users, items and interactions of a domain; ten users, ten items and one interaction per user at least."""
    scale = settings.shrink**number
    users = max(round(settings.users * scale), 10)
    return users, max(round(settings.items * scale), 10), max(round(settings.interactions * scale), users)


def populate(settings: WorldSettings) -> tuple[list[Domain], list[Twins]]:
    """All domains, the largest first, and the twins of each smaller one."""
    largest_tastes = _new_tastes(settings, 0, sizes(settings, 0)[0])
    largest_items = _new_items(settings, 0, sizes(settings, 0)[1])
    ids = _numbered("u", np.arange(len(largest_tastes.topics)), 6)
    domains = [_domain(settings, 0, ids, largest_tastes, largest_items)]
    twins = []
    for number in range(1, settings.domains):
        user_ids, tastes, twin = _users(settings, number, ids, largest_tastes)
        domains.append(_domain(settings, number, user_ids, tastes, _items(settings, number, largest_items)))
        twins.append(twin)
    return domains, twins


def _users(
    settings: WorldSettings, number: int, largest_ids: pa.StringArray, largest: Tastes
) -> tuple[pa.StringArray, Tastes, Twins]:
    """Users of a smaller domain in random order: shared people, twins, and people who live nowhere else.

    Twins and natives are numbered alike, by their place in that order, so that no id tells who is a twin.
    """
    users = sizes(settings, number)[0]
    shared = min(round(users * settings.shared_users), len(largest_ids))
    known = min(shared + round(users * settings.twins), len(largest_ids))
    random = draws(settings, "residents", number)
    people = random.permutation(len(largest_ids))[:known]
    natives = _new_tastes(settings, number, users - known)
    slots = random.permutation(users)
    own_ids = _numbered(f"{domain_name(number)}-u", slots[shared:], 6)
    all_ids = pa.concat_arrays([largest_ids.take(pa.array(people[:shared])), own_ids])
    order = np.argsort(slots)
    tastes = _joined(largest.take(people), natives).take(order)
    twins = Twins(domain_name(number), largest_ids.take(pa.array(people[shared:])), own_ids.slice(0, known - shared))
    return all_ids.take(pa.array(order)), tastes, twins


def _items(settings: WorldSettings, number: int, largest: _Items) -> _Items:
    """Items of a smaller domain: some that the largest also offers, the rest its own."""
    items = sizes(settings, number)[1]
    shared = min(round(items * settings.shared_items), len(largest.places))
    chosen = draws(settings, "offers", number).permutation(len(largest.places))[:shared]
    common, own = largest.take(chosen), _new_items(settings, number, items - shared)
    return _Items(
        pa.concat_arrays([common.ids, own.ids]),
        np.concatenate([common.places, own.places]),
        np.concatenate([common.popularity, own.popularity]),
    )


def _domain(settings: WorldSettings, number: int, ids: pa.StringArray, tastes: Tastes, items: _Items) -> Domain:
    placed = items.take(np.argsort(items.places, kind="stable"))
    shelf = Shelf(placed.ids, placed.places, np.concatenate([[0.0], np.cumsum(placed.popularity)]))
    return Domain(domain_name(number), number, ids, tastes, _activity(settings, number), shelf)


def _activity(settings: WorldSettings, number: int) -> Numbers:
    """Interactions of each user, one at least, in all as many as the domain has."""
    users, _, interactions = sizes(settings, number)
    share = np.cumsum(draws(settings, "activity", number).lognormal(0.0, _ACTIVITY_SPREAD, users))
    until = np.floor(share / share[-1] * (interactions - users) + 0.5).astype(np.int64)
    counts: Numbers = 1 + np.diff(until, prepend=0)
    return counts


def _new_tastes(settings: WorldSettings, number: int, people: int) -> Tastes:
    random = draws(settings, "tastes", number)
    liked = min(TOPICS_PER_PERSON, settings.topics)
    topics = _distinct(random, people, liked, settings.topics)
    weights = np.cumsum(random.gamma(_WEIGHTS, size=(people, liked)), axis=1)
    return Tastes(topics, weights / weights[:, -1:], random.random((people, liked)))


def _distinct(random: np.random.Generator, rows: int, columns: int, values: int) -> Numbers:
    """Rows of distinct numbers below `values`, by Floyd's way: draw below a growing bound, take the bound if seen."""
    chosen = np.empty((rows, columns), np.int64)
    for column, bound in enumerate(range(values - columns, values)):
        drawn = random.integers(0, bound + 1, rows)
        seen = (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(seen, bound, drawn)
    return chosen


def _new_items(settings: WorldSettings, number: int, items: int) -> _Items:
    random = draws(settings, "items", number)
    prefix = "i" if number == 0 else f"{domain_name(number)}-i"
    places = random.integers(0, settings.topics, items) + random.random(items)
    return _Items(_numbered(prefix, np.arange(items), 5), places, random.lognormal(0.0, _POPULARITY_SPREAD, items))


def _joined(first: Tastes, second: Tastes) -> Tastes:
    return Tastes(
        np.concatenate([first.topics, second.topics]),
        np.concatenate([first.weights, second.weights]),
        np.concatenate([first.centres, second.centres]),
    )


def _numbered(prefix: str, numbers: Numbers, digits: int) -> pa.StringArray:
    """Ids such as `u000123`."""
    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), text, "")
