"""A store that version 0.1 made, before packages moved into folders: what it serves is served; a run makes it again.

Ingest draws ties of time since, and reads missing ids as such, so that interactions have a new version, and pairs and
metrics as well.

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

KEPT = ["world"]
"""All that follows depends on the interactions, whose contract has a new version."""

READABLE = [role for role in ROLES if role not in ("rejects", "interactions", "pairs", "metrics", "ranks")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("store-0.1.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run.toml"


def test_its_world_is_there_and_the_rest_is_missing(run: Path) -> None:
    plan = make_plan(load_config(run))
    artifacts = plan.existing()
    assert list(artifacts) == KEPT
    assert plan.missing(plan.roles()) == ROLES[len(KEPT) :]
    assert "world" in known_costs(plan, artifacts)


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
    assert "contract version of rejects is 2, must be 3; run its TOML file again" in capsys.readouterr().err
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
