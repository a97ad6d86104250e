"""Routes that recommend: for a user, for many, for a new one, and items like an item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel

from flows.serve.bodies import (
    Answer,
    DomainInPath,
    Fallback,
    ForNewUser,
    ForUser,
    ForUsers,
    History,
    ItemInPath,
    Listed,
    ListQuery,
    ListWishes,
    Reason,
    Reasons,
    UserInPath,
    Users,
)
from flows.serve.item_filters import RequestFilters
from flows.serve.served_run import Generation
from model.serving.explanations import REASONS
from model.serving.ids import UnknownError
from model.serving.recommender import Ranking
from model.serving.scorer import ItemMask

Present = Callable[[Request], Generation]
"""The generation that answers a request."""


def recommendation_routes(present: Present, fallback: Fallback) -> APIRouter:
    """Routes under /v1.

    Args:
        present: the generation that is served, read once for each request.
        fallback: what users without history get where a request does not say.
    """
    router = APIRouter(prefix="/v1")
    _add_lists(router, present, fallback)
    _add_batches(router, present, fallback)
    return router


def _add_lists(router: APIRouter, present: Present, fallback: Fallback) -> None:
    @router.get("/recommendations/{domain}/{user}", response_model=Answer)
    def recommendations(
        request: Request, domain: DomainInPath, user: UserInPath, wishes: Annotated[ListQuery, Query()]
    ) -> Response:
        """The best items for a user, without those of training in the domain."""
        generation = present(request)
        allowed, recommender = _mask(generation, domain, wishes), generation.recommender
        try:
            ranking = recommender.for_user(domain, user, wishes.top, _reasons(wishes), allowed=allowed)
        except UnknownError:
            if (wishes.fallback or fallback) == "none":
                raise
            ranking = recommender.popular(domain, wishes.top, allowed=allowed)
        return json_response(Answer(**_list_fields(ranking, wishes.why)))

    @router.get("/similar/{domain}/{item}", response_model=Answer)
    def similar(
        request: Request, domain: DomainInPath, item: ItemInPath, wishes: Annotated[ListQuery, Query()]
    ) -> Response:
        """The items most similar to an item."""
        generation = present(request)
        allowed = _mask(generation, domain, wishes)
        ranking = generation.recommender.similar(domain, item, wishes.top, _reasons(wishes), allowed=allowed)
        return json_response(Answer(**_list_fields(ranking, wishes.why)))


def _add_batches(router: APIRouter, present: Present, fallback: Fallback) -> None:
    @router.post("/recommendations", response_model=ForUsers)
    def recommendations_of_many(request: Request, body: Users) -> Response:
        """The best items for many users."""
        generation = present(request)
        allowed, recommender = _mask(generation, body.domain, body), generation.recommender
        rankings = recommender.for_users(body.domain, body.users, body.top, _reasons(body), allowed=allowed)
        if None in rankings.values() and (body.fallback or fallback) == "popularity":
            popular = recommender.popular(body.domain, body.top, allowed=allowed)
            rankings = {user: ranking or popular for user, ranking in rankings.items()}
        results = [ForUser(user=user, **_list_fields(rankings[user], body.why)) for user in body.users]
        return json_response(ForUsers(results=results))

    @router.post("/new-user", response_model=ForNewUser)
    def new_user(request: Request, body: History) -> Response:
        """The best items for a user who was not in training, from the items that the user knows, in any domain."""
        generation, or_popular = present(request), (body.fallback or fallback) == "popularity"
        if not body.items and not or_popular:
            raise HTTPException(422, "items: none given, must be at least one unless the fallback is popularity")
        allowed = _mask(generation, body.domain, body)
        ranking = generation.recommender.for_new_user(
            body.domain, body.items, body.top, _reasons(body), allowed=allowed, or_popular=or_popular
        )
        fields = _list_fields(ranking, body.why)
        return json_response(ForNewUser(**fields, used=ranking.used, ignored=ranking.ignored))


def _mask(generation: Generation, domain: str, wishes: ListWishes) -> ItemMask | None:
    return generation.filters.mask(domain, RequestFilters(wishes.allow, wishes.deny, wishes.values))


def _reasons(wishes: ListWishes) -> int:
    return REASONS if wishes.why else 0


def _list_fields(ranking: Ranking | None, why: bool) -> dict[str, Any]:
    """Fields `by` and `items` of a response; fields of items that are not set are not sent."""
    if ranking is None:
        return {"by": None, "items": None}
    items = [Listed(rank=row.rank, item=row.item, score=row.score) for row in ranking.items]
    for listed, row in zip(items, ranking.items, strict=True) if why else ():
        listed.why = row.why and Reasons(
            because_of=[Reason(**reason._asdict()) for reason in row.why.because_of],
            vectors=row.why.vectors,
            evidence=row.why.evidence,
        )
    return {"by": ranking.by, "items": items}


def json_response(body: BaseModel) -> Response:
    """Serialise on the thread that answers the request: FastAPI would validate again, in a second thread's turn."""
    return Response(body.model_dump_json(exclude_unset=True), media_type="application/json")
