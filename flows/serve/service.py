"""The HTTP service of a run: read-only, without torch or Prefect; unknown names are 404, malformed requests 422."""

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


class Border:
    """ASGI middleware around the service.

    Routes see the path percent-encoded as it was sent, so that an id may hold a slash; they decode their parts.

    Args:
        app: the service.
        registry: takes `edda_requests_total` by route and status and `edda_request_seconds` by route.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter("edda_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._seconds = Histogram("edda_request_seconds", "Time to the answer's end.", ["route"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it; whatever else, such as the server's start, is only passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "raw_path" in scope:
            scope["path"] = scope["raw_path"].decode("latin-1")
        status, began = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, _limited(receive), sent)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._requests.labels(route, status).inc()
            self._seconds.labels(route).observe(time.perf_counter() - began)


def _limited(receive: Receive) -> Receive:
    """The same messages; a body that grows too large ends in status 413, whatever length it had promised."""
    size = 0

    async def received() -> Message:
        nonlocal size
        message: dict[str, Any] = dict(await receive())
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise HTTPException(413, f"body is larger than {MOST_BYTES:,} bytes; ask in several requests")
        return message

    return received


MOST_TOP = MOST_NAMES = 1_000
"""Items of a list, and users or items of a request, at most."""
MOST_ANSWERS = 100_000
"""Items that one request may ask for in all, users times items."""


def _decoded(part: str) -> str:
    return unquote(part, errors="strict")


def _text(name: str) -> str:
    """JSON can spell half a character, which no answer could repeat: UnicodeEncodeError, a ValueError."""
    name.encode()
    return name


DomainPart = Annotated[str, BeforeValidator(_decoded), Path(description="a domain's name", examples=["books"])]
UserPart = Annotated[str, BeforeValidator(_decoded), Path(description="a user as the logs say", examples=["u0042"])]
ItemPart = Annotated[str, BeforeValidator(_decoded), Path(description="an item as the logs say", examples=["i0007"])]
Top = Annotated[int, Query(ge=1, le=MOST_TOP, description="items to return, at most")]
Why = Annotated[bool, Query(description="say for each item which items of the user it follows from")]
Name = Annotated[str, AfterValidator(_text)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]


class _Asked(BaseModel):
    """A request's body: closed, and every type meant as it says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    domain: Name = Field(examples=["books"])
    top: int = Field(10, ge=1, le=MOST_TOP)
    why: bool = Field(False, description="say for each item which items of the user it follows from")


class Users(_Asked):
    """Users of one domain."""

    users: Names = Field(examples=[["u0042", "u0043"]])

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        if self.top * len(self.users) > MOST_ANSWERS:
            raise ValueError(f"top × users must be ≤ {MOST_ANSWERS:,}; ask in several requests")
        return self


class History(_Asked):
    """What a user who was not in training knows."""

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
    """The items of the history that most evidence comes from; shares of the score, 1 together."""

    because_of: list[Reason]
    vectors: float = Field(ge=0.0, le=1.0)
    evidence: float = Field(ge=0.0, le=1.0)


class Listed(BaseModel):
    """A place of a list; `why` is there where it was asked for, and null where only popularity speaks for the item."""

    rank: int
    item: str
    score: float
    why: Reasons | None = None


class Answer(BaseModel):
    """A list, best first.

    It is ranked by vectors and evidence (blend), by vectors alone, or for a user who has no vector in the domain by
    evidence, else by popularity.
    """

    by: RankedBy
    items: list[Listed]


class ForUser(BaseModel):
    """A user's list; null for a user that is unknown."""

    user: str
    by: RankedBy | None
    items: list[Listed] | None


class ForUsers(BaseModel):
    """Lists in the order of the users asked for."""

    results: list[ForUser]


class ForNewUser(Answer):
    """A new user's list, the items that it rests on, and the ignored ones with the domains that have them."""

    used: list[str]
    ignored: dict[str, list[str]]


