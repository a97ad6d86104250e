import errno
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_stages import Stages, stages
from httpx import ConnectError
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness
from prefect.utilities.callables import parameter_schema

from data_contracts.progress import FinishedPart
from data_contracts.store.digests import file_digest
from flows.config.run_config import RunSpec
from flows.orchestration.flow import edda, run_flow, work_on_stage
from flows.orchestration.page import page_progress
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import log_lines
from flows.runner.execute import no_watcher
from flows.runner.failures import format_failure, is_transient
from pipeline.logs.discovery import Digests

__all__ = ["stages"]

STAGES = ["ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export"]


@pytest.fixture(scope="module")
def prefect_api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def run(tmp_path: Path, stages: Stages, prefect_api, monkeypatch) -> str:
    monkeypatch.setattr(work_on_stage, "retry_delay_seconds", [0, 0, 0])
    path = tmp_path / "r.toml"
    path.write_text('name = "r"\nstore = "store"\ntrain.alignment = 0.3\n[world]\n')
    return str(path)


def last_tasks() -> list[tuple[str, str]]:
    """Names and states of the tasks of the flow run that started last, in order."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]
        tasks = client.read_task_runs()
    mine = [task for task in tasks if task.flow_run_id == flow_run.id]
    return [(task.name, task.state_name or "") for task in sorted(mine, key=lambda task: str(task.start_time))]


def last_message() -> str | None:
    """What the flow run that started last says of its state."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0].state
    return state.message if state else None


def artifacts() -> dict[str, str]:
    with get_client(sync_client=True) as client:
        response = client._client.post("/artifacts/latest/filter", json={})
    return {artifact["key"]: f"{artifact['data']}\n{artifact['description']}" for artifact in response.json()}


def bars() -> list[tuple[float, str]]:
    with get_client(sync_client=True) as client:
        response = client._client.post("/artifacts/filter", json={"artifacts": {"type": {"any_": ["progress"]}}})
    found = [(artifact["data"], artifact["description"]) for artifact in response.json()]
    return [(percent, text) for percent, text in found if text.startswith("bar")]


def test_each_stage_is_a_task_and_is_skipped_the_second_time(run, stages: Stages):
    edda(run)
    assert last_tasks() == [("world", "Completed"), *((stage, "Completed") for stage in STAGES)]
    edda(run)
    assert last_tasks() == [("world", "Skipped"), *((stage, "Skipped") for stage in STAGES)]
    assert set(stages.calls.values()) == {1}


def test_a_stages_flow_has_only_the_tasks_it_stands_on(run):
    edda(run, stage="walk")
    assert [name for name, _ in last_tasks()] == ["world", "ingest", "graph", "walk"]


def test_an_override_remakes_what_depends_on_it(run):
    edda(run)
    edda(run, overrides=["pairs.k=2"])
    made = [name for name, state in last_tasks() if state == "Completed"]
    assert made == ["align", "train", "blend", "evaluate", "export"]


def test_a_flow_run_is_tagged_with_run_and_stage(run):
    edda(run, stage="graph")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]
    assert set(flow_run.tags) == {"edda", "run:r", "stage:graph"}


def test_artifacts_name_their_folders_and_a_summary_shows_the_metrics(run, tmp_path):
    edda(run)
    found = artifacts()
    assert found["r-nodes"].startswith(f"`{tmp_path}/store/nodes/")
    assert "0 rows. Every user and item of a domain" in found["r-nodes"]
    assert "| books | 2 | 0.750 (0.700–0.800) |" in found["edda-r"]


def test_costs_are_a_table_and_training_a_picture(run):
    edda(run)
    edda(run, overrides=["pairs.k=2"])
    found = artifacts()
    costs = {row["stage"]: row for row in json.loads(found["edda-r-costs"].splitlines()[0])}
    assert list(costs) == ["world", *STAGES]
    assert {stage: row["state"] for stage, row in costs.items() if row["state"] == "made"}.keys() == {*STAGES[4:]}
    assert all(int(row["MiB"].replace(",", "")) > 0 for row in costs.values())
    assert found["edda-r-curve"].startswith("data:image/png;base64,iVBOR")


def test_progress_is_a_bar_that_ends_full(prefect_api, monkeypatch):
    monkeypatch.setattr("flows.output.console.SECONDS_BETWEEN_LINES", 0)
    seen = []

    @flow(name="shows")
    def shows() -> None:
        with page_progress("bar") as progress:
            progress(1, 4, "nodes")
            seen.extend(bars())
        seen.extend(bars())

    shows()
    assert seen == [(25.0, "bar: 1 of 4 nodes"), (100.0, "bar is made")]


