"""Pages that the service sends to browsers: the one to look at recommendations, and the list of its paths."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""No script or style but the service's own files, and no request to anything but the service."""

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path → file in flows/serve/page, media type."""


def page_routes(app: FastAPI) -> APIRouter:
    """Routes of the pages, which hold no data of the run.

    Args:
        app: whose paths /docs lists.
    """
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in _FILES.items():
        _add_file(router, path, files("flows.serve").joinpath("page", name).read_bytes(), media_type)
    environment = Environment(
        loader=PackageLoader("flows.serve", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )

    @router.get("/docs")
    async def docs() -> Response:
        """The paths of the service, their parameters and bodies."""
        schema = app.openapi()
        page = environment.get_template("docs.html.j2").render(
            paths=_described(schema), schemas=schema["components"]["schemas"], type_of=_type_name
        )
        return Response(page, headers=_HEADERS, media_type="text/html; charset=utf-8")

    return router


def _add_file(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    async def file() -> Response:
        return Response(content, headers=_HEADERS, media_type=media_type)

    router.add_api_route(path, file, methods=["GET", "HEAD"])


def _described(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Each path and method with what it takes and what it gives."""
    rows = []
    for path, methods in schema["paths"].items():
        for method, call in methods.items():
            body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            answer = call["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
            rows.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "summary": call.get("description") or call.get("summary", ""),
                    "parameters": call.get("parameters", []),
                    "body": _type_name(body) if body else None,
                    "answer": _type_name(answer) if answer else None,
                }
            )
    return rows


def _type_name(schema: dict[str, Any]) -> str:
    """A JSON schema as a few words: `integer`, `list of Listed`, `Reasons or null`."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type_name(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_type_name(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_type_name(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))
