"""What every request to the service passes: names in paths as they were sent, a largest body, counts and times."""

from __future__ import annotations

import time
from typing import Any

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
