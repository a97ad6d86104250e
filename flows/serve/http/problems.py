"""Errors as problem+json (RFC 9457): title, status and detail, the request's id, and where a request is malformed."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from flows.serve.item_filters import FilterError
from model.serving.ids import UnknownError

MEDIA_TYPE = "application/problem+json"


class MalformedPlace(BaseModel):
    """A place in a request, and what is wrong there."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """Why a request was not answered."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[MalformedPlace] | None = None


def problem_response(
    scope: MutableMapping[str, Any],
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """Say why a request was not answered.

    Args:
        scope: of the request, with its id.
        status: of the response, at least 400.
        detail: a sentence for people.
        headers: of the response.
        errors: what is wrong in a malformed request, and where.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": scope.get("state", {}).get("request_id", ""),
        **({"errors": list(errors)} if errors else {}),
    }
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Let an application answer all errors that it knows as problem+json."""
    app.add_exception_handler(UnknownError, _handle_unknown_name)
    app.add_exception_handler(FilterError, _handle_filter)
    app.add_exception_handler(RequestValidationError, _handle_malformed_request)
    app.add_exception_handler(HTTPException, _handle_http_error)


def _handle_unknown_name(request: Request, error: Exception) -> Response:
    return problem_response(request.scope, 404, str(error))


def _handle_filter(request: Request, error: Exception) -> Response:
    return problem_response(request.scope, 422, str(error))


def _handle_http_error(request: Request, error: Exception) -> Response:
    """For no such route (404), another method (405), too large a body (413)."""
    assert isinstance(error, HTTPException)
    detail = (
        "no such path; /docs lists all" if error.status_code == 404 and "route" not in request.scope else error.detail
    )
    return problem_response(request.scope, error.status_code, str(detail), headers=error.headers)


def _handle_malformed_request(request: Request, error: Exception) -> Response:
    """Say what is wrong and where, without the input, which may not be text that can be sent back."""
    assert isinstance(error, RequestValidationError)
    errors = [{name: detail[name] for name in ("loc", "msg", "type")} for detail in error.errors()]
    first = errors[0]
    detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" + (
        f" (and {n} more)" if (n := len(errors) - 1) else ""
    )
    return problem_response(request.scope, 422, detail, errors=errors)
