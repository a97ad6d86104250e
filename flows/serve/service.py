"""The HTTP service of a run: read-only, without torch or Prefect. Every error is problem+json."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from flows.serve.bodies import Fallback, Health, Ready
from flows.serve.http.middleware import CorsMiddleware, GuardMiddleware, RequestMiddleware, print_line
from flows.serve.http.pages import page_routes
from flows.serve.http.problems import MEDIA_TYPE, Problem, add_problem_handlers
from flows.serve.lookup_routes import lookup_routes
from flows.serve.recommendation_routes import recommendation_routes
from flows.serve.served_run import Generation, ServedRun

OPEN_PATHS = frozenset({"/", "/docs", "/page.css", "/page.js", "/icon.svg", "/health", "/ready"})
"""Paths without data of the run, which need no token: probes, and pages that ask for one."""
_PROBLEMS = {401: "the token is missing or wrong", 404: "unknown names", 413: "too large", 422: "malformed"}


@dataclass(frozen=True)
class ServiceSettings:
    """How the service answers.

    Attributes:
        token: bearer token that requests must have, except those for `OPEN_PATHS`; None: everyone may ask.
        origins: of pages of other sites that browsers may let ask, or `*`.
        access_log: write a line of JSON to standard output for each request.
        fallback: what users without history get where a request does not say.
    """

    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    access_log: bool = False
    fallback: Fallback = "none"


def service(served: ServedRun, settings: ServiceSettings = ServiceSettings()) -> FastAPI:
    """Build the application: pages at / and /docs, JSON API under /v1, OpenAPI at /openapi.json, /metrics.

    Args:
        served: the run.
        settings: how it answers.
    """
    run = served.generation.run
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    app = FastAPI(
        title=f"EDDA: {run}",
        version="1",
        summary="Recommendations in many domains.",
        redirect_slashes=False,
        lifespan=_limit_threads,
        docs_url=None,
        redoc_url=None,
        responses={
            status: {"model": Problem, "description": text, "content": content} for status, text in _PROBLEMS.items()
        },
    )
    registry = CollectorRegistry()
    app.add_middleware(GuardMiddleware, token=settings.token, is_open=OPEN_PATHS)
    if settings.origins:
        app.add_middleware(CorsMiddleware, origins=settings.origins)
    app.add_middleware(RequestMiddleware, registry=registry, access_log=print_line if settings.access_log else None)
    add_problem_handlers(app)

    def present(request: Request) -> Generation:
        generation = served.generation
        request.state.generation = generation.label
        return generation

    _add_probes(app, served)
    _add_metrics(app, registry)
    app.include_router(page_routes(app))
    app.include_router(lookup_routes(present))
    app.include_router(recommendation_routes(present, settings.fallback))
    return app


@asynccontextmanager
async def _limit_threads(_app: FastAPI) -> AsyncIterator[None]:
    """Answer requests with one thread for each core; more would only compete for the interpreter's lock."""
    current_default_thread_limiter().total_tokens = len(os.sched_getaffinity(0))
    yield


def _add_probes(app: FastAPI, served: ServedRun) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Health:
        """Whether the service answers, and for which run."""
        return Health(status="ok", run=served.generation.run)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready")
    async def ready() -> Ready:
        """Which generation is served: requests are answered from the moment that the service listens."""
        generation = served.generation
        return Ready(
            status="ready", run=generation.run, generation=generation.id, key=generation.key, made=generation.made
        )


def _add_metrics(app: FastAPI, registry: CollectorRegistry) -> None:
    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Requests and their times since the start, of all workers together."""
        shown = registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            MultiProcessCollector(shown := CollectorRegistry())  # type: ignore[no-untyped-call]
        return Response(generate_latest(shown), media_type=CONTENT_TYPE_LATEST)