def service(recommender: Recommender, run: str) -> FastAPI:
    """The application: JSON answers about one run, OpenAPI at /openapi.json, Prometheus' text at /metrics.

    Args:
        recommender: answers; all domains are opened before the first request.
        run: the run's name.
    """
    sizes = [Domain(domain=name, **_sizes(recommender, name)) for name in recommender.domains]
    _load_compiled_code(recommender)
    app = FastAPI(
        title=f"EDDA: {run}", version="1", summary="Recommendations in many domains.", redirect_slashes=False,
        lifespan=_few_threads,
    )  # fmt: skip
    registry = CollectorRegistry()
    app.add_middleware(Border, registry=registry)
    app.add_exception_handler(UnknownError, _unknown)
    app.add_exception_handler(RequestValidationError, _malformed)

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

    _add_answers(app, recommender)
    return app


@asynccontextmanager
async def _few_threads(_app: FastAPI) -> AsyncIterator[None]:
    """Answers are made by one thread for each core: more would only pass the interpreter's lock around."""
    current_default_thread_limiter().total_tokens = len(os.sched_getaffinity(0))
    yield


def _add_answers(app: FastAPI, recommender: Recommender) -> None:
    @app.get("/v1/recommendations/{domain}/{user}", response_model=Answer)
    def recommendations(domain: DomainPart, user: UserPart, top: Top = 10, why: Why = False) -> Response:
        """The best items for a user, those of training in the domain left out."""
        return _written(Answer(**_listed(recommender.for_user(domain, user, top, _reasons(why)), why)))

    @app.get("/v1/similar/{domain}/{item}", response_model=Answer)
    def similar(domain: DomainPart, item: ItemPart, top: Top = 10, why: Why = False) -> Response:
        """The items most like an item."""
        return _written(Answer(**_listed(recommender.similar(domain, item, top, _reasons(why)), why)))

    @app.post("/v1/recommendations", response_model=ForUsers)
    def recommendations_of_many(asked: Users) -> Response:
        """The best items for many users."""
        found = recommender.for_users(asked.domain, asked.users, asked.top, _reasons(asked.why))
        results = [ForUser(user=user, **_listed(found[user], asked.why)) for user in asked.users]
        return _written(ForUsers(results=results))

    @app.post("/v1/new-user", response_model=ForNewUser)
    def new_user(asked: History) -> Response:
        """The best items for a user who was not in training, from the items that the user knows, in any domain."""
        found = recommender.for_new_user(asked.domain, asked.items, asked.top, _reasons(asked.why))
        return _written(ForNewUser(**_listed(found, asked.why), used=found.used, ignored=found.ignored))


def _load_compiled_code(recommender: Recommender) -> None:
    """Answer a question to each domain, so that the first request does not wait for compiled code."""
    for domain in recommender.domains:
        catalogue = recommender.catalogue(domain)
        if len(catalogue.user_ids) and len(catalogue.item_ids):
            recommender.for_user(domain, catalogue.user_ids[0].as_py(), 1, REASONS)


def _sizes(recommender: Recommender, name: str) -> dict[str, int]:
    catalogue = recommender.catalogue(name)
    return {"users": len(catalogue.user_ids), "items": len(catalogue.item_ids)}


def _reasons(why: bool) -> int:
    return REASONS if why else 0


def _listed(ranking: Ranking | None, why: bool) -> dict[str, Any]:
    """What an answer says of a list; what is not set is not sent."""
    if ranking is None:
        return {"by": None, "items": None}
    items = [Listed(rank=row.rank, item=row.item, score=row.score) for row in ranking.items]
    for listed, row in zip(items, ranking.items, strict=True) if why else ():
        listed.why = row.why and Reasons(
            because_of=[Reason(**part._asdict()) for part in row.why.because_of],
            vectors=row.why.vectors,
            evidence=row.why.evidence,
        )
    return {"by": ranking.by, "items": items}


def _written(answer: BaseModel) -> Response:
    """As JSON, on the thread that found it: left to FastAPI, checking it again takes a second thread's turn."""
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")


def _unknown(_request: Request, error: Exception) -> Response:
    return _told(404, str(error))


def _malformed(_request: Request, error: Exception) -> Response:
    """What is wrong and where, without the input, which need not be text that can be sent back."""
    assert isinstance(error, RequestValidationError)
    return _told(422, [{name: found[name] for name in ("loc", "msg", "type")} for found in error.errors()])


def _told(status: int, detail: Any) -> Response:
    return Response(json.dumps({"detail": detail}), status, media_type="application/json")
