import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from tiny_world import TinyRun

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import uvicorn
from fastapi import FastAPI

from flows.serve.bodies import MOST_NAMES
from flows.serve.http.middleware import MOST_BYTES
from flows.serve.served_run import RunSource, ServedRun
from flows.serve.server import Serving, serve_until_stopped
from flows.serve.service import ServiceSettings, service
from model.serving.explanations import REASONS
from model.serving.recommender import Recommender

KNOWN = {"domain": "books", "users": ["u0001"]}


@pytest.fixture(scope="module")
def load() -> ModuleType:
    """The benchmark, whose parts start a service and ask it."""
    from studies import serve

    return serve


@pytest.fixture(scope="module")
def port(load: ModuleType, tiny_run: TinyRun) -> Iterator[int]:
    with load.served("tiny", tiny_run.store) as (port, _):
        yield port


def request(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        connection.putheader(name, value)
    if body is not None and "Transfer-Encoding" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


def post(port: int, path: str, asked: Any) -> tuple[int, Any]:
    return request(port, "POST", path, json.dumps(asked).encode())


def test_ten_thousand_requests_are_all_answered_right(load: ModuleType, port: int, tiny_run: TinyRun) -> None:
    recommender = Recommender(tiny_run.artifacts)
    every = load.paths(recommender)
    began = time.perf_counter()
    answers = load.ask(port, [every[place % len(every)] for place in range(10_000)], 8)
    print(load.summary(answers, time.perf_counter() - began))  # noqa: T201 - pytest -rP shows it
    assert (len(answers), load.wrong_answers(recommender, answers)) == (10_000, 0)


def test_a_body_does_not_wait_for_the_clients_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did, 40 ms for every answer, whatever the work; what is accepted inherits the option."""
    found: list[int] = []

    def run(_server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        found.extend(listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for listening in sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr("flows.serve.server.signal.signal", lambda *handled: None)
    monkeypatch.setattr("flows.serve.server.build_app", lambda _serving: FastAPI())
    serve_until_stopped(Serving(RunSource("none"), ServiceSettings()), "127.0.0.1", 0)
    assert found == [1]


def test_domains_are_reported_with_their_sizes(port: int) -> None:
    assert request(port, "GET", "/v1/domains")[1][2] == {"domain": "games", "users": 8, "items": 10}


def test_a_batch_keeps_its_order_and_has_null_for_strangers(port: int, tiny_run: TinyRun) -> None:
    status, found = post(port, "/v1/recommendations", {"domain": "books", "users": ["u0002", "x", "u0001"], "top": 3})
    recommender = Recommender(tiny_run.artifacts)
    lists = [[row.item for row in recommender.for_user("books", user, 3).items] for user in ("u0002", "u0001")]
    items = [row["items"] and [listed["item"] for listed in row["items"]] for row in found["results"]]
    assert (status, items) == (200, [lists[0], None, lists[1]])
    assert [row["by"] for row in found["results"]] == ["blend", None, "blend"]


def test_a_new_user_is_answered_as_on_the_command_line(port: int, tiny_run: TinyRun) -> None:
    asked = {"domain": "games", "items": ["i0002", "i0000", "i0008-0"], "top": 4}
    expected = Recommender(tiny_run.artifacts).for_new_user("games", asked["items"], 4)  # type: ignore[arg-type]
    status, found = post(port, "/v1/new-user", asked)
    assert (status, found["used"], found["ignored"]) == (200, expected.used, expected.ignored)
    assert [row["item"] for row in found["items"]] == [row.item for row in expected.items]


def elsewhere(run: TinyRun) -> str:
    """A user of films who is not in books."""
    recommender = Recommender(run.artifacts)
    books, films = (set(recommender.catalogue(name).user_ids.to_pylist()) for name in ("books", "films"))
    return min(films - books)


def test_a_user_of_another_domain_has_a_list_that_says_what_ranks_it(port: int, tiny_run: TinyRun) -> None:
    user = elsewhere(tiny_run)
    expected = Recommender(tiny_run.artifacts).for_user("books", user, 5)
    status, found = request(port, "GET", f"/v1/recommendations/books/{user}?top=5")
    assert (status, found["by"]) == (200, expected.by)
    assert expected.by in ("evidence", "popularity")
    assert [row["item"] for row in found["items"]] == [row.item for row in expected.items]
    assert post(port, "/v1/recommendations", {"domain": "books", "users": [user]})[1]["results"][0]["by"] == expected.by


@pytest.mark.parametrize("domain", ["books", "films", "games"])
def test_why_is_said_where_it_is_asked_for(port: int, tiny_run: TinyRun, domain: str) -> None:
    expected = [
        {
            "rank": row.rank,
            "item": row.item,
            "score": row.score,
            "why": row.why and {**row.why._asdict(), "because_of": [part._asdict() for part in row.why.because_of]},
        }
        for row in Recommender(tiny_run.artifacts).for_user(domain, "u0001", 4, REASONS).items
    ]
    one = request(port, "GET", f"/v1/recommendations/{domain}/u0001?top=4&why=true")[1]["items"]
    (many,) = post(port, "/v1/recommendations", {"domain": domain, "users": ["u0001"], "top": 4, "why": True})[1][
        "results"
    ]
    for found in (one, many["items"]):
        assert [row["why"]["because_of"] for row in found] == [row["why"]["because_of"] for row in expected]
        assert [row["why"]["evidence"] for row in found] == pytest.approx([row["why"]["evidence"] for row in expected])
    assert "why" not in request(port, "GET", f"/v1/recommendations/{domain}/u0001?top=4")[1]["items"][0]


def test_why_is_said_of_similar_items_and_to_new_users(port: int) -> None:
    similar = request(port, "GET", "/v1/similar/books/i0001?why=true")[1]["items"]
    assert {part["item"] for row in similar for part in row["why"]["because_of"]} == {"i0001"}
    new = post(port, "/v1/new-user", {"domain": "books", "items": ["i0001", "i0002"], "why": True})[1]["items"]
    assert {part["item"] for row in new for part in row["why"]["because_of"]} == {"i0001", "i0002"}


def test_answers_keep_the_schema_that_the_service_describes(port: int, tiny_run: TinyRun) -> None:
    schemas = request(port, "GET", "/openapi.json")[1]["components"]["schemas"]
    asked = {
        "Answer": request(port, "GET", f"/v1/recommendations/books/{elsewhere(tiny_run)}?top=20&why=true")[1],
        "ForUsers": post(port, "/v1/recommendations", {"domain": "books", "users": ["u0001", "x"], "why": True})[1],
        "ForNewUser": post(port, "/v1/new-user", {"domain": "games", "items": ["i0001"], "why": True})[1],
    }
    for name, answer in asked.items():
        jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/recommendations/books/nobody",
        "/v1/similar/nowhere/i0001",
        "/v1/similar/books/%F0%9F%98%80",
        "/v1/nothing",
        "/v1/similar/books/%2e%2e%2fi0001",
        "/v1/similar/books/",
        "/v1/similar/books/" + "x" * 30_000,
        "/v1/similar/a/b/c",
        "/v1/recommendations/books/%00",
        "/v1/recommendations/books/u0001%20",
        "//v1/domains",
    ],
)
def test_what_is_unknown_is_404(port: int, path: str) -> None:
    status, found = request(port, "GET", path)
    assert (status, len(json.dumps(found)) < 400) == (404, True)


@pytest.mark.parametrize("path", ["/v1/recommendations/books/u%30001", "/v1/recommendations/%62ooks/u0001?top=1000"])
def test_percent_encoded_names_are_decoded(port: int, path: str) -> None:
    assert request(port, "GET", path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/recommendations/books/%ff%fe",
        "/v1/recommendations/books/%ED%A0%80",
        "/v1/similar/books/i0001?top=0",
        "/v1/similar/books/i0001?top=1001",
        "/v1/similar/books/i0001?top=x",
        "/v1/similar/books/i0001?top=NaN",
        "/v1/similar/books/i0001?top=" + "9" * 5_000,
        "/v1/similar/books/i0001?top=%ff",
        "/v1/recommendations/books/u0001?why=perhaps",
    ],
)
def test_malformed_paths_and_queries_are_422(port: int, path: str) -> None:
    assert request(port, "GET", path)[0] == 422


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"x"',
        b"\xff\xfe",
        b'{"domain": "books", "users": ["\xff"]}',
        b"[" * 50_000,
        b'{"domain": "books", "users": ["\\ud800"]}',
        b'{"domain": "books", "users": ["u0001"], "top": NaN}',
        b'{"domain": "books", "users": ["u0001"], "\\ud800": 1}',
        b'{"domain": "books", "users": ["u0001"], "top": 1e999}',
        b'{"domain": "books", "users": ["u0001"], "top": ' + b"9" * 5_000 + b"}",
        *(
            json.dumps({**KNOWN, **wrong}).encode()
            for wrong in (
                {"users": []},
                {"users": None},
                {"users": "u0001"},
                {"users": [None]},
                {"users": [1]},
                {"users": [["u0001"]]},
                {"domain": None},
                {"top": 0},
                {"top": 1_001},
                {"top": "5"},
                {"top": True},
                {"top": 1.5},
                {"more": 1},
                {"why": "yes"},
                {"users": ["u"] * (MOST_NAMES + 1)},
                {"users": ["u"] * 200, "top": 1_000},
            )
        ),
    ],
)
def test_malformed_bodies_are_reported_as_such(port: int, body: bytes) -> None:
    assert request(port, "POST", "/v1/recommendations", body)[0] in (400, 422)


def test_a_body_of_another_type_is_422(port: int) -> None:
    body = json.dumps(KNOWN).encode()
    assert request(port, "POST", "/v1/recommendations", body, **{"Content-Type": "text/plain"})[0] == 422


def test_too_large_a_body_is_413_whatever_length_it_promises(port: int) -> None:
    large = json.dumps({**KNOWN, "users": ["x" * MOST_BYTES]}).encode()
    assert request(port, "POST", "/v1/recommendations", large)[0] == 413
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)
    assert request(port, "POST", "/v1/recommendations", chunks, **{"Transfer-Encoding": "chunked"})[0] == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_nothing_can_be_written(port: int, method: str) -> None:
    assert request(port, method, "/v1/domains", b"{}")[0] == 405


def test_metrics_count_answers_by_route_and_never_a_500(port: int) -> None:
    request(port, "GET", "/v1/recommendations/books/nobody")
    status, text = request(port, "GET", "/metrics")
    assert status == 200
    assert 'edda_requests_total{route="/v1/recommendations/{domain}/{user}",status="404"}' in text
    assert 'status="500"' not in text


def test_openapi_has_an_example_for_every_parameter(tiny_run: TinyRun) -> None:
    described = service(ServedRun(RunSource("tiny", str(tiny_run.store)))).openapi()
    named = [
        parameter
        for path in described["paths"].values()
        for call in path.values()
        for parameter in call.get("parameters", [])
        if parameter["in"] == "path"
    ]
    asked = [described["components"]["schemas"][name]["properties"] for name in ("Users", "History")]
    assert len(named) == 11
    assert all("examples" in parameter["schema"] for parameter in named)
    assert all(
        "examples" in field
        for fields in asked
        for name, field in fields.items()
        if name not in ("top", "why", "fallback")
    )


def test_domains_are_opened_once_by_threads_that_ask_together(tiny_run: TinyRun) -> None:
    recommender = Recommender(tiny_run.artifacts)
    with ThreadPoolExecutor(8) as threads:
        found = set(map(id, threads.map(recommender.catalogue, ["books"] * 32)))
    assert len(found) == 1


@pytest.mark.parametrize(("run", "expected"), [("vector_run", "[]\n"), ("tiny_run", "['numba', 'scipy']\n")])
def test_the_service_starts_without_anything_heavy_but_what_evidence_needs(
    request: pytest.FixtureRequest, run: str, expected: str
) -> None:
    """Numba brings scipy along."""
    made: TinyRun = request.getfixturevalue(run)
    name = {"vector_run": "vectors", "tiny_run": "tiny"}[run]
    script = """
import sys
import flows.serve.server
from flows.serve.served_run import RunSource, ServedRun
from flows.serve.service import service
service(ServedRun(RunSource(sys.argv[2], sys.argv[1])))
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numba", "prefect", "dask", "scipy"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(made.store), name], capture_output=True, text=True, check=True
    )
    assert done.stdout == expected
