"""SIGKILL for the run itself, a Dask worker, the Dask scheduler, one process of torchrun and the Prefect server."""

# mypy: ignore-errors
from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from commands import ROOT, Case, compare_files, edda, ended_same, environment, write_run
from prefect_server import free_port

from tests.end_to_end import test_torchrun as ranks
from tests.end_to_end.test_killed import ended, run_until


def kill_runs(folder: Path, right: Mapping[str, str], count: int, draw: random.Random) -> Iterator[Case]:
    """Kill the run before an operation on its store's files, drawn among all; it is then started again."""
    file = write_run(folder) / "run.toml"
    _, steps = ended(run_until, file, folder / "steps")
    for number in range(count):
        store, moment = folder / f"store-{number}", draw.randrange(1, steps + 1)
        killed, _ = ended(run_until, file, store, moment)
        status, _ = ended(run_until, file, store)
        outcome = compare_files(store, right) if status == 0 else ("crash", f"status {status}")
        yield "kills: run", f"before operation {moment} of {steps}, status {killed}", *outcome
        shutil.rmtree(store)


@contextmanager
def dask_program(*arguments: str) -> Iterator[psutil.Process]:
    """A scheduler or worker, killed in the end."""
    command = [sys.executable, "-m", "dask", *arguments]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        kill_tree(process)


def kill_tree(process: subprocess.Popen) -> None:
    """End a process and its children."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait()


def kill_dask(victim: str, folder: Path, right: Mapping[str, str], count: int, draw: random.Random) -> Iterator[Case]:
    """Kill a worker or the scheduler some time after the run began; a new cluster then makes the rest."""
    for number in range(count):
        home = write_run(folder / f"{victim}-{number}")
        delay = draw.uniform(4, 14)
        with ExitStack() as stack:
            address = _start_cluster(stack)
            options = ("run", "run.toml", "--no-prefect", "--set", f'compute.dask_scheduler="{address}"')
            run = subprocess.Popen([sys.executable, "-m", "flows.cli", *options], cwd=home, env=environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
            time.sleep(delay)
            is_running = run.poll() is None
            programs = [child for child in psutil.Process().children() if "dask" in child.cmdline()]
            killed = next(child for child in programs if victim in child.cmdline())
            for process in [*killed.children(recursive=True), killed]:
                process.kill()
            try:
                _, said = run.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                kill_tree(run)
                said = "did not end within 120 s\n"
        again = edda(home, "run", "run.toml", "--no-prefect")
        outcome = ended_same(again, home / "edda-store", right)
        if "Traceback" in said or "did not end" in said:
            outcome = "crash", said[-1000:]
        yield f"kills: Dask {victim}", f"after {delay:.1f} s, still running: {is_running}", *outcome


def _start_cluster(stack: ExitStack) -> str:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    stack.enter_context(dask_program("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"))
    for _ in range(2):
        stack.enter_context(dask_program("worker", address, "--nthreads", "1", "--no-dashboard"))
    return address


def kill_ranks(folder: Path, count: int, draw: random.Random) -> Iterator[Case]:
    """Kill the second process of torchrun after some epochs; the job is then started again."""
    (write_run(folder) / "run.toml").write_text(ranks.RUN)
    made = edda(folder, "train", "run.toml", "--no-prefect", "--store", str(folder / "one"))
    assert made.returncode == 0, made.stderr
    ranks.copied(folder, "two")
    assert ranks.ended(ranks.launched(folder, "two"))[0] == 0
    right = ranks.checkpoint_of(folder, "two").manifest.files
    for number in range(count):
        store, epoch = f"killed-{number}", draw.randrange(1, 15)
        ranks.copied(folder, store)
        job = ranks.launched(folder, store)
        while f"epoch {epoch}{ranks.EPOCH}" not in (line := job.stderr.readline()):
            assert line, "the job ended too early"
        children = psutil.Process(job.pid).children()
        next(each for each in children if each.environ().get("RANK") == "1").send_signal(signal.SIGKILL)
        ranks.ended(job)
        status, said = ranks.ended(ranks.launched(folder, store))
        is_same = status == 0 and ranks.checkpoint_of(folder, store).manifest.files == right
        outcome = ("same", "") if is_same else ("crash" if status else "WRONG", said[-1000:])
        yield "kills: torchrun process", f"after epoch {epoch}", *outcome


def kill_servers(folder: Path, right: Mapping[str, str], count: int, draw: random.Random) -> Iterator[Case]:
    """Kill the Prefect server while a flow runs; the run is then started again without it."""
    for number in range(count):
        home, port, delay = write_run(folder / str(number)), free_port(), draw.uniform(5, 20)
        variables = {"PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        variables |= {"NO_PROXY": "*", "PREFECT_CLIENT_MAX_RETRIES": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=environment(**variables), cwd=home, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(20)
        flow = [sys.executable, "-m", "flows.cli", "run", "run.toml", "--prefect"]
        run = subprocess.Popen(flow, cwd=home, env=environment(**variables), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(delay)
        kill_tree(server)
        try:
            status = run.wait(timeout=240)
        except subprocess.TimeoutExpired:
            kill_tree(run)
            status = "did not end within 240 s"
        again = edda(home, "run", "run.toml", "--no-prefect")
        yield (
            "kills: Prefect server",
            f"after {delay:.1f} s, status {status}",
            *ended_same(again, home / "edda-store", right),
        )
