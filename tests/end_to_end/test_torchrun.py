"""Training in two processes under torchrun, on loopback, compared with the same training in one."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.execute import run_stages

pytestmark = pytest.mark.slow

RUN = """
name = "ranks"
[world]
domains = 3
users = 150
items = 80
interactions = 2500
[reach]
compared_nodes = 5
[train]
epochs = 20
width = 7
batch_size = 256
learning_rate = 0.01
initial_spread = 0.3
alignment = 0.3
[compute]
threads = 1
state_seconds = 0
"""
EPOCH = " of 20: loss "


TORCHRUN, LAUNCH = ("torch.distributed.run", "-m", "flows.cli"), ("flows.runner.launch",)
"""Modules that start several processes, and what follows their options."""


def launched(
    folder: Path, store: str, *overrides: str, options: Sequence[str] = (), by: tuple[str, ...] = TORCHRUN
) -> subprocess.Popen[str]:
    module, *program = by
    torchrun = [sys.executable, "-m", module, "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2", *program]
    command = [*torchrun, "train", str(folder / "run.toml"), "--store", str(folder / store)]
    settings = [part for override in overrides for part in ("--set", override)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *settings, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and the rest of the log."""
    assert process.stderr is not None
    text = process.stderr.read()
    process.stderr.close()
    return process.wait(), text


def checkpoint_of(folder: Path, store: str) -> Artifact:
    return Store(folder / store).recorded(Store(folder / store).run("ranks"))["checkpoint-2022"]


def tensors_of(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.path / "model.safetensors")


def copied(folder: Path, store: str) -> None:
    ignored = shutil.ignore_patterns("checkpoint*", "runs")
    shutil.copytree(folder / "one", folder / store, symlinks=True, ignore=ignored)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained by one process in the store `one` and by two in `two`, whose log is `two.log`."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "run.toml").write_text(RUN)
    run_stages(load_config(folder / "run.toml", [f'store="{folder / "one"}"']), "train")
    copied(folder, "two")
    status, logged = ended(launched(folder, "two"))
    assert status == 0, logged
    (folder / "two.log").write_text(logged)
    return folder


def assert_metrics_are_close(one: Artifact, two: Artifact) -> None:
    measures, expected = two.read().to_pydict(), one.read().to_pydict()
    for name in ("epoch", "domain", "metric"):
        assert measures[name] == expected[name]
    assert measures["value"] == pytest.approx(expected["value"], rel=1e-3, abs=1e-4)


def test_two_processes_have_the_metrics_of_one(folder: Path) -> None:
    assert_metrics_are_close(checkpoint_of(folder, "one"), checkpoint_of(folder, "two"))


def test_two_processes_update_an_earlier_training_as_one_does(folder: Path) -> None:
    grown, now = "world.interactions=2600", ["one-now", "two-now"]
    for store in now:
        shutil.copytree(folder / "one", folder / store, symlinks=True)
    settings = [f'store="{folder / now[0]}"', grown, "update=true"]
    run_stages(load_config(folder / "run.toml", settings), "train")
    status, logged = ended(launched(folder, now[1], grown, options=["--update"]))
    assert status == 0, logged
    before, (one, two) = checkpoint_of(folder, "one"), (checkpoint_of(folder, store) for store in now)
    assert two.key == one.key != before.key
    assert two.statistics["warm_start"] == one.statistics["warm_start"]
    assert two.statistics["warm_start"]["from"] == before.key
    assert min(two.read()["epoch"].to_pylist()) == 0
    assert_metrics_are_close(one, two)


def test_two_processes_end_with_the_tensors_of_one_under_the_same_key(folder: Path) -> None:
    one, two = checkpoint_of(folder, "one"), checkpoint_of(folder, "two")
    assert two.key == one.key
    tensors, expected = tensors_of(two), tensors_of(one)
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ['objective="softmax"', 'objective="sl@k"', 'objective="squared"', "contrast=0.2"])
def test_two_processes_train_every_loss_as_one_does(folder: Path, loss: str) -> None:
    """Scores and norms are sums over the columns of both."""
    stores = [f"{loss[-5:-1]}-{number}" for number in ("one", "two")]
    for store in stores:
        copied(folder, store)
    settings = [f"train.{loss}", "train.negatives=32", "train.l2=1e-4", "train.epochs=7"]
    run_stages(load_config(folder / "run.toml", [f'store="{folder / stores[0]}"', *settings]), "train")
    status, logged = ended(launched(folder, stores[1], *settings))
    assert status == 0, logged
    one, two = (checkpoint_of(folder, store) for store in stores)
    assert two.key == one.key
    assert_metrics_are_close(one, two)
    for name, tensor in tensors_of(one).items():
        torch.testing.assert_close(tensors_of(two)[name], tensor, rtol=1e-3, atol=1e-3)


