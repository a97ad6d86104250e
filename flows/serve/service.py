"""The HTTP service of a run: read-only, without torch or Prefect. Unknown names are 404, malformed requests 422."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Self
from urllib.parse import unquote

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.serving.explanations import REASONS
from model.serving.ids import UnknownError
from model.serving.recommender import RankedBy, Ranking, Recommender

MOST_BYTES = 2**20
"""Largest body of a request."""


class RequestMiddleware:
    """ASGI middleware: counts requests, limits their bodies, and leaves paths percent-encoded.

    Routes see the path as it was sent, so that an id may contain a slash, and decode the ids themselves.

    Args:
        app: the service.
        registry: gets `edda_requests_total` by route and status and `edda_request_seconds` by route.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter("edda_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._seconds = Histogram("edda_request_seconds", "Time to the answer's end.", ["route"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it; other events, such as the server's start, are only passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "raw_path" in scope:
            scope["path"] = scope["raw_path"].decode("latin-1")
        status, started = 500, time.perf_counter()

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, _limit_body(receive), send_and_note_status)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._requests.labels(route, status).inc()
            self._seconds.labels(route).observe(time.perf_counter() - started)


def _limit_body(receive: Receive) -> Receive:
    """Receive the same messages, but respond with status 413 once a body is too large, whatever its stated length."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message: dict[str, Any] = dict(await receive())
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise HTTPException(413, f"body is larger than {MOST_BYTES:,} bytes; ask in several requests")
        return message

    return receive_limited


MOST_TOP = MOST_NAMES = 1_000
"""Most items of a list, and most users or items of a request."""
MOST_ANSWERS = 100_000
"""Most items that one request may ask for in total, users times items."""


def _decode(segment: str) -> str:
    return unquote(segment, errors="strict")


def _require_encodable(name: str) -> str:
    """Refuse half a surrogate pair, which JSON can contain but no response can: UnicodeEncodeError, a ValueError."""
    name.encode()
    return name


DomainInPath = Annotated[str, BeforeValidator(_decode), Path(description="a domain's name", examples=["books"])]
UserInPath = Annotated[str, BeforeValidator(_decode), Path(description="a user's id in the logs", examples=["u0042"])]
ItemInPath = Annotated[str, BeforeValidator(_decode), Path(description="an item's id in the logs", examples=["i0007"])]
Top = Annotated[int, Query(ge=1, le=MOST_TOP, description="items to return, at most")]
Why = Annotated[bool, Query(description="say for each item which items of the user it follows from")]
Name = Annotated[str, AfterValidator(_require_encodable)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]


class _RequestBody(BaseModel):
    """A request's body, without unknown keys and without conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    domain: Name = Field(examples=["books"])
    top: int = Field(10, ge=1, le=MOST_TOP)
    why: bool = Field(False, description="say for each item which items of the user it follows from")


class Users(_RequestBody):
    """Users of one domain."""

    users: Names = Field(examples=[["u0042", "u0043"]])

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        if self.top * len(self.users) > MOST_ANSWERS:
            raise ValueError(f"top × users must be ≤ {MOST_ANSWERS:,}; ask in several requests")
        return self


class History(_RequestBody):
    """Items that a user who was not in training knows."""

    items: Names = Field(examples=[["i0007", "i0011"]])


class Domain(BaseModel):
    """One domain and its size."""

    domain: str
    users: int
    items: int


class Reason(BaseModel):
    """An item of the user's history: where the user has it, and its share of the recommended item's evidence."""

    item: str
    domains: list[str]
    share: float = Field(ge=0.0, le=1.0)


class Reasons(BaseModel):
    """The items of the history that most evidence comes from, and the two shares of the score, which add up to 1."""

    because_of: list[Reason]
    vectors: float = Field(ge=0.0, le=1.0)
    evidence: float = Field(ge=0.0, le=1.0)


class Listed(BaseModel):
    """An item of a list. `why` is there if it was asked for, and null if the item is ranked by popularity only."""

    rank: int
    item: str
    score: float
    why: Reasons | None = None


class Answer(BaseModel):
    """A list, best first.

    It is ranked by vectors and evidence (blend) or by vectors alone; for a user without a vector in the domain, by
    evidence, or else by popularity.
    """

    by: RankedBy
    items: list[Listed]


class ForUser(BaseModel):
    """A user's list; null for an unknown user."""

    user: str
    by: RankedBy | None
    items: list[Listed] | None


class ForUsers(BaseModel):
    """Lists in the order of the users asked for."""

    results: list[ForUser]


