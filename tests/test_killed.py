"""A run as people start it, killed without warning and started again: what comes out is what would have come out."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from data_contracts.store import Store

RUN = """
name = "killed"
[world]
domains = 3
users = 150
items = 80
interactions = 2500
[reach]
compared_nodes = 5
[train]
epochs = 60
patience = 60
width = 8
batch_size = 256
learning_rate = 0.02
initial_spread = 0.1
alignment = 0.05
[evaluate]
resamples = 20
[compute]
threads = 1
"""


def command(stage: str, folder: Path, store: str) -> list[str]:
    arguments = [stage, str(folder / "run.toml"), "--store", str(folder / store), "--no-prefect"]
    return [sys.executable, "-m", "flows.cli", *arguments]


def killed(arguments: list[str], line: str, times: int, seconds: float) -> int:
    """Kill a command so many seconds after it has logged such a line so many times; epochs that were logged in all."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    while sum(line in each for each in lines) < times:
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    lines += process.stderr.read().splitlines()
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL, "the command ended before it was killed"
    return sum(": loss " in each for each in lines)


def results(root: Path) -> dict[str, object]:
    """Every byte of tensors and history, and every metric with its interval."""
    artifacts, _ = Store(root).run("killed")
    checkpoint = artifacts["checkpoint-2022"]
    files = {entry.path: (checkpoint.path / entry.path).read_bytes() for entry in checkpoint.manifest.files}
    return {**files, "metrics": artifacts["metrics"].read().to_pylist()}


def test_a_run_killed_at_several_moments_ends_with_the_same_tensors_and_metrics(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    subprocess.run(command("evaluate", tmp_path, "whole"), check=True, capture_output=True)
    made = shutil.ignore_patterns("checkpoint*", "metrics*")
    shutil.copytree(tmp_path / "whole", tmp_path / "again", symlinks=True, ignore=made)

    again, moments = command("evaluate", tmp_path, "again"), random.Random(5)
    trained = [killed(again, ": loss ", moments.randint(1, 12), moments.uniform(0, 0.05)) for _ in range(2)]
    assert sum(trained) < 60, "nothing was left to train after the last kill"
    killed(again, "evaluate: making", 1, moments.uniform(0, 0.02))
    subprocess.run(again, check=True, capture_output=True)
    assert results(tmp_path / "again") == results(tmp_path / "whole")
