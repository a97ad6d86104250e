"""`edda status`: which artifacts of a run are made, missing, begun or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.store.store import Store

__all__ = ["here", "stages"]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    """The output of a command, which must succeed."""

    def call(*arguments: str) -> str:
        capsys.readouterr()
        assert edda(*arguments) == 0
        return capsys.readouterr().out

    return call


def states(text: str) -> dict[str, str]:
    return {artifact["role"]: artifact["state"] for artifact in json.loads(text)["artifacts"]}


def test_a_run_that_was_never_started_lacks_its_world(here, stages: Stages, printed) -> None:
    status = json.loads(printed("status", "r.toml", "--json"))
    assert [(artifact["role"], artifact["state"]) for artifact in status["artifacts"]] == [("world", "missing")]
    assert "All other stages depend on the generated logs" in status["remedy"]
    assert f"edda run {Path('r.toml').absolute()}" in status["remedy"]
    assert not Path("edda-store").exists()


def test_a_finished_run_lacks_nothing(here, stages: Stages, printed) -> None:
    assert edda("run", "r.toml") == 0
    for run in ("r.toml", "r"):
        text = printed("status", run, "--json")
        assert set(states(text).values()) == {"made"}
        assert json.loads(text)["remedy"] == ""
    by_role = {artifact["role"]: artifact for artifact in json.loads(text)["artifacts"]}
    metrics = Store("edda-store").recorded(Store("edda-store").run("r"))["metrics"]
    assert by_role["metrics"]["rows"] == 4
    assert by_role["metrics"]["bytes"] == sum(file.stat().st_size for file in metrics.files())
    assert by_role["metrics"]["seconds"] == metrics.manifest.made["seconds"]


def test_a_changed_setting_leaves_missing_what_follows_from_it(here, stages: Stages, printed) -> None:
    assert edda("run", "r.toml") == 0
    text = printed("status", "r.toml", "--json", "--set", "train.epochs=3")
    missing = {role for role, state in states(text).items() if state == "missing"}
    assert missing == {"checkpoint-2022", "blend-2022", "metrics", "ranks", "embeddings", "recommendations"}
    assert json.loads(text)["remedy"].endswith("--set train.epochs=3")


def test_damaged_deleted_and_begun_artifacts_are_told_apart(here, stages: Stages, printed) -> None:
    assert edda("run", "r.toml") == 0
    store = Store(here / "edda-store")
    artifacts = store.recorded(store.run("r"))
    shutil.rmtree(artifacts["metrics"].folder)
    shutil.rmtree(artifacts["graph"].folder)
    begun = store.root / ".staging" / "graph" / artifacts["graph"].folder.name
    begun.mkdir(parents=True)
    (begun / "piece").write_bytes(b"12345")
    (artifacts["neighbours"].files() or [artifacts["neighbours"].folder / "coverage.json"])[0].write_bytes(b"")
    text = printed("status", "r", "--json")
    not_made = {role: state for role, state in states(text).items() if state != "made"}
    assert not_made == {"graph": "begun", "neighbours": "damaged", "metrics": "missing"}
    table = printed("status", "r")
    assert f"delete {artifacts['neighbours'].folder} to make it again" in table
    assert "11 of 14 artifacts made" in table


def test_an_interrupted_run_shows_its_attempt(here, stages: Stages, printed, capsys) -> None:
    stages.failures["checkpoint"] = [KeyboardInterrupt()]
    assert edda("run", "r.toml") == 130
    text = printed("status", "r", "--json")
    assert states(text)["neighbours"] == "made"
    assert states(text)["checkpoint-2022"] == "missing"
    assert "resume it with: edda run" in json.loads(text)["remedy"]


def test_overrides_need_a_file(here, stages: Stages, capsys) -> None:
    assert edda("status", "r", "--set", "train.epochs=3") == 1
    assert "need the run's TOML file" in capsys.readouterr().err
