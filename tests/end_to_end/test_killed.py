"""Runs that are killed and started again end with the same results as runs that are not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from small_run import RUN, SMALL_RUN, every_file
from torch import Tensor
from torch.nn import Parameter

from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.execute import run_stages
from model.learners.row_adam import RowAdam

pytestmark = pytest.mark.slow


def command(stage: str, folder: Path, store: str) -> list[str]:
    arguments = [stage, str(folder / "run.toml"), "--store", str(folder / store), "--no-prefect"]
    return [sys.executable, "-m", "flows.cli", *arguments]


def killed(arguments: list[str], line: str, times: int, seconds: float) -> int:
    """Kill a command some seconds after it has logged a line some times; return the number of epochs that it logged."""
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
    artifacts = Store(root).recorded(Store(root).run("killed"))
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


def test_what_a_killed_run_had_finished_survives_garbage_collection(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    run = command("evaluate", tmp_path, "store")
    killed(run, ": loss ", 3, 0)
    artifacts = Store(tmp_path / "store").find_planned(Store(tmp_path / "store").run("killed").attempt)
    before = {role: artifact.path.stat().st_ino for role, artifact in artifacts.items()}
    assert list(before) == ["world", "rejects", "interactions", "nodes", "graph", "neighbours", "reach", "pairs"]

    collect = [sys.executable, "-m", "flows.cli", "gc", "--store", str(tmp_path / "store")]
    subprocess.run(collect, check=True, capture_output=True)
    again = subprocess.run(run, check=True, capture_output=True, text=True).stderr
    record = Store(tmp_path / "store").run("killed")
    artifacts = Store(tmp_path / "store").recorded(record)
    assert {role: artifacts[role].path.stat().st_ino for role in before} == before
    assert record.made == ["checkpoint-2022", "blend-2022", "metrics", "ranks"]
    assert ("epoch 1 of" in again, "epoch 60 of 60: " in again) == (False, True), (
        "training did not resume from its last epoch"
    )


SLOW_TO_IMPORT = [
    *("pipeline.synthetic", "pipeline.ingest.stage", "pipeline.graph", "pipeline.reach.stage", "pipeline.pairs.stage"),
    *("dask.delayed", "model.training.stage", "model.evaluation.stage", "model.serving.export", "torch._dynamo"),
]
DEFERRING_RUN = RUN.replace("epochs = 60", 'epochs = 12\nbackbone = "mf"').replace("batch_size = 256", "batch_size = 8")
"""Many steps that read few rows each, so that Adam defers the others."""


def run_until(file: Path, store: Path, last: int, count: Any) -> None:
    """Make a run in this process, which kills itself before its `last`-th operation on the store's files."""
    steps = 0

    def step(_event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if any(isinstance(path, str) and path.startswith(str(store)) for path in arguments[:2]):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    run_stages(load_config(file, [f"store={store}"]))
    count.value = steps


def train_until(file: Path, store: Path, last: int, count: Any) -> None:
    """Train in this process, which kills itself after the `last`-th step on a table with deferred rows."""
    prepare_rows = RowAdam.prepare_rows

    def prepare_and_count(self: RowAdam, table: Parameter, rows: Tensor) -> None:
        prepare_rows(self, table, rows)
        count.value += table in self._lags
        if 0 < count.value == last:
            os.kill(os.getpid(), signal.SIGKILL)

    RowAdam.prepare_rows = prepare_and_count  # type: ignore[method-assign]
    run_stages(load_config(file, [f"store={store}"]), "train")


def ended(make: Callable[..., None], file: Path, store: Path, last: int = 0) -> tuple[int | None, int]:
    """Exit status of such a process, and its final count, 0 if a run was killed."""
    context = get_context("forkserver")  # with modules that are slow to import
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    count = context.Value("i", 0)
    process = context.Process(target=make, args=(file, store, last, count))
    process.start()
    process.join()
    return process.exitcode, count.value


def test_a_run_killed_at_any_of_ten_moments_ends_with_the_same_files(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(SMALL_RUN)
    assert ended(run_until, file, tmp_path / "whole")[0] == 0
    _, steps = ended(run_until, file, tmp_path / "counted")  # nothing is computed about the machine any more
    for moment in random.Random(11).sample(range(1, steps + 1), 10):
        store = tmp_path / f"killed-{moment}"
        assert ended(run_until, file, store, moment)[0] == -signal.SIGKILL
        assert ended(run_until, file, store)[0] == 0
        assert every_file(store) == every_file(tmp_path / "whole"), f"killed before step {moment} of {steps}"


def test_a_training_killed_while_rows_are_deferred_ends_with_the_same_files(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(DEFERRING_RUN)
    status, deferred = ended(train_until, file, tmp_path / "whole")
    assert status == 0
    assert deferred > 500
    store = tmp_path / "killed"
    assert ended(train_until, file, store, deferred // 2)[0] == -signal.SIGKILL
    status, deferred_left = ended(train_until, file, store)
    assert status == 0
    assert deferred / 2 < deferred_left < deferred, "training did not resume from an epoch with deferred rows"
    assert every_file(store) == every_file(tmp_path / "whole")