class ForNewUser(Answer):
    """A new user's list, the items that it is based on, and the ignored ones with the domains that have them."""

    used: list[str]
    ignored: dict[str, list[str]]


def service(recommender: Recommender, run: str) -> FastAPI:
    """Build the application for one run: JSON API, OpenAPI at /openapi.json, Prometheus metrics at /metrics.

    Args:
        recommender: of the run; all domains are opened before the first request.
        run: the run's name.
    """
    catalogues = {name: recommender.catalogue(name) for name in recommender.domains}
    sizes = [
        Domain(domain=name, users=len(catalogue.user_ids), items=len(catalogue.item_ids))
        for name, catalogue in catalogues.items()
    ]
    _load_compiled_code(recommender)
    app = FastAPI(
        title=f"EDDA: {run}",
        version="1",
        summary="Recommendations in many domains.",
        redirect_slashes=False,
        lifespan=_limit_threads,
    )
    registry = CollectorRegistry()
    app.add_middleware(RequestMiddleware, registry=registry)
    app.add_exception_handler(UnknownError, _handle_unknown_name)
    app.add_exception_handler(RequestValidationError, _handle_malformed_request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the service answers, and for which run."""
        return {"status": "ok", "run": run}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Requests and their times since the start."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/domains")
    async def domains() -> list[Domain]:
        """All domains."""
        return sizes

    _add_recommendation_routes(app, recommender)
    return app


@asynccontextmanager
async def _limit_threads(_app: FastAPI) -> AsyncIterator[None]:
    """Answer requests with one thread for each core; more would only compete for the interpreter's lock."""
    current_default_thread_limiter().total_tokens = len(os.sched_getaffinity(0))
    yield


def _add_recommendation_routes(app: FastAPI, recommender: Recommender) -> None:
    @app.get("/v1/recommendations/{domain}/{user}", response_model=Answer)
    def recommendations(domain: DomainInPath, user: UserInPath, top: Top = 10, why: Why = False) -> Response:
        """The best items for a user, without those of training in the domain."""
        ranking = recommender.for_user(domain, user, top, _reason_count(why))
        return _json_response(Answer(**_list_fields(ranking, why)))

    @app.get("/v1/similar/{domain}/{item}", response_model=Answer)
    def similar(domain: DomainInPath, item: ItemInPath, top: Top = 10, why: Why = False) -> Response:
        """The items most similar to an item."""
        ranking = recommender.similar(domain, item, top, _reason_count(why))
        return _json_response(Answer(**_list_fields(ranking, why)))

    @app.post("/v1/recommendations", response_model=ForUsers)
    def recommendations_of_many(body: Users) -> Response:
        """The best items for many users."""
        rankings = recommender.for_users(body.domain, body.users, body.top, _reason_count(body.why))
        results = [ForUser(user=user, **_list_fields(rankings[user], body.why)) for user in body.users]
        return _json_response(ForUsers(results=results))

    @app.post("/v1/new-user", response_model=ForNewUser)
    def new_user(body: History) -> Response:
        """The best items for a user who was not in training, from the items that the user knows, in any domain."""
        ranking = recommender.for_new_user(body.domain, body.items, body.top, _reason_count(body.why))
        fields = _list_fields(ranking, body.why)
        return _json_response(ForNewUser(**fields, used=ranking.used, ignored=ranking.ignored))


def _load_compiled_code(recommender: Recommender) -> None:
    """Ask for one recommendation in each domain, so that the first request does not wait for compiled code."""
    for domain in recommender.domains:
        catalogue = recommender.catalogue(domain)
        if len(catalogue.user_ids) and len(catalogue.item_ids):
            recommender.for_user(domain, catalogue.user_ids[0].as_py(), 1, REASONS)


def _reason_count(why: bool) -> int:
    return REASONS if why else 0


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


def _json_response(body: BaseModel) -> Response:
    """Serialise on the thread that answers the request: FastAPI would validate again, in a second thread's turn."""
    return Response(body.model_dump_json(exclude_unset=True), media_type="application/json")


def _handle_unknown_name(_request: Request, error: Exception) -> Response:
    return _error_response(404, str(error))


def _handle_malformed_request(_request: Request, error: Exception) -> Response:
    """Say what is wrong and where, without the input, which may not be text that can be sent back."""
    assert isinstance(error, RequestValidationError)
    details = [{name: detail[name] for name in ("loc", "msg", "type")} for detail in error.errors()]
    return _error_response(422, details)


def _error_response(status: int, detail: Any) -> Response:
    return Response(json.dumps({"detail": detail}), status, media_type="application/json")
