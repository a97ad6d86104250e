"""A run's name means one whole generation; the others are listed, can be promoted, and are deleted by name alone."""

import json
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.store.garbage import collect_garbage
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.execute import run_stages
from flows.runner.lookup import find_run

__all__ = ["here", "stages"]


def run(stage: str | None = None, *overrides: str) -> None:
    run_stages(load_config(Path("r.toml"), overrides), stage)


def records() -> list[RunRecord]:
    return Store("edda-store").generations("r")


def links() -> dict[str, str]:
    """What is read by paths in the run's folder."""
    folder = Path("edda-store/runs/r")
    return {path.name: path.resolve().name for path in folder.iterdir() if path.is_symlink()}


def test_a_stage_with_other_settings_leaves_the_name_what_it_is(here: Path, stages: Stages) -> None:
    run()
    whole, by_path = records()[0], links()
    run("evaluate", "train.epochs=7")
    present, other = records()
    assert present.artifacts == whole.artifacts
    assert present.attempt is None
    assert links() == by_path
    assert (present.is_whole, other.is_whole) == (True, False)
    assert find_run("r").missing is None
    assert "embeddings" in find_run("r").artifacts
    assert set(find_run(f"r@{other.generation}").artifacts) == set(other.artifacts)
    assert collect_garbage(Path("edda-store")) == [], "both are kept"


def test_a_name_moves_to_a_whole_generation_and_back(here: Path, stages: Stages, capsys) -> None:
    run()
    first = records()[0]
    run("evaluate", "train.epochs=7")
    run(None, "train.epochs=7")
    second, earlier = records()
    assert (earlier.artifacts, earlier.generation) == (first.artifacts, first.generation)
    assert second.generation != first.generation
    assert set(links().values()) == {key for _, key in second.artifacts.values()}
    assert edda("promote", f"r@{first.generation}") == 0
    assert set(links().values()) == {key for _, key in first.artifacts.values()}
    assert [record.generation for record in records()] == [first.generation, second.generation]
    made = stages.calls.total()
    run(None, "train.epochs=7")
    assert stages.calls.total() == made, "nothing is made again"
    assert records()[0].generation == second.generation
    capsys.readouterr()
    assert edda("runs", "--json") == 0
    present, other = json.loads(capsys.readouterr().out)
    assert (present["run"], present["state"]) == (f"r@{second.generation}", "present")
    assert (other["run"], other["state"]) == (f"r@{first.generation}", "complete")
    assert other["settings"] == {"train.epochs": first.config["train"]["epochs"]}


def test_a_damaged_record_hides_no_other_run(here: Path, stages: Stages, capsys) -> None:
    run()
    damaged = Path("edda-store/runs/other/run.json")
    damaged.parent.mkdir()
    damaged.write_text("{")
    capsys.readouterr()
    assert edda("runs", "--json") == 0
    printed = capsys.readouterr()
    assert {row["run"].partition("@")[0]: row["state"] for row in json.loads(printed.out)} == {
        "other": "damaged",
        "r": "present",
    }
    assert "runs/other" in printed.err
    assert edda("runs", "other") == 1


def test_the_same_settings_on_other_machines_are_one_generation(here: Path, stages: Stages) -> None:
    run()
    run(None, "compute.threads=1")
    assert len(records()) == 1


def test_an_attempt_that_fails_is_a_line_and_the_run_stays_finished(here: Path, stages: Stages, capsys) -> None:
    run()
    stages.failures["checkpoint"] = [ArithmeticError("diverged")]
    with pytest.raises(ArithmeticError):
        run(None, "train.learning_rate=7.0")
    assert find_run("r").missing is None
    capsys.readouterr()
    assert edda("runs", "r") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["present", "not"]
    assert "train.learning_rate=7.0" in lines[3]
    assert edda("inspect") == 0
    assert "UNFINISHED" not in capsys.readouterr().out


def test_what_a_name_means_is_not_deleted_alone(here: Path, stages: Stages, capsys) -> None:
    run()
    run(None, "train.epochs=7")
    second, first = records()
    assert edda("delete", f"r@{second.generation}") == 1
    assert "promote another generation first, or delete r" in capsys.readouterr().err
    assert edda("delete", f"r@{first.generation}") == 0
    assert len(records()) == 1
    gone = {garbage.path.name for garbage in collect_garbage(Path("edda-store"))}
    assert first.artifacts["metrics"][1] in gone
    assert second.artifacts["metrics"][1] not in gone
    assert edda("delete", "r") == 0
    assert not Path("edda-store/runs/r").exists()
    collect_garbage(Path("edda-store"))
    assert not list(Path("edda-store/metrics").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "r"], "'r' must be NAME@ID"),
        (["promote", "r@00000000"], "has no generation '00000000'"),
        (["delete", "r@00000000"], "has no generation '00000000'"),
        (["delete", "r@"], "'r@' must be NAME@ID, or NAME for all generations"),
        (["inspect", "r@"], "run 'r' has no generation ''"),
        (["compare", "r", "--set", "train.epochs=2"], "edda compare: --set and --update need a run's TOML file"),
        (["report", "r", "--only", "--against", "r"], "found --only and --against, must be at most one"),
        (["serve", "r", "--host", " "], "--host is ' ', must be an address; 0.0.0.0 is all of this machine"),
        (
            ["serve", "r", "--cors", "https://a.example/"],
            "--cors is 'https://a.example/', must be * or an origin without",
        ),
        (["serve", "r", "--cors", "a.example"], "--cors is 'a.example', must be * or an origin without a path"),
        (["scoreboard", "r.toml", "--out", "r.toml"], "--out r.toml: is there already and is no page of a scoreboard"),
        (["scoreboard", "r.toml", "--out", "edda-store"], "--out edda-store: is a folder, must be a file"),
        (["experiment", "overlap", "--small", "--out", "r.toml"], "--out r.toml: is a file, must be a folder"),
        (["delete", "other"], "run 'other' is not in"),
        (["runs", "other"], "run 'other' is not in"),
    ],
)
def test_unknown_ones_are_refused_in_a_line(here: Path, stages: Stages, capsys, arguments, message) -> None:
    run()
    capsys.readouterr()
    before = Path("r.toml").read_text()
    assert edda(*arguments) == 1
    assert message in capsys.readouterr().err
    assert (Path("r.toml").read_text(), len(records())) == (before, 1)


def test_one_whose_artifacts_are_gone_is_not_promoted(here: Path, stages: Stages, capsys) -> None:
    run()
    run(None, "train.epochs=7")
    _, first = records()
    path = Path("edda-store/metrics") / first.artifacts["metrics"][1]
    path.rename(path.with_name("elsewhere"))
    capsys.readouterr()
    assert edda("promote", f"r@{first.generation}") == 1
    assert f"metrics are not in {here}/edda-store any more; run it again" in capsys.readouterr().err
