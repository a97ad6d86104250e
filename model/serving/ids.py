"""Ids that are asked for: their numbers in a domain, and the nearest known ones where one is unknown. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from model.serving.catalogue import Catalogue, numbers_of, place_of
from model.sparse.rows import Longs

_COMPARED = 500
"""Ids on either side, in the order of ids, among which the nearest to an unknown one are sought."""
_SHOWN = 60
"""Characters of an unknown id that a message shows."""


class UnknownError(ValueError):
    """A domain, user or item that the run does not have, with the nearest it has."""


def user_numbers(catalogue: Catalogue, names: Sequence[str]) -> Longs:
    """Numbers of users in a domain, -1 where it does not have one."""
    return numbers_of(catalogue.user_ids, catalogue.user_order, names)


def item_numbers(catalogue: Catalogue, names: Sequence[str]) -> Longs:
    """Numbers of items in a domain, -1 where it does not have one."""
    return numbers_of(catalogue.item_ids, catalogue.item_order, names)


def unknown_domain(domain: str, known: Sequence[str]) -> UnknownError:
    """The error of a domain that the run does not have."""
    return UnknownError(f"domain {shortened(domain)} is unknown; known: {', '.join(known)}")


def unknown_user(catalogue: Catalogue, name: str) -> UnknownError:
    """The error of a user whom the domain does not have."""
    return _unknown("user", name, catalogue, catalogue.user_ids, catalogue.user_order)


def unknown_item(catalogue: Catalogue, name: str) -> UnknownError:
    """The error of an item that the domain does not have."""
    return _unknown("item", name, catalogue, catalogue.item_ids, catalogue.item_order)


def unknown_history(catalogue: Catalogue, ignored: Mapping[str, list[str]]) -> UnknownError:
    """The error of a new user none of whose items says anything in the domain.

    Args:
        catalogue: the domain.
        ignored: the items, each with the domains that have it.
    """
    elsewhere = [f"{shortened(item)} is in {', '.join(domains)} only" for item, domains in ignored.items() if domains]
    item = next(iter(ignored), "")
    near = f"near {shortened(item)}: {', '.join(_nearest(catalogue.item_ids, catalogue.item_order, item))}"
    return UnknownError(
        f"none of the new user's items is in domain {catalogue.domain!r} ({len(catalogue.item_ids):,} items), "
        f"must be one at least; {'; '.join(elsewhere[:3]) or near}"
    )


def shortened(name: str) -> str:
    """A name in quotes, as far as a message shows it."""
    return repr(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!r}…"


def _unknown(kind: str, name: str, catalogue: Catalogue, ids: pa.LargeStringArray, order: Longs) -> UnknownError:
    return UnknownError(
        f"{kind} {shortened(name)} is not in domain {catalogue.domain!r} ({len(ids):,} {kind}s); "
        f"near: {', '.join(_nearest(ids, order, name))}"
    )


def _nearest(ids: pa.LargeStringArray, order: Longs, name: str) -> list[str]:
    """The most similar of the ids around a name's place in their order; three of them where none is similar."""
    place = place_of(ids, order, name)
    around = ids.take(order[max(place - _COMPARED, 0) : place + _COMPARED]).to_pylist()
    return difflib.get_close_matches(name, around, n=3) or ids.take(order[max(place - 2, 0) :][:3]).to_pylist()
