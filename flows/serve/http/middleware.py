"""ASGI middleware: request ids, metrics, the access log, the bearer token, limits, and unexpected errors."""

from __future__ import annotations

import hmac
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Container
from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.serve.http.problems import problem_response

log = logging.getLogger(__name__)

MOST_BYTES = 2**20
"""Largest body of a request."""
REQUEST_ID = "X-Request-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
"""A client's request id that is taken over; it turns up in logs and headers."""
_MOST_PATH = 2_000
"""Characters of a path in the access log."""


class RequestMiddleware:
    """Gives each request an id, counts it, writes the access log, and leaves paths percent-encoded.

    Routes see the path as it was sent, so that an id may contain a slash, and decode the ids themselves.

    Args:
        app: the service.
        registry: gets `edda_requests_total` by route and status and `edda_request_seconds` by route.
        access_log: takes one line of JSON for each request; None: there is no log.
    """

    def __init__(
        self, app: ASGIApp, registry: CollectorRegistry, access_log: Callable[[str], object] | None = None
    ) -> None:
        self._app, self._access_log = app, access_log
        self._requests = Counter("edda_requests", "Requests answered.", ["route", "status"], registry=registry)
        self._seconds = Histogram("edda_request_seconds", "Time to the answer's end.", ["route"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it; other events, such as the server's start, are only passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "raw_path" in scope:
            scope["path"] = scope["raw_path"].decode("latin-1")
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status, size, started = 500, 0, time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route, seconds = getattr(scope.get("route"), "path", "none"), time.perf_counter() - started
            self._requests.labels(route, status).inc()
            self._seconds.labels(route).observe(seconds)
            if self._access_log:
                self._access_log(_log_line(scope, route=route, status=status, seconds=seconds, bytes=size))


def _request_id(scope: Scope) -> str:
    """The client's id if it is sane, else a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex


def _log_line(scope: Scope, **outcome: Any) -> str:
    """One line of JSON, in ASCII; the query and the headers, which may hold secrets, are left out."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": scope["state"]["request_id"],
        "client": (scope.get("client") or ("",))[0],
        "method": scope["method"],
        "path": scope["path"][:_MOST_PATH],
        **outcome,
        "seconds": round(outcome["seconds"], 6),
        "generation": scope["state"].get("generation", ""),
    }
    return json.dumps(line)


def print_line(line: str) -> None:
    """Write a line of the access log to standard output at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class GuardMiddleware:
    """Refuses requests without the token and bodies that are too large, and answers unexpected errors.

    Args:
        app: the service.
        token: what `Authorization: Bearer …` must have; None: everyone may ask.
        is_open: paths that need no token.
    """

    def __init__(self, app: ASGIApp, token: str | None, is_open: Container[str]) -> None:
        self._app, self._is_open = app, is_open
        self._authorization = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._is_refused(scope):
            detail = "this needs a token: send the header `Authorization: Bearer TOKEN`"
            headers = {"WWW-Authenticate": 'Bearer realm="edda"'}
            await problem_response(scope, 401, detail, headers=headers)(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    def _is_refused(self, scope: Scope) -> bool:
        """Whether the token is missing or wrong; the time that this takes does not depend on what is right in it."""
        if self._authorization is None or scope["path"] in self._is_open:
            return False
        given = Headers(scope=scope).get("Authorization", "").encode("latin-1")
        scheme, _, credentials = given.partition(b" ")
        return not hmac.compare_digest(scheme.title() + b" " + credentials.strip(), self._authorization)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._app(scope, _limit_body(receive), send_and_note)
        except Exception:  # whatever it is, the client gets an answer and the log the traceback
            request_id = scope["state"]["request_id"]
            log.exception("request %s failed", request_id)
            if is_started:
                raise
            detail = "an unexpected error; the log of the service has it under the request's id"
            await problem_response(scope, 500, detail)(scope, receive, send)


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


class CorsMiddleware(CORSMiddleware):
    """Starlette's, but what it refuses is a problem as well."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type", REQUEST_ID),
            expose_headers=(REQUEST_ID,),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks whether it may send a request."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        return problem_response({}, answer.status_code, bytes(answer.body).decode(), headers={"Vary": "Origin"})
