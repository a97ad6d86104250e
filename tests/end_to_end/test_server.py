"""The deployments as users run them: a server, workers and `prefect deployment run`, on loopback."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect_server import STAGES, Deployment
from small_run import SMALL_RUN, every_file

from data_contracts.contracts import CHECKPOINT
from flows.runner import stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the machine may be busy

ENDED = ("Failed", "Crashed", "Cancelled")
Moment = tuple[str, float]
"""An artifact's contract, and seconds since its making began."""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory):
    deployment = Deployment(tmp_path_factory.mktemp("server"))
    try:
        deployment.start_workers()
        yield deployment
    finally:
        left = deployment.stop()
    assert left == []
    assert deployment.server.poll() is not None


def drawn(seed: int, count: int) -> list[Moment]:
    """Random moments in the order of a run, each while an artifact is being made; training takes longer."""
    made = [product.contract.name for stage in (stages.WORLD_STAGE, *stages.STAGES) for product in stage.products]
    draws, order = random.Random(seed), list(dict.fromkeys(made))
    contracts = sorted(draws.sample(order, count), key=order.index)
    return [(name, draws.uniform(0, 0.5 if name == CHECKPOINT.name else 0.05)) for name in contracts]


def killed(deployment: Deployment, run: dict[str, object], store: Path, moment: Moment) -> None:
    """Start a flow run and kill its process group at a moment."""
    flow_run, (contract, seconds) = deployment.begin("full", **run), moment
    while not (processes := deployment.processes(flow_run)):
        assert deployment.state(flow_run) not in ENDED, deployment.logs()
        time.sleep(0.1)
    while not any(store.glob(f"{contract}/*")) and not any(store.glob(f".staging/{contract}/*")):
        assert processes[0].is_running(), deployment.logs()
        time.sleep(0.002)
    time.sleep(seconds)
    os.killpg(processes[0].pid, signal.SIGKILL)


def finished(deployment: Deployment, flow_run: UUID, store: Path) -> dict[str, str]:
    """Wait for a flow run; return the digests of its files."""
    while (state := deployment.state(flow_run)) != "Completed":
        assert state not in ENDED, deployment.logs()
        time.sleep(0.2)
    return every_file(store)


@pytest.mark.parametrize(("seed", "kills"), [(6, 10)])
def test_flows_that_are_killed_and_started_again_end_with_the_same_files(deployment, tmp_path, seed, kills):
    file, stores = tmp_path / "run.toml", (tmp_path / "whole", tmp_path / "killed")
    file.write_text(SMALL_RUN.replace("epochs = 2", "epochs = 40"))
    whole, again = ({"run": str(file), "overrides": [f"store={store}"]} for store in stores)
    undisturbed = deployment.begin("full", **whole)
    for moment in drawn(seed, kills):
        killed(deployment, again, stores[1], moment)
    last = deployment.begin("full", **again)
    assert finished(deployment, last, stores[1]) == finished(deployment, undisturbed, stores[0])


def test_deployments_run_the_demo_and_repeat_nothing(deployment: Deployment, tmp_path: Path):
    schedules = [schedule for row in deployment.ask("deployments/filter", {}) for schedule in row["schedules"]]
    assert [schedule["active"] for schedule in schedules] == [False]
    short = [f"store={tmp_path / 'store'}", "train.epochs=2", "evaluate.resamples=20"]

    assert deployment.run("full", overrides=short) == 0, deployment.logs()
    assert deployment.made() == list(STAGES)
    by_domain = ("nodes", "graph", "reach", "embeddings", "recommendations")
    assert {f"{role}: {domain}" for role in by_domain for domain in ("north", "west")} <= deployment.tasks().keys()
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
    assert "train: making checkpoint-7" in deployment.logged(logging.INFO)
    assert deployment.run("train", overrides=short, seed=7) == 0, deployment.logs()
    assert deployment.made() == []
    assert deployment.run("full", overrides=short, seed=7) == 0, deployment.logs()
    assert deployment.made() == ["blend", "evaluate", "export"]

    assert deployment.run("align", overrides=[*short, "pairs.k=0"]) == 1
    message = "--set pairs.k=0: pairs.k is 0, must be ≥ 1 — fix the cause and start it again; what was finished is kept"
    assert deployment.last_run()["state"]["message"] == message
    assert deployment.logged(logging.ERROR) == [message]
