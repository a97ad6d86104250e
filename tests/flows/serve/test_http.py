"""The service's token, request ids, CORS, probes, access log, problem+json and /docs, over real connections."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest
from fake_stages import edda
from fastapi import FastAPI
from tiny_world import TinyRun

from tests.flows.serve.http_service import Service, running

pytest.importorskip("uvicorn")

from flows.serve.http.middleware import GuardMiddleware, RequestMiddleware
from flows.serve.http.problems import add_problem_handlers

TOKEN = "s3cret-Token.~+/=="
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
SITE = "https://shop.example"


@pytest.fixture(scope="module")
def service(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    options = ("--access-log", "--cors", SITE)
    with running("tiny", tiny_run.store, folder, *options, EDDA_SERVE_TOKEN=TOKEN) as service:
        yield service


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xff"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/domains", "/openapi.json", "/metrics", "/nothing", "//health", "/health/"])
def test_without_the_token_nothing_of_the_run_is_told(service: Service, path: str, headers: dict[str, str]) -> None:
    reply = service.ask(path, **headers)
    assert (reply.status, reply.headers["Content-Type"]) == (401, "application/problem+json")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="edda"'


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token_requests_are_answered(service: Service, scheme: str) -> None:
    assert service.ask("/v1/domains", Authorization=f"{scheme} {TOKEN}").status == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/page.css", "/page.js", "/icon.svg", "/health", "/ready"])
def test_probes_and_pages_need_no_token(service: Service, path: str) -> None:
    assert service.ask(path).status == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/"])
def test_head_has_the_headers_of_get_and_no_body(service: Service, path: str) -> None:
    head, get = service.ask(path, "HEAD"), service.ask(path)
    assert (head.status, head.body) == (200, "")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_readiness_names_the_generation_and_its_date(service: Service, tiny_run: TinyRun) -> None:
    embeddings = tiny_run.artifacts["embeddings"]
    ready = {"status": "ready", "run": "tiny", "generation": "", "key": embeddings.key}
    assert service.ask("/ready").body == {**ready, "made": embeddings.manifest.made["at"]}


def test_a_sane_request_id_is_taken_over(service: Service) -> None:
    assert service.ask("/health", X_Request_ID="a-1_b.C").headers["X-Request-ID"] == "a-1_b.C"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, 'a"b', "a;b", "\xe9", "<b>"])
def test_any_other_request_id_is_replaced(service: Service, given: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", service.ask("/health", X_Request_ID=given).headers["X-Request-ID"])


def test_a_problem_has_the_id_of_its_request(service: Service) -> None:
    reply = service.ask("/v1/similar/books/none", X_Request_ID="q7", **WITH_TOKEN)
    assert (reply.status, reply.body["request_id"], reply.body["status"]) == (404, "q7", 404)
    assert reply.body["detail"].startswith("item 'none' is not in domain 'books'")


@pytest.mark.parametrize(
    ("status", "method", "path", "body"),
    [
        (401, "GET", "/v1/domains", None),
        (404, "GET", "/v1/nothing", None),
        (404, "GET", "/v1/recommendations/nowhere/u0001", None),
        (405, "PUT", "/v1/domains", {}),
        (413, "POST", "/v1/recommendations", {"domain": "books", "users": ["x" * 2**20]}),
        (422, "GET", "/v1/recommendations/books/u0001?top=0", None),
        (422, "GET", "/v1/recommendations/books/u0001?where=genre", None),
        (422, "GET", "/v1/recommendations/books/u0001?where=genre:drama", None),
        (422, "POST", "/v1/recommendations", {"domain": "books"}),
        (422, "POST", "/v1/new-user", {"domain": "books", "items": []}),
    ],
)
def test_every_error_is_a_problem(service: Service, status: int, method: str, path: str, body: object) -> None:
    reply = service.ask(path, method, body, **({} if status == 401 else WITH_TOKEN))
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
    assert reply.body.keys() - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert (reply.body["status"], reply.body["type"]) == (status, "about:blank")


def test_another_method_is_answered_with_those_that_are_allowed(service: Service) -> None:
    assert service.ask("/v1/domains", "DELETE", **WITH_TOKEN).headers["Allow"] == "GET"


def test_an_unexpected_error_is_a_problem_too_and_is_logged_with_the_request(caplog: pytest.LogCaptureFixture) -> None:
    from prometheus_client import CollectorRegistry

    app = FastAPI()
    app.add_middleware(GuardMiddleware, token=None, is_open=())
    app.add_middleware(RequestMiddleware, registry=CollectorRegistry())
    add_problem_handlers(app)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("private")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get("/broken", headers={"X-Request-ID": "q9"})

    logger = logging.getLogger("flows.serve.http.middleware")
    logger.addHandler(caplog.handler)  # a command that ran before has cut the logger off from the root
    reply = asyncio.run(ask())
    logger.removeHandler(caplog.handler)
    assert (reply.status_code, reply.headers["Content-Type"]) == (500, "application/problem+json")
    assert reply.headers["X-Request-ID"] == "q9"
    assert "private" not in reply.text
    assert {(record.getMessage(), str(record.exc_info[1])) for record in caplog.records if record.exc_info} == {
        ("request q9 failed", "private")
    }


def test_pages_of_an_allowed_site_may_ask_and_others_may_not(service: Service) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    allowed = service.ask("/v1/new-user", "OPTIONS", Origin=SITE, **asked)
    assert (allowed.status, allowed.headers["Access-Control-Allow-Origin"]) == (200, SITE)
    refused = service.ask("/v1/new-user", "OPTIONS", Origin="https://other.example", **asked)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (400, None)
    assert refused.headers["Content-Type"] == "application/problem+json"
    reply = service.ask("/v1/domains", Origin=SITE, **WITH_TOKEN)
    assert reply.headers["Access-Control-Allow-Origin"] == SITE
    assert "X-Request-ID" in reply.headers["Access-Control-Expose-Headers"]


def test_the_access_log_has_a_line_of_json_for_each_request_and_no_secret(service: Service) -> None:
    path = "/v1/recommendations/books/u0001"
    service.ask(f"{path}?top=3", X_Request_ID="q-log", **WITH_TOKEN)
    until = time.monotonic() + 30
    while "q-log" not in service.output and time.monotonic() < until:  # the line follows the reply
        time.sleep(0.05)
    lines = [json.loads(line) for line in service.output.splitlines()]
    (line,) = (line for line in lines if line["request_id"] == "q-log")
    assert (line["method"], line["path"], line["status"], line["client"]) == ("GET", path, 200, "127.0.0.1")
    assert (line["route"], line["generation"]) == ("/v1/recommendations/{domain}/{user}", "tiny")
    assert line["bytes"] > 0 < line["seconds"]
    assert TOKEN not in service.output + service.errors


def test_docs_name_every_path_and_load_nothing_from_elsewhere(service: Service) -> None:
    page = service.ask("/docs").body
    paths = service.ask("/openapi.json", **WITH_TOKEN).body["paths"]
    assert all(f" {path}</code>" in page for path in paths)
    addresses: list[str] = []

    class Addresses(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            addresses.extend(value or "" for name, value in attributes if name in ("src", "href"))

    Addresses().feed(page)
    assert addresses
    assert all(address.startswith(("/", "#")) and not address.startswith("//") for address in addresses)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_forbid_scripts_and_requests_to_elsewhere(service: Service, path: str) -> None:
    policy = service.ask(path).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; ")
    assert "unsafe" not in policy


@pytest.mark.parametrize("token", ["", "a b", "é", "a\nb"])
def test_a_token_that_no_header_can_carry_is_refused_at_the_start(
    tiny_run: TinyRun, token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDDA_SERVE_TOKEN", token)
    assert edda("serve", "tiny", "--store", str(tiny_run.store)) == 1
    assert capsys.readouterr().err.startswith("edda: $EDDA_SERVE_TOKEN ")
