"""Routes that look things up: users and items by id, histories, what the items file says, aligned pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, HTTPException, Path, Request, Response

from flows.serve import bodies
from flows.serve.bodies import (
    MOST_TOP,
    Aligned,
    AlignedNode,
    Anchor,
    DomainHistory,
    DomainInPath,
    FoundItems,
    FoundUsers,
    ItemInPath,
    Items,
    KnownItem,
    KnownUser,
    Search,
    Top,
    UserHistory,
    UserInPath,
)
from flows.serve.items_file import PICTURE_TYPES
from flows.serve.recommendation_routes import Present
from flows.serve.served_run import Generation
from model.serving.catalogue import Catalogue, find_position
from model.serving.ids import item_numbers, shortened, unknown_domain, unknown_item, unknown_user, user_numbers
from model.serving.recommender import UnknownError
from model.sparse.rows import Longs

Kind = Annotated[Literal["users", "items"], Path(description="what the id names", examples=["users"])]


def lookup_routes(present: Present) -> APIRouter:
    """Routes under /v1.

    Args:
        present: the generation that is served, read once for each request.
    """
    router = APIRouter(prefix="/v1")
    _add_searches(router, present)
    _add_details(router, present)

    @router.get("/history/{user}")
    def history(request: Request, user: UserInPath) -> UserHistory:
        """The train items of a user in every domain that has the user."""
        catalogues = present(request).catalogues
        domains = [history for catalogue in catalogues.values() for history in _histories(catalogue, user)]
        if not domains:
            raise UnknownError(f"user {shortened(user)} is in none of the {len(catalogues)} domains")
        return UserHistory(user=user, domains=domains)

    @router.get("/aligned/{kind}/{domain}/{id}")
    def aligned(request: Request, kind: Kind, domain: DomainInPath, id: UserInPath) -> Aligned:  # noqa: A002
        """Users or items of other domains that a user or an item is aligned with, and the anchors that both reach."""
        generation = present(request)
        node = _node(_catalogue(generation, domain), kind, id)
        return Aligned(partners=None if generation.aligned is None else _partners(generation, domain, node))

    return router


def _add_searches(router: APIRouter, present: Present) -> None:
    @router.get("/domains")
    def domains(request: Request) -> list[bodies.Domain]:
        """All domains."""
        catalogues = present(request).catalogues.items()
        return [
            bodies.Domain(domain=name, users=len(catalogue.user_ids), items=len(catalogue.item_ids))
            for name, catalogue in catalogues
        ]

    @router.get("/users/{domain}")
    def users(request: Request, domain: DomainInPath, search: Search = "", top: Top = 20) -> FoundUsers:
        """Users of a domain whose ids begin with some text, then those whose ids contain it."""
        catalogue = _catalogue(present(request), domain)
        numbers = _search(catalogue.user_ids, catalogue.user_order, search, top)
        lengths = catalogue.indptr[1:] - catalogue.indptr[:-1]
        return FoundUsers(users=[KnownUser(user=name, items=int(lengths[n])) for n, name in numbers])

    @router.get("/items/{domain}")
    def items(request: Request, domain: DomainInPath, search: Search = "", top: Top = 20) -> FoundItems:
        """Items of a domain whose ids begin with some text, then those whose ids or titles contain it."""
        generation = present(request)
        catalogue = _catalogue(generation, domain)
        found = dict(_search(catalogue.item_ids, catalogue.item_order, search, top))
        if generation.items and search and len(found) < top:
            titled = generation.items.titled(search, MOST_TOP)
            found |= {int(n): name for n, name in zip(item_numbers(catalogue, titled), titled, strict=True) if n >= 0}
        return FoundItems(items=_known_items(catalogue, list(found)[:top]))


def _add_details(router: APIRouter, present: Present) -> None:
    @router.post("/details")
    def details(request: Request, body: Items) -> bodies.ItemDetails:
        """Titles and further columns of items, from the items file; of those items that it has."""
        file = present(request).items
        found = file.details(body.items) if file else {}
        return bodies.ItemDetails(
            items={
                item: bodies.Details(title=row.title, picture=row.has_picture, columns=row.columns)
                for item, row in found.items()
            }
        )

    @router.get("/pictures/{item}", response_class=Response)
    def picture(request: Request, item: ItemInPath) -> Response:
        """An item's picture, from the items file."""
        file = present(request).items
        path = file.picture(item) if file else None
        if path is None:
            raise HTTPException(404, f"item {shortened(item)} has no picture")
        headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'"}
        return Response(path.read_bytes(), headers=headers, media_type=PICTURE_TYPES[path.suffix.lower()])


def _catalogue(generation: Generation, domain: str) -> Catalogue:
    if domain not in generation.catalogues:
        raise unknown_domain(domain, list(generation.catalogues))
    return generation.catalogues[domain]


def _search(ids: pa.LargeStringArray, order: Longs, search: str, top: int) -> list[tuple[int, str]]:
    """Numbers and ids that begin with some text, in the order of ids, then others that contain it."""
    start = find_position(ids, order, search)
    near = ((int(n), ids[int(n)].as_py()) for n in order[start : start + top])
    found = {n: name for n, name in near if name.startswith(search)}
    if len(found) < top:
        contain = pc.match_substring(ids, search, ignore_case=True)
        others = pc.indices_nonzero(contain)[: top + len(found)].to_pylist()
        found |= {n: ids[n].as_py() for n in others}
    return list(found.items())[:top]


def _known_items(catalogue: Catalogue, numbers: list[int]) -> list[KnownItem]:
    return [KnownItem(item=catalogue.item_ids[n].as_py(), users=int(catalogue.degrees[n])) for n in numbers]


def _histories(catalogue: Catalogue, user: str) -> Iterator[DomainHistory]:
    (number,) = user_numbers(catalogue, [user])
    if number >= 0:
        known = catalogue.known[catalogue.indptr[number] : catalogue.indptr[number + 1]]
        items = _known_items(catalogue, known[:MOST_TOP].tolist())
        yield DomainHistory(domain=catalogue.domain, items=items, total=known.size)


def _node(catalogue: Catalogue, kind: str, name: str) -> int:
    """A user's or item's number in the domain's graph."""
    if kind == "users":
        (number,) = user_numbers(catalogue, [name])
        if number < 0:
            raise unknown_user(catalogue, name)
        return int(number)
    (number,) = item_numbers(catalogue, [name])
    if number < 0:
        raise unknown_item(catalogue, name)
    return len(catalogue.user_ids) + int(number)


def _partners(generation: Generation, domain: str, node: int) -> list[AlignedNode]:
    assert generation.aligned
    return [
        AlignedNode(
            domain=partner.domain,
            kind=partner.node.kind,
            id=partner.node.id,
            similarity=partner.similarity,
            is_same=partner.is_same,
            anchors=[Anchor(kind=anchor.kind, id=anchor.id) for anchor in partner.anchors],
            shared=partner.shared,
        )
        for partner in generation.aligned.partners(domain, node)
    ]