def test_finished_parts_of_a_stage_are_tasks_beside_it(prefect_api):
    @task(name="stage", task_run_name="walk")
    def stage() -> None:
        with page_progress("reach") as progress:
            with ThreadPoolExecutor(1) as pool:  # as a stage's threads do, which know of no flow run
                pool.submit(progress, 1, 3, "domains", FinishedPart("books")).result()
            progress(2, 3, "domains", "not a part")
            progress(3, 3, "domains", FinishedPart("films"))

    flow(name="parts")(stage)()
    wanted = [("reach: books", "Completed"), ("reach: films", "Completed"), ("walk", "Completed")]
    until = time.monotonic() + 60  # the server writes task runs down when it has time
    while sorted(last_tasks()) != wanted:
        assert time.monotonic() < until, last_tasks()
        time.sleep(0.2)


def test_a_seed_remakes_training_and_what_follows(run):
    edda(run)
    edda(run, seed=7)
    assert [name for name, state in last_tasks() if state == "Completed"] == ["train", "blend", "evaluate", "export"]


def test_parameters_are_fields_of_a_form():
    fields = parameter_schema(edda.fn).properties
    assert list(fields) == ["run", "seed", "overrides", "stage"]
    assert fields["run"]["type"] == "string"
    assert fields["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**32}
    assert (fields["overrides"]["type"], fields["overrides"]["items"]) == ("array", {"type": "string"})
    assert fields["stage"]["enum"] == ["full", *STAGES]
    assert all(field["description"] for field in fields.values())


def test_a_passing_error_is_tried_again(run, stages: Stages):
    stages.failures["nodes"] = [OSError(errno.EIO, "input/output error")]
    edda(run)
    assert stages.calls["nodes"] == 2


def test_a_server_that_is_away_when_a_stage_is_to_be_shown_stops_no_stage(run, stages: Stages, monkeypatch):
    def away(*_args: object, **_kwargs: object) -> None:
        raise ConnectError("All connection attempts failed")

    for name in ("table", "image", "markdown", "progress"):
        monkeypatch.setattr(f"flows.orchestration.page.create_{name}_artifact", away)
    edda(run)
    assert set(stages.calls.values()) == {1}
    assert last_tasks()[-1] == ("export", "Completed")


def test_wrong_input_is_not_tried_again_and_keeps_its_words(run, stages: Stages):
    stages.failures["nodes"] = [ValueError("no train row")]
    with pytest.raises(ValueError, match="no train row"):
        edda(run)
    assert stages.calls["nodes"] == 1
    assert last_tasks()[-1] == ("graph", "Failed")
    assert last_message() == (
        "graph of run 'r' stopped while making nodes: no train row — "
        "fix the cause and start it again; what was finished is kept"
    )


def test_an_error_that_does_not_pass_is_tried_three_times_more(run, stages: Stages):
    stages.failures["nodes"] = [TimeoutError("no answer") for _ in range(5)]
    with pytest.raises(TimeoutError, match="no answer"):
        edda(run)
    assert stages.calls["nodes"] == 4
    assert last_message().endswith("no answer — this may pass: start it again; what was finished is kept")


def test_the_process_that_starts_the_flow_watches_its_work_and_gets_its_outcome(run):
    watched: list[str] = []
    outcome = run_flow(
        RunSpec(Path(run)), None, lambda role: watched.append(role) or log_lines(watched.append)(role), Digests()
    )
    assert "nodes" in watched
    assert set(outcome.made) >= {"interactions", "recommendations"}


def test_a_log_is_read_once_for_its_digest(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,i\n")
    logs = '[[logs]]\npath = "log.csv"\ndomain = "books"\n'
    Path(run).write_text(f'name = "r"\nstore = "store"\ntrain.alignment = 0.3\n{logs}')
    read: list[Path] = []
    monkeypatch.setattr("data_contracts.store.digests.file_digest", lambda path: read.append(path) or file_digest(path))
    (outcome,) = bring_up_to_date([RunSpec(Path(run))], None, no_watcher, prefect=True)
    assert outcome.made[-1] == "recommendations"
    assert [path for path in read if path.suffix == ".csv"] == [tmp_path / "log.csv"]


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
    assert is_transient(error) is passing


def test_a_failure_is_one_line():
    error = ValueError("a is 1\nb is 2")
    assert format_failure(error) == "a is 1; b is 2 — fix the cause and start it again; what was finished is kept"
    assert format_failure(ZeroDivisionError("no")).startswith("ZeroDivisionError: no — ")