def test_bytes_of_every_step_are_counted_and_logged(folder: Path) -> None:
    statistics = checkpoint_of(folder, "two").statistics
    interactions = (
        Store(folder / "two")
        .recorded(Store(folder / "two").run("ranks"))["interactions"]
        .read()["split"]
        .to_pylist()
        .count("train")
    )
    batch = statistics["bytes_by_step"]["batch"]
    assert len(statistics["memory_mib_by_process"]) == 2
    scores = 1 + TrainSettings().negatives
    assert batch["bytes"] == 4 * (scores * 20 * interactions + batch["steps"])
    assert f"by step: batch {batch['bytes'] / batch['steps']:,.0f}, alignment " in (folder / "two.log").read_text()


def test_only_the_first_process_logs(folder: Path) -> None:
    logged = (folder / "two.log").read_text()
    assert [logged.count(f"epoch {epoch}{EPOCH}") for epoch in (1, 20)] == [1, 1]
    assert logged.count("train: making checkpoint-2022") == 1


def ended_by_a_kill(job: subprocess.Popen[str]) -> tuple[int, str]:
    """As `ended`, of a job whose second process is killed after three epochs."""
    assert job.stderr is not None
    while f"epoch 3{EPOCH}" not in (line := job.stderr.readline()):
        assert line, "the job ended too early"
    processes = psutil.Process(job.pid).children()
    next(each for each in processes if each.environ().get("RANK") == "1").send_signal(signal.SIGKILL)
    return ended(job)


def test_the_job_fails_without_one_process_and_resumes_when_started_again(folder: Path) -> None:
    copied(folder, "again")
    job = launched(folder, "again")
    status, logged = ended_by_a_kill(job)
    assert status == 1
    messages = (
        "lost another one",
        "interrupted; what was finished is kept",
    )  # whichever comes first: the sum or the signal
    assert any(message in logged for message in messages)
    assert "goes on" in logged

    status, logged = ended(launched(folder, "again"))
    assert status == 0, logged
    assert f"epoch 3{EPOCH}" not in logged
    again, two = checkpoint_of(folder, "again"), checkpoint_of(folder, "two")
    assert again.manifest.files == two.manifest.files


def test_a_process_that_is_killed_ends_the_job_with_one_line(folder: Path) -> None:
    copied(folder, "killed")
    job = launched(folder, "killed", by=LAUNCH)
    status, logged = ended_by_a_kill(job)
    assert status == 1
    last = "edda: process 1 was ended by SIGKILL; what was finished is kept, the same command continues from there"
    assert logged.splitlines()[-1] == last
    assert "Traceback" not in logged


def test_an_error_of_the_first_process_is_the_last_line(folder: Path) -> None:
    job = launched(folder, "two", "train.width=1", by=LAUNCH)
    status, logged = ended(job)
    assert status == 1
    assert logged.splitlines()[-1] == TOO_FEW_COLUMNS
    assert "Traceback" not in logged


def test_torchrun_itself_shows_the_error_where_it_says_why_it_ended(folder: Path) -> None:
    _, logged = ended(launched(folder, "two", "train.width=1"))
    root_cause = logged.partition("Root Cause")[2].splitlines()
    assert f"  traceback : {TOO_FEW_COLUMNS}" in root_cause


TOO_FEW_COLUMNS = "edda: a table's width is 1, must be ≥ 2, the number of processes; start fewer of them"


def test_more_processes_than_columns_are_refused_once_with_a_remedy(folder: Path) -> None:
    status, logged = ended(launched(folder, "two", "train.width=1"))
    assert status == 1
    assert [line for line in logged.splitlines() if line.startswith("edda: ")] == [TOO_FEW_COLUMNS]
