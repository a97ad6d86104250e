"""The services of docker/compose.yaml as local processes, with their own commands, environments and health checks.

No container engine is involved. Each service has its own loopback address instead of a name in a network, so ports stay
as they are, and folders take the place of volumes. `Services.localise` has everything that differs.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import yaml
from prefect_server import ROOT, clean_environment, started, stop

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = {
    name: service for name, service in COMPOSE["services"].items() if "profiles" not in service
}
"""Those that `docker compose up` starts."""

VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
HOST = re.compile(rf"(?:(?<=[/@=])(?:{'|'.join(SERVICES)})|localhost|0\.0\.0\.0|127\.0\.0\.1)\b")
CONTAINER_ONLY = re.compile(r"(?<!s3)://(?:[^@/\s]*@)?+(?!127\.)[\w.-]+|(?<![\w/.:])/(?!dev/null)\w+")
"""What exists only in a container: hosts other than this machine, and absolute paths."""


class Services:
    """Services of docker/compose.yaml in a folder of their own.

    Args:
        folder: for volumes and logs.
        settings: variables that compose would find in its environment.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder, self.settings = folder, settings
        network = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}"
        self.addresses = {name: f"{network}.{number}" for number, name in enumerate(SERVICES, 1)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def localise(self, name: str, text: str) -> str:
        """Text of a service with addresses in place of hosts and folders for volumes; fails on anything else."""
        text = VARIABLE.sub(lambda match: self.settings.get(match[1], match[2]), text)
        assert "$" not in text.replace("$$", ""), f"{name}: {text}: a variable has no default"
        text = HOST.sub(lambda match: self.addresses.get(match[0], self.addresses[name]), text.replace("$$", "$"))
        for target, folder in self.volumes(name).items():
            text = re.sub(rf"(?<![\w/]){target}\b", str(folder), text)
        left = CONTAINER_ONLY.findall(text.replace(str(self.folder), "."))
        assert not left, f"{name}: {text}: {left} exists only in a container"
        return text

    def volumes(self, name: str) -> dict[str, Path]:
        """Paths in a container, with the folders that are used instead."""
        texts = [VARIABLE.sub(r"\2", text).split(":") for text in SERVICES[name].get("volumes", ())]
        return {target: self.folder / source for source, target, *_ in texts}

    def environment(self, name: str) -> dict[str, str]:
        """The environment of a service's processes, with a home folder of its own."""
        declared = {key: self.localise(name, value) for key, value in SERVICES[name].get("environment", {}).items()}
        home = str(self.folder / f"home-{name}")
        local = {"HOME": home, "TMPDIR": home, "PGHOST": self.addresses[name]}
        if "database" not in self.running:
            declared.pop("PREFECT_SERVER_DATABASE_CONNECTION_URL", None)
        return {**clean_environment("AWS_", "EDDA_", "PREFECT_", "PG", "DASK_"), **local, **declared}

    def start(self, names: Sequence[str]) -> None:
        """Start services in the order of their dependencies; wait until all are healthy."""
        waits = {name: SERVICES[name].get("depends_on", {}) for name in SERVICES}
        for name in [name for name in TopologicalSorter(waits).static_order() if name in names]:
            for needed in [needed for needed in waits[name] if needed in names]:
                self.wait(needed, waits[name][needed]["condition"])
            for folder in [*self.volumes(name).values(), self.folder / f"home-{name}"]:
                folder.mkdir(exist_ok=True)
            command = PROGRAMS.get(name, _declared)(self, name)
            self.running[name] = started(command, self.environment(name), self.folder / f"{name}.log")
        for name in names:
            if "test" in SERVICES[name]["healthcheck"]:
                self.wait(name, "service_healthy")

    def wait(self, name: str, condition: str) -> None:
        """Wait until a service is healthy, or has completed successfully."""
        until, process = time.monotonic() + 400, self.running[name]
        if condition == "service_completed_successfully":
            assert process.wait(400) == 0, self.log(name)
            return
        while not self.is_healthy(name):
            assert process.poll() is None, f"{name} ended before it was healthy\n{self.log(name)}"
            assert time.monotonic() < until, f"{name} was not healthy in time\n{self.log(name)}"
            time.sleep(0.2)

    def is_healthy(self, name: str) -> bool:
        """Result of the service's own health check; without one, whether it completed."""
        if "test" not in (check := SERVICES[name]["healthcheck"]):
            return self.running[name].poll() == 0
        kind, *command = [self.localise(name, word) for word in check["test"]]
        assert kind == "CMD"
        return subprocess.run(command, env=self.environment(name), capture_output=True, check=False).returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> list[psutil.Process]:
        """Stop all services in reverse order; return the processes that are still running."""
        return [left for process in reversed(self.running.values()) for left in stop(process)]


def _declared(services: Services, name: str) -> list[str]:
    """The command of a service in compose.yaml."""
    return [services.localise(name, word) for word in SERVICES[name]["command"]]


def _weed(services: Services, name: str) -> list[str]:
    """The command as the image's entry point runs it."""
    return ["weed", *_declared(services, name)]


def _postgres(services: Services, name: str) -> list[str]:
    """What the image does on its first start: a database in a folder, whose owner has a password; never as root."""
    (folder,), environment = services.volumes(name).values(), services.environment(name)
    nobody = ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []
    user, password, database = (environment[f"POSTGRES_{word}"] for word in ("USER", "PASSWORD", "DB"))
    steps = {
        ("initdb", "--no-sync", "--username", user, "--auth=scram-sha-256", "--pwfile=/dev/stdin", folder): password,
        ("postgres", "--single", "-D", folder, "postgres"): f'create database "{database}"',
    }
    for step, standard_input in steps.items():
        subprocess.run(
            [*nobody, *step], input=standard_input.encode(), env=environment, check=True, capture_output=True
        )
    return [*nobody, "postgres", "-D", str(folder), "-h", services.addresses[name], "-k", ""]


PROGRAMS: dict[str, Callable[[Services, str], list[str]]] = {"objects": _weed, "database": _postgres}


def missing() -> dict[str, str]:
    """Services that cannot be started on this machine, with the reasons."""
    reasons = {}
    if shutil.which("initdb") is None or shutil.which("pg_isready") is None:
        reasons["database"] = "Postgres (initdb, postgres, pg_isready) is not on the PATH; the server takes SQLite"
    if shutil.which("weed") is None or find_spec("s3fs") is None:
        reasons["objects"] = "SeaweedFS (weed) or s3fs is not installed; the run's store is a folder"
    return reasons
