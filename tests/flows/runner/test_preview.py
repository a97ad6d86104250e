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
    assert reasons() == {"world": "never made"}
    assert edda("graph", "r.toml", "--dry-run") == 0
    assert capsys.readouterr().out.endswith("can be planned when these exist.\n")
    assert not Path("edda-store").exists()


def test_a_changed_setting_is_named_and_what_follows_from_it(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    assert reasons() == {}
    assert reasons(None, "train.epochs=3") == {
        "checkpoint-2022": "setting changed: epochs",
        "blend-2022": "input changed: checkpoint-2022",
        "metrics": "input changed: checkpoint-2022, blend-2022",
        "ranks": "input changed: checkpoint-2022, blend-2022",
        "embeddings": "input changed: checkpoint-2022",
        "recommendations": "input changed: embeddings, blend-2022",
    }


def test_a_stage_only_shows_what_it_needs(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    shown = reasons("graph", "ingest.cold=keep")
    assert shown["nodes"] == "input changed: interactions"
    assert set(shown) == {"rejects", "interactions", "nodes", "graph"}


def test_a_deleted_artifact_is_said_to_be(here, stages: Stages) -> None:
    assert edda("run", "r.toml") == 0
    metrics = Store("edda-store").recorded(Store("edda-store").run("r"))["metrics"]
    shutil.rmtree(metrics.path)
    assert reasons() == {"metrics": "missing: it was deleted"}


def test_changed_new_and_removed_logs_are_named(tmp_path: Path, stages: Stages, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    for name in "abc":
        (tmp_path / "logs" / f"{name}.csv").write_text("user_id,item_id\nu,i\n")
    (tmp_path / "r.toml").write_text('name = "r"\n[[logs]]\npath = "logs/*.csv"\ndomain = "books"\n')
    assert edda("run", "r.toml") == 0
    (tmp_path / "logs" / "a.csv").write_text("user_id,item_id\nu,j\n")
    (tmp_path / "logs" / "b.csv").rename(tmp_path / "logs" / "d.csv")
    assert reasons("ingest") == {
        "rejects": "input changed: a.csv, b.csv (gone), d.csv (new)",
        "interactions": "input changed: logs (1 new, 1 gone)",  # a renamed file is the same to them
    }


def test_a_damaged_artifact_is_named_with_the_remedy(here, stages: Stages, capsys) -> None:
    assert edda("run", "r.toml") == 0
    metrics = Store("edda-store").recorded(Store("edda-store").run("r"))["metrics"]
    file = metrics.files()[0]
    file.write_bytes(file.read_bytes() + b"x")
    capsys.readouterr()
    assert edda("run", "r.toml", "--dry-run") == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("metrics")]
    assert line.split()[1] == "damaged"
    assert f"delete {metrics.folder.absolute()} to make it again" in line
    assert printed.endswith("0 of 14 artifacts would be made\n")


def test_the_command_prints_a_table_and_makes_nothing(here, stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    assert edda("run", "r.toml") == 0
    calls = dict(stages.calls)
    capsys.readouterr()
    assert edda("run", "r.toml", "--dry-run", "--set", "train.epochs=3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "What r needs; nothing was made"
    states = {line.split()[0]: line.split()[1:3] for line in lines[2:-2]}
    assert states["pairs" if "pairs" in states else "graph"][0] == "exists"
    assert states["checkpoint-2022"] == ["to", "make"]
    assert dict(stages.calls) == calls
