"""Two hosts, as two network namespaces joined by a veth pair: the server on one, all work on the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect_server import BIN, Deployment, started, stop
from small_run import SMALL_RUN, every_file

from flows.config.run_config import load_config
from flows.runner.execute import run_stages

pytestmark = pytest.mark.slow

HERE, THERE = "10.213.87.1", "10.213.87.2"
SCHEDULER = f"tcp://{THERE}:8786"


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """Prefixes that start a command on either host; processes on the hosts end with the fixture."""
    names = [f"edda-{side}-{os.getpid()}" for side in "ab"]
    if shutil.which("ip") is None or os.geteuid() != 0 or ip("netns", "add", names[0]).returncode:
        pytest.skip("network namespaces need root and the program ip")
    try:
        ends = [f"e{side}{os.getpid()}" for side in "ab"]
        steps = [["netns", "add", names[1]], ["link", "add", ends[0], "type", "veth", "peer", "name", ends[1]]]
        for name, end, address in zip(names, ends, (HERE, THERE), strict=True):
            steps += [["link", "set", end, "netns", name], ["-n", name, "address", "add", f"{address}/30", "dev", end]]
            steps += [["-n", name, "link", "set", device, "up"] for device in ("lo", end)]
        for step in steps:
            done = ip(*step)
            assert done.returncode == 0, f"ip {' '.join(step)}: {done.stderr}"
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            for process in ip("netns", "pids", name).stdout.split():
                subprocess.run(["kill", "-9", process], check=False)
            ip("netns", "delete", name)


@contextmanager
def dask(there: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A Dask scheduler and a worker on the other host."""
    parts = {"scheduler": ["--port", "8786"], "worker": [SCHEDULER, "--nworkers", "1", "--nthreads", "1"]}
    running = []
    try:
        for part, options in parts.items():
            command = [*there, str(BIN / "dask"), part, *options, "--host", THERE, "--no-dashboard"]
            running.append(started(command, environment, folder / f"dask-{part}.log"))
        until = time.monotonic() + 300
        while "Starting established connection" not in (folder / "dask-worker.log").read_text():
            assert time.monotonic() < until, (folder / "dask-worker.log").read_text()
            time.sleep(0.2)
        yield
    finally:
        for process in reversed(running):
            stop(process)


def test_a_server_and_workers_on_two_hosts_make_the_files_of_one(hosts: list[list[str]], tmp_path: Path) -> None:
    here, there = hosts
    file = tmp_path / "run.toml"
    file.write_text(SMALL_RUN)
    deployment = Deployment(tmp_path, HERE, here, there)
    try:
        with dask(there, tmp_path, deployment.environment):
            deployment.start_workers(["edda-process"], ["--name", "align"])
            overrides = [f"store={tmp_path / 'apart'}", f"compute.dask_scheduler={SCHEDULER}"]
            assert deployment.run("align", run=str(file), overrides=overrides) == 0, deployment.logs()
    finally:
        left = deployment.stop()
    assert left == []
    assert "Receive client connection: Client-" in (tmp_path / "dask-scheduler.log").read_text()

    run_stages(load_config(file, [f"store={tmp_path / 'local'}"]), "align")
    assert every_file(tmp_path / "apart") == every_file(tmp_path / "local")
