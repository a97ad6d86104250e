"""A Prefect server with workers and EDDA's deployments, on loopback, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient

from flows import NO_TELEMETRY

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

POOLS = ("edda-process", "edda-train")
STAGES = ("world", "ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean_environment(*prefixes: str) -> dict[str, str]:
    """This process's environment without variables of some prefixes, and with telemetry and proxies switched off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**kept, **NO_TELEMETRY, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*"}


def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def stop(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Interrupt a process and wait for it; return those of its children that outlive it."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
    return psutil.wait_procs(children, timeout=30)[1]


ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"


class Prefect:
    """A Prefect server as users see it, through its command and its API.

    Args:
        folder: for the output of commands; all logs in it are shown if something fails.
        environment: of the command, with the server's address.
        here: what starts a command where the server is, e.g. `ip netns exec NAME`.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], here: Sequence[str] = ()) -> None:
        self.folder, self.environment, self.here = folder, environment, here
        self.url = environment["PREFECT_API_URL"]

    def prefect(self, *arguments: str) -> int:
        """Exit status of a prefect command."""
        with (self.folder / "prefect.log").open("ab") as log:
            command = [*self.here, str(BIN / "prefect"), *arguments]
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

    def tasks(self) -> dict[str, str]:
        """Names and states of the tasks of the last flow run."""
        tasks = self.ask("task_runs/filter", {"flow_runs": {"id": {"any_": [self.last_run()["id"]]}}})
        return {task["name"]: task["state_name"] for task in tasks}

    def made(self) -> list[str]:
        """Stages that the last flow run made; the others were skipped."""
        states = self.tasks()
        assert set(states.values()) <= {"Completed", "Skipped"}, self.logs()
        return [stage for stage in STAGES if states.get(stage) == "Completed"]

    def logged(self, level: int) -> list[str]:
        """Messages of a level and above in the log of the last flow run."""
        only = {"flow_run_id": {"any_": [self.last_run()["id"]]}, "level": {"ge_": level}}
        return [line["message"] for line in self.ask("logs/filter", {"logs": only})]

    def shown(self) -> dict[str, str]:
        """What the UI shows: the data of each Prefect artifact, by key."""
        return {artifact["key"]: artifact["data"] for artifact in self.ask("artifacts/latest/filter", {})}

    def ask(self, path: str, body: dict[str, object]) -> list[dict[str, Any]]:
        """The rows that the server answers a filter with."""
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
        return rows

    def begin(self, deployment: str, **parameters: object) -> UUID:
        """Create a flow run, which a worker will pick up; return its id."""
        with SyncPrefectClient(self.url) as client:
            deployment_id = client.read_deployment_by_name(f"edda/{deployment}").id
            return client.create_flow_run_from_deployment(deployment_id, parameters=parameters).id

    def state(self, flow_run: UUID) -> str | None:
        """Scheduled, Running, Completed, Crashed, …."""
        with SyncPrefectClient(self.url) as client:
            state = client.read_flow_run(flow_run).state
        return state.name if state else None

    def logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


class Deployment(Prefect):
    """A Prefect server and workers, started in a folder.

    Args:
        folder: for logs and Prefect's database.
        host: the server's address.
        here: what starts a command where the server is, e.g. `ip netns exec NAME`.
        there: what starts a command where the workers are.
    """

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", here: Sequence[str] = (), there: Sequence[str] = ()
    ) -> None:
        self.there, port = there, free_port()
        environment = {
            **clean_environment("PREFECT_"),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://{host}:{port}/api",
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # SQLite on a busy machine
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        super().__init__(folder, environment, here)
        command = [*here, str(BIN / "prefect"), "server", "start", "--host", host, "--port", str(port)]
        self.server = started(command, self.environment, folder / "server.log")
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_workers(self, pools: Sequence[str] = POOLS, deployments: Sequence[str] = ("--all",)) -> None:
        """Create the work pools, register deployments, start a worker for each pool."""
        self.wait(400)
        for pool in pools:
            assert self.prefect("work-pool", "create", pool, "--type", "process", "--overwrite") == 0
        assert self.prefect("--no-prompt", "deploy", *deployments) == 0
        for pool in pools:
            command = [*self.there, str(BIN / "prefect"), "worker", "start", "--pool", pool]
            self.workers.append(started(command, self.environment, self.folder / f"worker-{pool}.log"))

    def wait(self, seconds: float) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + seconds
        command = [*self.here, sys.executable, "-c", ASK, f"{self.url}/health"]
        while subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode:
            assert self.server.poll() is None, f"the server ended before it answered\n{self.logs()}"
            assert time.monotonic() < deadline, f"{self.url} did not answer within {seconds} s"
            time.sleep(0.5)

    def stop(self) -> list[psutil.Process]:
        """Stop the workers, then the server; return the processes that are still running."""
        return [left for process in (*self.workers, self.server) for left in stop(process)]

    def processes(self, flow_run: UUID) -> list[psutil.Process]:
        """The processes in which workers run a flow run, parents first."""
        processes = []
        for worker in self.workers:
            for process in psutil.Process(worker.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if process.environ().get("PREFECT__FLOW_RUN_ID") == str(flow_run):
                        processes.append(process)
        return processes
