"""`--dry-run`: what a run would make and why, without making it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.plan import make_plan
from flows.runner.preview import preview

__all__ = ["here", "stages"]


def reasons(stage: str | None = None, *overrides: str) -> dict[str, str]:
    """Role → why it would be made, for those that would be."""
    planned = preview(make_plan(load_config(Path("r.toml"), overrides)), stage)
    return {artifact.role: artifact.reason for artifact in planned if artifact.reason}


def test_only_the_world_is_planned_until_there_are_logs(here, stages: Stages, capsys) -> None:
    assert reasons() == {"world": "new"}
    assert edda("graph", "r.toml", "--dry-run") == 0
    assert capsys.readouterr().out.endswith("can be planned when these exist.\n")
    assert not Path("edda-store").exists()


def test_a_changed_setting_is_named_and_what_follows_from_it(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    assert reasons() == {}
    assert reasons(None, "train.epochs=3") == {
        "checkpoint-2022": "changed epochs",
        "blend-2022": "other checkpoint-2022",
        "metrics": "other checkpoint-2022, blend-2022",
        "ranks": "other checkpoint-2022, blend-2022",
        "embeddings": "other checkpoint-2022",
        "recommendations": "other embeddings, blend-2022",
    }


def test_a_stage_only_shows_what_it_needs(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    shown = reasons("graph", "ingest.cold=keep")
    assert shown["nodes"] == "other interactions"
    assert set(shown) == {"rejects", "interactions", "nodes", "graph"}


def test_a_deleted_artifact_is_said_to_be(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    metrics = Store("edda-store").recorded(Store("edda-store").run("r"))["metrics"]
    shutil.rmtree(metrics.path)
    assert reasons() == {"metrics": "deleted"}


def test_the_command_prints_a_table_and_makes_nothing(here, stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert edda("run", "r.toml") == 0
    calls = dict(stages.calls)
    capsys.readouterr()
    assert edda("run", "r.toml", "--dry-run", "--set", "train.epochs=3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "What r needs; nothing was made"
    states = {line.split()[0]: line.split()[1:3] for line in lines[2:]}
    assert states["pairs" if "pairs" in states else "graph"][0] == "exists"
    assert states["checkpoint-2022"] == ["to", "make"]
    assert dict(stages.calls) == calls
