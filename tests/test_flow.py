import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_stages import Stages, stages
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows.console import log_lines
from flows.edda import as_overrides, full, is_passing, several, walk, work_on_stage
from flows.running import watch

__all__ = ["stages"]

STAGES = ["ingest", "graph", "walk", "align", "train", "evaluate", "export"]


@pytest.fixture(scope="module")
def prefect_api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def run(tmp_path: Path, stages: Stages, prefect_api, monkeypatch) -> str:
    monkeypatch.setattr(work_on_stage, "retry_delay_seconds", [0, 0])
    path = tmp_path / "r.toml"
    path.write_text('name = "r"\nstore = "store"\n[world]\n')
    return str(path)


def last_tasks() -> list[tuple[str, str]]:
    """Names and states of the tasks of the flow run that started last, in order."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]
        tasks = client.read_task_runs()
    mine = [task for task in tasks if task.flow_run_id == flow_run.id]
    return [(task.name, task.state_name or "") for task in sorted(mine, key=lambda task: str(task.start_time))]


def artifacts() -> dict[str, str]:
    with get_client(sync_client=True) as client:
        response = client._client.post("/artifacts/latest/filter", json={})
    return {artifact["key"]: f"{artifact['data']}\n{artifact['description']}" for artifact in response.json()}


def test_each_stage_is_a_task_and_is_skipped_the_second_time(run, stages: Stages):
    full(run)
    assert last_tasks() == [("world", "Completed"), *((stage, "Completed") for stage in STAGES)]
    full(run)
    assert last_tasks() == [("world", "Skipped"), *((stage, "Skipped") for stage in STAGES)]
    assert set(stages.calls.values()) == {1}


def test_a_stages_flow_has_only_the_tasks_it_stands_on(run):
    walk(run)
    assert [name for name, _ in last_tasks()] == ["world", "ingest", "graph", "walk"]


def test_an_override_remakes_what_depends_on_it(run):
    full(run)
    full(run, {"pairs.k": 2})
    made = [name for name, state in last_tasks() if state == "Completed"]
    assert made == ["align", "train", "evaluate", "export"]


def test_artifacts_link_to_folders_and_a_summary_shows_the_metrics(run, tmp_path):
    full(run)
    found = artifacts()
    assert f"{tmp_path.as_uri()}/store/nodes/" in found["r-nodes"]
    assert "0 rows. Every user and item of a domain" in found["r-nodes"]
    assert "| books | 2 | 0.750 (0.700–0.800) |" in found["edda-r"]


def test_several_runs_share_one_flow_run(run, stages: Stages):
    several([(run, []), (run, ["name=alone", "train.tables=intra"])])
    assert stages.calls["graph"] == 1
    assert stages.calls["checkpoint"] == 2


def test_a_passing_error_is_tried_again(run, stages: Stages):
    stages.failures["nodes"] = [OSError(errno.EIO, "input/output error")]
    full(run)
    assert stages.calls["nodes"] == 2


def test_wrong_input_is_not_tried_again_and_keeps_its_words(run, stages: Stages):
    stages.failures["nodes"] = [ValueError("no train row")]
    with pytest.raises(ValueError, match="no train row"):
        full(run)
    assert stages.calls["nodes"] == 1
    assert last_tasks()[-1] == ("graph", "Failed")


def test_whoever_watches_the_process_is_told_of_the_flows_work(run):
    told: list[str] = []
    token = watch.set(lambda role: told.append(role) or log_lines(told.append)(role))
    try:
        full(run)
    finally:
        watch.reset(token)
    assert "nodes" in told


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.EIO, "x"), True),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (OSError(errno.ENOSPC, "x"), False),
        (ValueError("x"), False),
    ],
)
def test_only_errors_that_may_pass_are_passing(error, passing):
    assert is_passing(error) is passing


def test_overrides_are_texts_or_a_mapping():
    assert as_overrides({"train.seeds": [1, 2], "train.tables": "intra", "pairs.identity": False}) == [
        "train.seeds=[1, 2]",
        "train.tables=intra",
        "pairs.identity=false",
    ]
    assert as_overrides(["a=1"]) == ["a=1"]
    assert as_overrides(None) == []
