"""Numbers of requested ids in a domain, and errors that name the nearest known ids. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.store.files import fold_name, show_name
from model.serving.catalogue import Catalogue, find_numbers, find_position
from model.sparse.rows import Longs

_COMPARED = 500
"""Ids on either side, in the order of ids, that are compared with an unknown one."""
_SHOWN = 60
"""Characters of an unknown id in a message, at most."""


class UnknownError(ValueError):
    """A domain, user or item that the run does not have; the message has the nearest ids."""


def user_numbers(catalogue: Catalogue, names: Sequence[str]) -> Longs:
    """Numbers of users in a domain, -1 for unknown ones."""
    return find_numbers(catalogue.user_ids, catalogue.user_order, names)


def item_numbers(catalogue: Catalogue, names: Sequence[str]) -> Longs:
    """Numbers of items in a domain, -1 for unknown ones."""
    return find_numbers(catalogue.item_ids, catalogue.item_order, names)


def unknown_domain(domain: str, known: Sequence[str]) -> UnknownError:
    """The error for a domain that the run does not have."""
    alike = [name for name in known if fold_name(name) == fold_name(domain)]
    hint = f", did you mean {alike[0]!r}?" if alike else ";"
    shown = show_name(domain) if alike else shortened(domain)
    return UnknownError(f"domain {shown} is unknown{hint} known: {', '.join(known)}")


def unknown_user(catalogue: Catalogue, name: str) -> UnknownError:
    """The error for a user who is not in the domain."""
    return _unknown("user", name, catalogue, catalogue.user_ids, catalogue.user_order)


def unknown_item(catalogue: Catalogue, name: str) -> UnknownError:
    """The error for an item that is not in the domain."""
    return _unknown("item", name, catalogue, catalogue.item_ids, catalogue.item_order)


def unknown_history(catalogue: Catalogue, ignored: Mapping[str, list[str]]) -> UnknownError:
    """The error for a new user whose items give no recommendations in the domain.

    Args:
        catalogue: the domain.
        ignored: the items, and the domains that have each.
    """
    elsewhere = [f"{shortened(item)} is in {', '.join(domains)} only" for item, domains in ignored.items() if domains]
    item = next(iter(ignored), "")
    near = f"near {shortened(item)}: {', '.join(_nearest(catalogue.item_ids, catalogue.item_order, item))}"
    return UnknownError(
        f"none of the new user's items is in domain {catalogue.domain!r} ({len(catalogue.item_ids):,} items), "
        f"must be one at least; {'; '.join(elsewhere[:3]) or near}"
    )


def shortened(name: str) -> str:
    """A name in quotes, shortened for a message."""
    return repr(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!r}…"


def _unknown(kind: str, name: str, catalogue: Catalogue, ids: pa.LargeStringArray, order: Longs) -> UnknownError:
    return UnknownError(
        f"{kind} {shortened(name)} is not in domain {catalogue.domain!r} ({len(ids):,} {kind}s); "
        f"near: {', '.join(_nearest(ids, order, name))}"
    )


def _nearest(ids: pa.LargeStringArray, order: Longs, name: str) -> list[str]:
    """Ids that differ in case or blanks alone, then the most similar around a name's position in their order; at most
    three, and three of those around it if none is similar."""
    name = name.encode("utf-8", "replace").decode()  # arguments that are no UTF-8 have lone surrogates
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(ids))
    alike = ids.filter(pc.equal(folded, name.strip().lower())).to_pylist()
    position = find_position(ids, order, name)
    around = ids.take(order[max(position - _COMPARED, 0) : position + _COMPARED]).to_pylist()
    similar = list(dict.fromkeys([*alike, *difflib.get_close_matches(name, around, n=3)]))[:3]
    return similar or ids.take(order[max(position - 2, 0) :][:3]).to_pylist()
