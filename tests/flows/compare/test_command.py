"""`edda compare`: the runs that it makes of baselines and variants, what it prints, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.resources import MemoryLimitError
from flows.cli.arguments import fill_in_baselines
from flows.config.presets import BASELINES, baseline_runs, other_evidence, parse_baselines, variant_run, with_walks
from flows.config.run_config import RunSpec
from flows.runner.plan import make_plan

__all__ = ["here", "stages"]

ITEM_MODELS = ["item-knn", "rp3beta", "slim", "ease"]
WITHOUT_VECTORS = ["walks", *(f"{name}{suffix}" for name in ITEM_MODELS for suffix in ("", "-union"))]


def test_every_baseline_is_a_valid_run_and_as_wide_as_the_run(here: Path, stages: Stages) -> None:
    assert edda("ingest", "r.toml", "--no-prefect") == 0
    for run, name in zip(baseline_runs(RunSpec(Path("r.toml"))), BASELINES, strict=True):
        config = run.config
        both = config.train.tables == "both" and config.train.model == "edda"
        width = sum(config.train.widths) if both else config.train.width
        assert (config.name, width) == (f"r-{name}", 128 if name == "released" else 160)
        prepared = ["nodes", "graph", *(["reach", "pairs"] if name == "released" else [])]
        roles = make_plan(config).missing(make_plan(config).roles("evaluate"))
        assert set(roles) - {"neighbours", "blend-2022"} == {*prepared, "checkpoint-2022", "metrics", "ranks"}
        assert config.blend.evidence == ("neighbours" in roles) == ("blend-2022" in roles) == (name in WITHOUT_VECTORS)
        assert config.train.select_by == ("auc" if name == "released" else "full_ndcg@20")


def test_overrides_limit_the_training_of_every_baseline_and_nothing_else(here: Path) -> None:
    limits = ("train.epochs=2", "train.patience=1", "train.learning_rate=0.5", "train.l2=0.25")
    runs = dict(zip(BASELINES, baseline_runs(RunSpec(Path("r.toml"), limits)), strict=True))
    assert {(run.config.train.epochs, run.config.train.patience) for run in runs.values()} == {(2, 1)}
    released = runs["released"].config.train
    assert (released.learning_rate, released.l2, released.batch_size) == (1e-3, 1e-4, 8192)
    assert runs["lightgcn"].config.train.l2 == 0.25
    assert runs["ple"].config.train.l2 == 1e-4
    unlimited = dict(zip(BASELINES, baseline_runs(RunSpec(Path("r.toml"))), strict=True))["released"].config.train
    assert (unlimited.epochs, unlimited.patience) == (300, 50)


@pytest.mark.parametrize(("suffix", "scope"), [("", "domain"), ("-union", "union")])
def test_item_models_differ_from_walks_in_their_weights_alone(here: Path, suffix: str, scope: str) -> None:
    runs = dict(zip(BASELINES, baseline_runs(RunSpec(Path("r.toml"))), strict=True))
    walks = runs["walks"].config
    for name, weights in zip(ITEM_MODELS, ["cosine", "rp3beta", "slim", "ease"], strict=True):
        config = runs[f"{name}{suffix}"].config
        assert (config.neighbours.weights, config.neighbours.scope) == (weights, scope)
        assert (config.train, config.blend) == (walks.train, walks.blend)


def test_walks_stand_beside_every_baseline_that_has_vectors(here: Path) -> None:
    beside = {}
    for name, plain in zip(BASELINES, baseline_runs(RunSpec(Path("r.toml"))), strict=True):
        beside[name] = [run.config for run in with_walks(plain)]
        for config in beside[name]:
            assert config.train == plain.config.train
            assert (config.name, config.blend.evidence) == (f"r-{name}-walks", True)
    assert [name for name, runs in beside.items() if not runs] == WITHOUT_VECTORS


@pytest.mark.parametrize("has", ["true", "false"])
def test_a_run_is_compared_with_itself_with_or_without_evidence(here: Path, has: str) -> None:
    config = other_evidence(RunSpec(Path("r.toml"), (f"blend.evidence={has}",))).config
    other = {"true": "false", "false": "true"}[has]
    assert (config.name, str(config.blend.evidence).lower()) == (f"r-evidence-{other}", other)


def test_a_variant_is_named_after_what_it_changes(here: Path) -> None:
    config = variant_run(RunSpec(Path("r.toml")), ["train.alignment=0", "train.seeds=[1, 2]"]).config
    assert (config.name, config.train.alignment) == ("r-alignment-0-seeds-1-2", 0.0)
    decimals = ["train.edge_dropout=0.1", "train.alignment=0.1"]
    names = [variant_run(RunSpec(Path("r.toml")), [change]).config.name for change in decimals]
    assert names == ["r-edge_dropout-0.1", "r-alignment-0.1"]


@pytest.mark.parametrize("form", ["--json", "--markdown"])
def test_runs_of_one_name_are_refused(here: Path, stages: Stages, capsys, form: str) -> None:
    (here / "other.toml").write_text((here / "r.toml").read_text() + "[blend]\nevidence = false\n")
    assert edda("compare", "r.toml", "other.toml", form, "--no-prefect") == 1
    assert "two runs are called 'r'; names must differ" in capsys.readouterr().err


def test_compare_makes_what_is_missing_and_prints_every_run(here: Path, stages: Stages, capsys) -> None:
    assert edda("compare", "r.toml", "--variant", "train.epochs=5", "--baselines", "--no-prefect") == 0
    out = capsys.readouterr().out
    assert all(f"\nr-{name} " in out for name in BASELINES)
    assert re.search(r"\nr-epochs-5 +train.epochs=5\n", out)
    assert stages.calls["metrics"] == 2 + len(BASELINES)
    assert "recommendations" not in stages.calls


def test_compare_shows_every_run_with_and_without_evidence(here: Path, stages: Stages, capsys) -> None:
    assert edda("compare", "r.toml", "--baselines", "--evidence", "--no-prefect") == 0
    macro = next(
        part for part in capsys.readouterr().out.split("\n\n") if part.startswith("macro, the mean over domains")
    )
    names = [line.split()[0] for line in macro.splitlines()[2:]]
    beside = {
        name: [f"r-{name}"] if name in WITHOUT_VECTORS else [f"r-{name}", f"r-{name}-walks"] for name in BASELINES
    }
    assert names == ["r", "r-evidence-false", *(name for pair in beside.values() for name in pair)]


@pytest.mark.parametrize(
    ("failing", "refused", "error"),
    [
        ("neighbours", "ease", MemoryLimitError("EASE takes up to 9 MiB;\nraise compute.memory_mib")),
        ("checkpoint", "ials", ModuleNotFoundError("implicit is not installed; run `pip install implicit`")),
        ("checkpoint", "ials", FloatingPointError("the loss is not finite")),
    ],
)
def test_a_baseline_that_cannot_run_costs_its_row_alone(
    here: Path, stages: Stages, capsys, failing: str, refused: str, error: Exception
) -> None:
    assert edda("evaluate", "r.toml", "--no-prefect") == 0
    stages.failures[failing] = [error]
    capsys.readouterr()
    assert edda("compare", "r.toml", "--baselines", f"{refused},mf-bpr", "--no-prefect") == 0
    out = capsys.readouterr().out
    assert "\nr-mf-bpr " in out
    reason = str(error).replace("\n", "; ")
    (row,) = re.findall(rf"\nr-{refused} +(.*)", out)
    assert row == f"not made: {reason}"


def test_other_errors_of_a_baseline_end_the_comparison(here: Path, stages: Stages, capsys) -> None:
    assert edda("evaluate", "r.toml", "--no-prefect") == 0
    stages.failures["checkpoint"] = [OSError("the disk is full")]
    assert edda("compare", "r.toml", "--baselines", "mf-bpr", "--no-prefect") == 1


def test_a_list_of_baselines_is_compared_alone(here: Path, stages: Stages, capsys) -> None:
    assert edda("compare", "--baselines", "popularity, mf-bpr", "r.toml", "--json", "--no-prefect") == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["name"] for run in runs] == ["r", "r-popularity", "r-mf-bpr"]


def test_bare_baselines_before_a_file_or_an_option_are_all_of_them() -> None:
    assert fill_in_baselines(["compare", "--baselines", "r.toml"]) == ["compare", "--baselines=all", "r.toml"]
    assert fill_in_baselines(["--baselines", "--json"]) == ["--baselines=all", "--json"]
    assert fill_in_baselines(["r.toml", "--baselines"]) == ["r.toml", "--baselines=all"]
    assert fill_in_baselines(["--baselines", "ease", "r.toml"]) == ["--baselines", "ease", "r.toml"]


def test_an_unknown_baseline_is_named_with_the_nearest_one(here: Path, capsys) -> None:
    assert edda("compare", "r.toml", "--baselines", "popularity,eas", "--no-prefect") == 1
    assert "--baselines has 'eas', which is no baseline; did you mean ease? (there are released, " in (
        capsys.readouterr().err
    )


def test_baselines_can_be_skipped() -> None:
    assert parse_baselines("all", "slim, ease") == [name for name in BASELINES if name not in ("slim", "ease")]
    assert parse_baselines("ease,ials", "ease") == ["ials"]
    with pytest.raises(ValueError, match="--skip has 'eas', which is no baseline; did you mean ease"):
        parse_baselines("all", "eas")
    with pytest.raises(ValueError, match="--skip is 'ease', must stand beside --baselines"):
        parse_baselines("", "ease")


def test_compare_takes_names_of_runs_that_the_store_has(here: Path, stages: Stages, capsys) -> None:
    assert edda("evaluate", "r.toml", "--no-prefect", "--set", "name=old") == 0
    assert edda("evaluate", "r.toml", "--no-prefect", "--set", "name=new", "--set", "train.epochs=5") == 0
    capsys.readouterr()
    assert edda("compare", "old", "new", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["old", "new"]
    assert found["runs"][1]["differs"] == {"train.epochs": 5}
    same = {"value": 0.0, "p": None, "seeds": 1, "p_holm": None, "p_over_users": None, "p_over_users_holm": None}
    assert found["runs"][1]["metrics"]["books"]["auc"]["difference"] == same
    assert found["cautions"] == ["new had at most 5 epochs, old had 100"]


def test_compare_as_markdown_has_tables(here: Path, stages: Stages, capsys) -> None:
    assert edda("compare", "r.toml", "--no-prefect", "--markdown") == 0
    assert "| run | auc | Δ   |\n| --- | ---: | ---: |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there must be a run's TOML file"),
        (["old", "--baselines"], "there must be a run's TOML file"),
        (["old", "--evidence"], "there must be a run's TOML file"),
        (["old"], "run 'old' is not in"),
    ],
)
def test_compare_says_what_it_needs(here: Path, capsys, arguments: list[str], message: str) -> None:
    assert edda("compare", *arguments) == 1
    assert message in capsys.readouterr().err
