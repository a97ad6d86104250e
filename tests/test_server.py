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

import psutil
import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.server

TINY_RUN = """
name = "tiny"
store = "store"
[world]
domains = 2
users = 60
items = 40
interactions = 900
[reach]
compared_nodes = 5
[train]
epochs = 2
width = 8
batch_size = 256
[evaluate]
resamples = 5
"""


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
        self.worker: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> None:
        """Create the work pool, register every deployment, start a worker."""
        wait_for(f"{self.url}/health", self.server, 180)
        assert self.prefect("work-pool", "create", "edda-process", "--type", "process", "--overwrite") == 0
        assert self.prefect("--no-prompt", "deploy", "--all") == 0
        command = [str(BIN / "prefect"), "worker", "start", "--pool", "edda-process"]
        self.worker = started(command, self.environment, self.folder / "worker.log")

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

    def states(self) -> dict[str, str]:
        """State of each task of the flow run that started last."""
        flow_run = self._ask("flow_runs", {"limit": 1, "sort": "START_TIME_DESC"})[0]
        tasks = self._ask("task_runs", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
        return {task["name"]: task["state_name"] for task in tasks}

    def stop(self) -> list[psutil.Process]:
        """Stop the worker, then the server; what is left running."""
        left = stop(self.worker) if self.worker else []
        return left + stop(self.server)

    def logs(self) -> str:
        """What all parties said."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def _ask(self, what: str, body: dict[str, object]) -> list[dict[str, str]]:
        request = urllib.request.Request(
            f"{self.url}/{what}/filter", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: list[dict[str, str]] = json.load(answer)
        return found


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    try:
        yield deployment
    finally:
        deployment.stop()


def test_a_deployed_run_makes_artifacts_and_the_next_one_skips_every_stage(deployment: Deployment, tmp_path: Path):
    run = tmp_path / "tiny.toml"
    run.write_text(TINY_RUN)
    deployment.start_worker()
    assert deployment.run("full", run=str(run)) == 0, deployment.logs()
    stages = ("world", "ingest", "graph", "walk", "align", "train", "evaluate", "export")
    assert deployment.states() == dict.fromkeys(stages, "Completed")
    assert (tmp_path / "store/runs/tiny/recommendations/manifest.json").exists()
    assert deployment.run("full", run=str(run)) == 0, deployment.logs()
    assert deployment.states() == dict.fromkeys(stages, "Skipped")
    assert deployment.run("align", run=str(run), overrides=["pairs.k=0"]) == 1
    assert deployment.stop() == []
    assert deployment.server.poll() is not None
