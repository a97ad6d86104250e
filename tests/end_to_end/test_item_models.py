"""Item-to-item models in real runs: compared with each other, alone and beside vectors, explained and served."""

import json
from pathlib import Path

import pytest
from fake_stages import edda
from small_run import SMALL_RUN

from flows.config.presets import BASELINES
from flows.runner.lookup import find_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(SMALL_RUN)
    return tmp_path


def test_item_models_are_compared_alone_and_beside_vectors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = [" ".join(BASELINES[name]) for name in ("item-knn", "rp3beta-union", "slim", "ease-union")]
    variants.append("neighbours.weights=ease")
    asked = [argument for variant in variants for argument in ("--variant", variant)]
    assert edda("compare", "r.toml", "--json", "--no-prefect", *asked) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    alone, beside = runs[1:-1], runs[-1]
    assert len({run["metrics"]["macro"]["full_ndcg@20"]["value"] for run in alone}) == len(alone)
    assert all(run["scores_come_from"]["macro"]["evidence"] == 1.0 for run in alone)
    assert 0.0 < beside["scores_come_from"]["macro"]["evidence"] < 1.0
    assert beside["differs"] == {"neighbours.weights": "ease"}


@pytest.mark.parametrize("model", ["slim", "ease"])
def test_recommendations_by_fitted_weights_have_reasons(
    here: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    chosen = [option for override in BASELINES[model] for option in ("--set", override)]
    assert edda("run", "r.toml", "--no-prefect", "--set", "export.why=true", *chosen) == 0
    view = find_run("killed", "edda-store")
    rows = view.artifacts["recommendations"].read().to_pylist()
    assert all(artifact.verify() == [] for artifact in view.artifacts.values())
    reasons = [row for row in rows if row["because_of"]]
    assert reasons
    assert all(0.0 < share <= 1.0 for row in reasons for share in row["because_of_shares"])
