"""The deployments as people use them: a server, a worker, `prefect deployment run`; on loopback, stopped afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.server

POOLS = ("edda-process", "edda-train")
STAGES = ("world", "ingest", "graph", "walk", "align", "train", "evaluate", "export")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def stop(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Interrupt a process and wait for it; those of its children that outlive it."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
    return psutil.wait_procs(children, timeout=30)[1]


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended before it answered"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"{url} did not answer within {seconds} s")


class Deployment:
    """A Prefect server and a worker of their own, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self.server = started(command, self.environment, folder / "server.log")
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_workers(self) -> None:
        """Create the work pools, register every deployment, start a worker for each pool."""
        wait_for(f"{self.url}/health", self.server, 180)
        for pool in POOLS:
            assert self.prefect("work-pool", "create", pool, "--type", "process", "--overwrite") == 0
        assert self.prefect("--no-prompt", "deploy", "--all") == 0
        for pool in POOLS:
            command = [str(BIN / "prefect"), "worker", "start", "--pool", pool]
            self.workers.append(started(command, self.environment, self.folder / f"worker-{pool}.log"))

    def prefect(self, *arguments: str) -> int:
        """Exit status of a prefect command."""
        with (self.folder / "prefect.log").open("ab") as log:
            command = [str(BIN / "prefect"), *arguments]
            return subprocess.run(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, timeout=300, check=False
            ).returncode

    def run(self, deployment: str, **parameters: object) -> int:
        """Exit status of `prefect deployment run … --watch`."""
        texts = [part for name, value in parameters.items() for part in ("--param", f"{name}={json.dumps(value)}")]
        return self.prefect("deployment", "run", f"edda/{deployment}", *texts, "--watch")

    def last_run(self) -> dict[str, Any]:
        """The flow run that started last."""
        return self.ask("flow_runs/filter", {"limit": 1, "sort": "START_TIME_DESC"})[0]

    def made(self) -> list[str]:
        """Stages that the flow run that started last did not skip; of the others it says so."""
        tasks = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [self.last_run()["id"]]}}})
        states = {task["name"]: task["state_name"] for task in tasks}
        assert set(states.values()) <= {"Completed", "Skipped"}, self.logs()
        return [stage for stage in STAGES if states.get(stage) == "Completed"]

    def shown(self) -> dict[str, str]:
        """What the page shows: the data of each artifact, by key."""
        return {found["key"]: found["data"] for found in self.ask("artifacts/latest/filter", {})}

    def stop(self) -> list[psutil.Process]:
        """Stop the workers, then the server; what is left running."""
        return [left for process in (*self.workers, self.server) for left in stop(process)]

    def logs(self) -> str:
        """What all parties said."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def ask(self, what: str, body: dict[str, object]) -> list[dict[str, Any]]:
        """What the server answers."""
        request = urllib.request.Request(
            f"{self.url}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    try:
        yield deployment
    finally:
        deployment.stop()


def test_the_demo_runs_by_its_deployments_and_does_nothing_twice(deployment: Deployment, tmp_path: Path):
    deployment.start_workers()
    schedules = [schedule for found in deployment.ask("deployments/filter", {}) for schedule in found["schedules"]]
    assert [schedule["active"] for schedule in schedules] == [False]
    short = [f"store={tmp_path / 'store'}", "train.epochs=2", "evaluate.resamples=20"]

    assert deployment.run("full", overrides=short) == 0, deployment.logs()
    assert deployment.made() == list(STAGES)
    assert (tmp_path / "store/runs/demo/recommendations/manifest.json").exists()
    shown = deployment.shown()
    assert "| macro |" in shown["edda-demo"]
    assert shown["edda-demo-curve"].startswith("data:image/png;base64,")
    assert f"({shown['edda-demo-curve']})" in shown["edda-demo"]
    costs = {row["stage"]: row for row in json.loads(shown["edda-demo-costs"])}
    assert int(costs["train"]["MiB"].replace(",", "")) > 0

    assert deployment.run("train", overrides=short, seed=7) == 0, deployment.logs()
    assert deployment.made() == ["train"]
    assert deployment.last_run()["work_pool_name"] == "edda-train"
    assert deployment.run("train", overrides=short, seed=7) == 0, deployment.logs()
    assert deployment.made() == []
    assert deployment.run("full", overrides=short, seed=7) == 0, deployment.logs()
    assert deployment.made() == ["evaluate", "export"]

    assert deployment.run("align", overrides=[*short, "pairs.k=0"]) == 1
    told = "--set pairs.k=0: pairs.k is 0, must be ≥ 1 — put that right and start it again, what was finished is kept"
    assert deployment.last_run()["state"]["message"] == told
    assert deployment.stop() == []
    assert deployment.server.poll() is not None
