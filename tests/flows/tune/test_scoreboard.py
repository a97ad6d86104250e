import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_stages import edda

from flows.compare.scoreboard import update_page
from flows.config.run_config import ConfigError, RunSpec
from flows.output.tables import NOTHING_MEASURED
from flows.runner.execute import no_watcher
from flows.tune.scoreboard import Contest, absence, make_board

SMALL = """
name = "r"
store = "store"
[world]
domains = 2
users = 60
items = 40
interactions = 800
[train]
width = 4
epochs = 2
[neighbours]
compared_items = 5
[evaluate]
resamples = 20
"""
ARGUMENTS = ["--trials", "1", "--seeds", "1,2", "--baselines", "popularity,item-knn", "--no-prefect"]
LABELS = ["default", "default, tuned", "default without evidence", "popularity", "popularity + evidence", "item-knn"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDDA_STORE", raising=False)
    (tmp_path / "r.toml").write_text(SMALL)
    return tmp_path


def labels(page: str) -> list[list[str]]:
    """First cells of each table's rows, without headers."""
    tables = [block for block in page.split("\n\n") if block.startswith("| model")]
    return [[line.split("|")[1].strip(" *") for line in table.splitlines()[2:]] for table in tables]


def test_a_page_has_every_model_with_cost_and_by_domain_and_repeats_itself(
    here: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edda("scoreboard", "r.toml", *ARGUMENTS) == 0
    page = (here / "docs" / "scoreboard.md").read_text(encoding="utf-8")
    out = capsys.readouterr().out
    means, *domains = labels(page)
    assert sorted(means) == sorted(LABELS)
    assert domains == [means, means]
    assert "\nNo domain has more than 1,000 test rows.\n" in page
    assert "The best baseline by the mean over domains: " in out
    assert page.count("| full_ndcg@20 | Δ | full_recall@20 | Δ | auc | Δ | recall@1 | Δ |") == 3
    trials = {row[1].strip(" *"): row[-3].strip() for row in (line.split("|") for line in page.splitlines())
              if len(row) == 16 and row[1].strip(" *") in LABELS}  # fmt: skip
    assert trials == {**dict.fromkeys(LABELS, "–"), "default, tuned": "1", "item-knn": "1"}
    assert (here / "docs" / "pictures" / "scoreboard-r.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (here / "store" / "tune").glob("*.json")} == {"r.json", "r-item-knn.json"}
    assert edda("scoreboard", "r.toml", *ARGUMENTS) == 0
    assert (here / "docs" / "scoreboard.md").read_text(encoding="utf-8") == page
    assert ": making " not in capsys.readouterr().err
    monkeypatch.setattr("flows.compare.scoreboard._LARGE", 1)
    assert edda("scoreboard", "r.toml", *ARGUMENTS) == 0
    (best,) = re.findall("The best baseline of each of these domains: (.*)[.]", capsys.readouterr().out)
    found = [re.fullmatch(r"(.*): (.*), (?:not )?significantly .* the default \(([+-].*)\)", part).groups()
             for part in best.split("; ")]  # fmt: skip
    tables = {table.partition(":")[0]: table for table in page.split("\n\n**")[2:]}
    assert tables.keys() == {domain for domain, _, _ in found}
    for domain, model, delta in found:
        lines = [line for line in tables[domain].splitlines() if "±" in line]
        rows = [[cell.strip(" *†\\") for cell in line.split("|")] for line in lines]
        opponents = {row[1]: (float(row[2].split()[0]), row[3]) for row in rows if not row[1].startswith("default")}
        assert opponents[model] == (max(value for value, _ in opponents.values()), delta)


def test_without_trials_kept_settings_are_used_and_others_are_the_presets(here: Path) -> None:
    assert edda("tune", "r.toml", "--baselines", "item-knn", "--trials", "1") == 0
    arguments = ["r.toml", "--trials", "0", "--seeds", "1", "--baselines", "item-knn,rp3beta", "--no-prefect"]
    assert edda("scoreboard", *arguments, "--out", "page.md") == 0
    means, *_ = labels((here / "page.md").read_text(encoding="utf-8"))
    assert sorted(means) == sorted(["default", "default, tuned", "default without evidence", "item-knn", "rp3beta"])
    names = {path.name for path in (here / "store" / "runs").iterdir() if path.is_dir()}
    assert {"r-item-knn-tuned-scoreboard", "r-rp3beta-scoreboard", "r-scoreboard"} <= names
    assert "r" not in names


def test_a_model_that_cannot_be_made_is_a_line(here: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.neighbours.fitted.predict_ease_bytes", lambda *_: 1 << 50)
    arguments = ["r.toml", "--seeds", "1", "--baselines", "ease,popularity", "--no-prefect"]
    for trials in ("0", "1"):
        assert edda("scoreboard", *arguments, "--trials", trials) == 0
        page = (here / "docs" / "scoreboard.md").read_text(encoding="utf-8")
        assert "\nCAUTION: ease is left out: neighbours of " in page
        assert "\nCAUTION: ease is left out: neighbours of " in capsys.readouterr().out
        assert "ease" not in labels(page)[0]


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_figures(here: Path, tmp_path: Path) -> None:
    assert edda("scoreboard", "r.toml", *ARGUMENTS, "--out", "whole.md", "--store", str(tmp_path / "other")) == 0
    command = [sys.executable, "-m", "flows.cli", "scoreboard", "r.toml", *ARGUMENTS, "--out", "killed.md"]
    for seconds in (8, 11, 14):
        process = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, cwd=here, capture_output=True, check=False).returncode == 0

    def figures(page: str) -> list[list[str]]:
        """Rows without costs."""
        return [line.split("|")[:10] for line in page.splitlines() if line.startswith("| ")]

    assert figures((here / "killed.md").read_text(encoding="utf-8")) == figures(
        (here / "whole.md").read_text(encoding="utf-8")
    )


def test_sections_of_other_data_sets_stay_and_one_is_replaced() -> None:
    first = update_page("", {"a": "## a\n\nold"})
    both = update_page(first, {"b": "## b"})
    assert both.endswith(
        "<!-- data set: a -->\n## a\n\nold\n<!-- end -->\n\n<!-- data set: b -->\n## b\n<!-- end -->\n"
    )
    assert update_page(both, {"a": "## a\n\nnew"}) == both.replace("old", "new")


def test_absent_data_are_skipped_and_wrong_files_are_not(here: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    log = '[[logs]]\npath = "${EDDA_DATA}/x.csv"\ndomain = "d"\n'
    (here / "absent.toml").write_text(f'name = "absent"\n{log}')
    monkeypatch.delenv("EDDA_DATA", raising=False)
    assert "EDDA_DATA" in (absence(RunSpec(here / "absent.toml")) or "")
    monkeypatch.setenv("EDDA_DATA", str(here))
    assert "x.csv" in (absence(RunSpec(here / "absent.toml")) or "")
    assert edda("scoreboard", "absent.toml") == 1
    out, err = capsys.readouterr()
    assert out.startswith("absent: skipped, its data are not here: ")
    assert err.endswith("edda scoreboard: the data of no run are here; see `edda datasets`\n")
    (here / "x.csv").write_text("user_id,item_id\nu,i\n")
    assert absence(RunSpec(here / "absent.toml")) is None
    (here / "wrong.toml").write_text(f'name = "wrong"\nepochs = 1\n{log}')
    with pytest.raises(ConfigError, match="epochs is not a known key"):
        absence(RunSpec(here / "wrong.toml"))


def test_a_run_called_like_a_baseline_keeps_its_own_settings(here: Path) -> None:
    run = RunSpec(here / "r.toml", ("name=popularity",))
    contest = Contest(trials=1, seeds=(1,), baselines=("popularity",))
    board = make_board(run, contest, no_watcher)
    assert {entry.label for entry in board.entries} == set(LABELS) - {"item-knn"}


def test_a_run_without_the_cutoff_is_refused_at_once(here: Path, capsys) -> None:
    assert edda("scoreboard", "r.toml", *ARGUMENTS, "--set", "evaluate.full_at=[10]") == 1
    err = capsys.readouterr().err
    assert "evaluate.full_at is [10], must have 20 for full_ndcg@20" in err
    assert "making" not in err


def test_a_data_set_without_test_rows_has_a_page(here: Path) -> None:
    assert edda("scoreboard", "r.toml", *ARGUMENTS, "--set", "ingest.split.test_share=0") == 0
    assert f"\n{NOTHING_MEASURED}\n" in (here / "docs" / "scoreboard.md").read_text(encoding="utf-8")


def test_two_runs_of_one_name_are_refused_at_once(here: Path, capsys) -> None:
    (here / "other.toml").write_text((here / "r.toml").read_text())
    assert edda("scoreboard", "r.toml", "other.toml", *ARGUMENTS) == 1
    err = capsys.readouterr().err
    assert err == "edda: other.toml: two runs are called 'r'; names must differ: set `name` in one of them\n"


def test_seeds_are_numbers(here: Path, capsys) -> None:
    assert edda("scoreboard", "r.toml", "--seeds", "1;2") == 1
    assert "--seeds is '1;2', must be numbers, e.g. 2022,2023,2024" in capsys.readouterr().err
    assert edda("scoreboard", "r.toml", "--seeds", "1,01") == 1
    assert "--seeds is '1,01', must be different numbers" in capsys.readouterr().err
