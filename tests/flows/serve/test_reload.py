"""A new generation is served without a lost request: by SIGHUP, by looking for it, and in several workers."""

import json
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from fake_stages import edda
from tiny_world import TinyRun, exported, random_log
from tiny_world import build as build_world

pytest.importorskip("uvicorn")

from data_contracts.store.artifact import Artifact
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from tests.flows.serve.http_service import Service, running, wait_until

SIZES = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}

Generations = list[dict[str, Artifact]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def generations(store: Store) -> Generations:
    """Two generations of the run `run`, of which the first is the present one."""
    made = [exported(build_world(store, random_log(seed, SIZES)), "run") for seed in (1, 2)]
    store.link_run(RunRecord.build("run", made[0]))
    return made


def key(service: Service) -> str:
    return str(service.ask("/ready").body["key"])


class Load:
    """Requests over a few connections that stay open, one after another, and every status that is not 200."""

    def __init__(self, port: int) -> None:
        self.answered, self.wrong, self._port, self._stop = 0, [], port, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            while not self._stop.is_set():
                connection.request("GET", "/v1/domains")
                response = connection.getresponse()
                body = json.loads(response.read())
                if response.status != 200 or len(body) != 3:
                    self.wrong.append(response.status)
                self.answered += 1
        except Exception as error:
            self.wrong.append(error)
        connection.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def service(store: Store, generations: Generations, tmp_path: Path) -> Iterator[Service]:
    with running("run", store.root, tmp_path / "service") as service:
        yield service


def test_sighup_serves_what_the_name_means_now_and_loses_no_request(
    service: Service, store: Store, generations: Generations
) -> None:
    with Load(service.port) as load:
        for generation in (generations[1], generations[0], generations[1]):
            store.link_run(RunRecord.build("run", generation))
            service.hang_up()
            wait_until(lambda: key(service) == generation["embeddings"].key)  # noqa: B023
        time.sleep(0.2)
    assert (load.wrong, load.answered > 20) == ([], True)


def test_a_run_that_cannot_be_opened_leaves_what_is_served(service: Service, store: Store) -> None:
    before = key(service)
    (store.root / "runs" / "run" / "run.json").write_text("{")
    service.hang_up()
    wait_until(lambda: "cannot reload, run stays: " in service.errors)
    assert (key(service), service.ask("/v1/domains").status) == (before, 200)


def test_with_watch_a_new_generation_is_noticed(store: Store, generations: Generations, tmp_path: Path) -> None:
    with running("run", store.root, tmp_path / "service", "--watch", "0.1") as service:
        time.sleep(0.5)
        assert (key(service), "serving run" in service.errors) == (generations[0]["embeddings"].key, False)
        store.link_run(RunRecord.build("run", generations[1]))
        wait_until(lambda: key(service) == generations[1]["embeddings"].key)


def test_every_worker_answers_reloads_and_is_counted(store: Store, generations: Generations, tmp_path: Path) -> None:
    with running("run", store.root, tmp_path / "service", "--workers", "2") as service:
        with Load(service.port) as load:
            store.link_run(RunRecord.build("run", generations[1]))
            service.hang_up()
            wait_until(lambda: service.errors.count("serving run, made") == 2)
        assert (load.wrong, load.answered > 20) == ([], True)
        assert {key(service) for _ in range(20)} == {generations[1]["embeddings"].key}
        metrics = service.ask("/metrics").body
        assert f'edda_requests_total{{route="/v1/domains",status="200"}} {float(load.answered)}' in metrics
    assert service.errors.endswith("stopped\n")


def test_workers_are_not_started_for_what_cannot_be_served(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "films.csv")
    assert edda("serve", "tiny", "--store", str(tiny_run.store), "--workers", "2", "--items", missing) == 1
    assert missing in capsys.readouterr().err
