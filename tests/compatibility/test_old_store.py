"""A store that version 0.1 made, before packages moved into folders, stays readable, and all but its metrics in use.

Metrics have got strata since, and with them a new version, so they are made again.

store-0.1.tar.gz holds run.toml and the store that `edda run run.toml` made of it: two generated domains, aligned, two
seeds of two epochs.
"""

import tarfile
from pathlib import Path

import pytest
from fake_stages import edda

from flows.config.run_config import load_config
from flows.runner.execute import Outcome, is_recorded, known_costs
from flows.runner.lookup import find_run
from flows.runner.plan import make_plan

ROLES = [
    *("world", "rejects", "interactions", "nodes", "graph", "neighbours", "reach", "pairs"),
    *("checkpoint-2022", "checkpoint-7", "blend-2022", "blend-7", "metrics", "ranks", "embeddings", "recommendations"),
]

KEPT = ROLES[: ROLES.index("pairs")]
"""The contract of pairs has a new version, on which checkpoints of aligned runs and all that follows depend."""

READABLE = [role for role in ROLES if role not in ("pairs", "metrics", "ranks")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("store-0.1.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run.toml"


def test_all_of_its_run_is_there_up_to_the_pairs_which_have_a_new_version(run: Path) -> None:
    plan = make_plan(load_config(run))
    artifacts = plan.existing()
    assert list(artifacts) == KEPT
    assert plan.missing(plan.roles()) == ROLES[len(KEPT) :]
    assert list(known_costs(plan, artifacts))[:5] == ["world", "ingest", "graph", "neighbours", "walk"]


@pytest.mark.parametrize("command", ["ingest", "graph", "neighbours", "walk"])
def test_no_stage_of_the_preparation_up_to_pairs_has_anything_to_make(
    run: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edda(command, str(run), "--no-prefect") == 0
    assert capsys.readouterr().err == "nothing to do, everything is up to date\n"


def test_a_run_makes_the_rest_again_and_nothing_else(run: Path) -> None:
    plan = make_plan(load_config(run))
    before = plan.existing()
    assert edda("run", str(run), "--no-prefect") == 0
    after = plan.existing()
    assert list(after) == ROLES
    assert {role: after[role] for role in before} == before
    assert list((run.parent / "store" / "metrics").iterdir()) != [after["metrics"].path]  # the old ones are still there
    assert edda("run", str(run), "--no-prefect") == 0
    assert is_recorded(Outcome(plan, after, []))
    assert edda("inspect", "small", "--store", str(run.parent / "store")) == 0


def test_its_old_metrics_are_refused_with_both_versions(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edda("inspect", "small", "--store", str(run.parent / "store")) == 1
    assert "contract version of pairs is 1, must be 2; run its TOML file again" in capsys.readouterr().err
    view = find_run("small", str(run.parent / "store"))
    with pytest.raises(ValueError, match="contract version of metrics is 3, must be 5"):
        _ = view.values


def test_its_artifacts_keep_their_contracts_and_its_lists_are_served(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = find_run("small", str(run.parent / "store"))
    for role in READABLE:
        assert view.artifacts[role].verify() == [], role
    for role in KEPT:
        assert edda("inspect", f"small/{role}", "--store", str(run.parent / "store")) == 0
    row = view.artifacts["recommendations"].read(domain="east").to_pylist()[0]
    capsys.readouterr()
    recommend = ["recommend", "small", "--domain", "east", "--user", row["user_id"], "--top", "1"]
    assert edda(*recommend, "--store", str(run.parent / "store")) == 0
    rank, item, score = capsys.readouterr().out.split()
    assert (rank, item) == ("1", row["item_id"])
    assert float(score) == pytest.approx(row["score"], abs=1e-4)
