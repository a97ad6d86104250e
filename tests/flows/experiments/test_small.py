"""Every experiment for real, on its small world."""

from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_contracts.contracts import ALL, EXPERIMENT, MACRO
from data_contracts.store.store import Store
from flows.cli.experiment import Name
from flows.cli.main import main
from flows.experiments.page import experiment_plot
from flows.experiments.registry import EXPERIMENTS


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["experiment", *arguments])
    return ended.value.code


def test_the_command_knows_every_experiment(capsys):
    assert get_args(Name) == tuple(EXPERIMENTS)
    assert run() == 0
    listed = capsys.readouterr().out
    assert all(experiment.question in listed for experiment in EXPERIMENTS.values())


def test_a_file_or_the_small_world_and_not_both(capsys):
    assert run("overlap") == 1
    assert run("overlap", "my.toml", "--small") == 1
    assert capsys.readouterr().err.count("needs a run's TOML file or --small, and not both") == 2


def test_an_empty_part_of_a_choice_is_refused(capsys):
    assert run("overlap", "--small", "--only", "evidence = on|") == 1
    assert "--only 'evidence = on|': has an empty part, which is in every label" in capsys.readouterr().err


WORLD = """
name = "r"
store = "store"
[world]
domains = 2
users = 120
items = 60
interactions = 1500
twins = 0.0
[train]
width = 4
epochs = 1
"""


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("oracle-twins", "", "the generated world has no people with two names; raise world.twins"),
        ("overlap", "[evaluate]\nfull_at = [10]\n", "evaluate.full_at is [10], must have 20 for full_ndcg@20"),
    ],
)
def test_a_run_that_cannot_answer_is_refused_at_once(name, more, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(WORLD + more)
    assert run(name, "r.toml", "--seeds", "1") == 1
    err = capsys.readouterr().err
    assert message in err
    assert "making checkpoint" not in err


def test_a_measure_that_no_case_has_leaves_an_empty_plot(store):
    def write(draft):
        rows = [("users = 5 %; training = alone", 1, MACRO, ALL, "auc", 0.5)]
        draft.write(pa.table(list(map(pa.array, zip(*rows, strict=True))), EXPERIMENT.file_schema))

    results = store.make(EXPERIMENT, {"experiment": "small-domains"}, {}, write)
    assert experiment_plot(results, EXPERIMENTS["small-domains"].design).startswith(b"\x89PNG")


def results_of(store: Path, name: str) -> pa.Table:
    results = Store(store).linked(f"small-{name}", EXPERIMENT.name)
    assert results is not None
    assert not results.verify()
    return results.read()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_ends_with_a_page_a_plot_and_checked_results(name, tmp_path, capsys):
    assert run(name, "--small", "--seeds", "1", "--store", str(tmp_path)) == 0
    table = results_of(tmp_path, name)
    assert set(EXPERIMENTS[name].measures) <= set(table["metric"].to_pylist())
    folder = tmp_path / "experiments" / f"small-{name}"
    assert (folder / f"small-{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / f"small-{name}.md").read_text()
    assert EXPERIMENTS[name].question in page
    assert all(f"| {case} |" in page for case in set(table["case"].to_pylist()))
    capsys.readouterr()
    assert run(name, "--small", "--seeds", "1", "--store", str(tmp_path)) == 0  # all is there
    assert "making" not in capsys.readouterr().err
    assert (folder / f"small-{name}.md").read_text() == page


@pytest.mark.slow
def test_results_and_what_they_were_made_from_are_no_garbage(tmp_path):
    chosen = ("--only", "users = 25 %|users = 7 %")
    options = ("small-domains", "--small", "--seeds", "1", "--store", str(tmp_path), *chosen)
    assert run(*options) == 0
    before = results_of(tmp_path, "small-domains")
    Store(tmp_path).collect_garbage()
    assert results_of(tmp_path, "small-domains") == before
    cases = set(pc.unique(before["case"]).to_pylist())
    assert cases == {f"users = 25 %; training = {way}; evidence = on" for way in ("together", "alone")}
    of_alone = before.filter(pc.equal(before["case"], "users = 25 %; training = alone; evidence = on"))
    macro = of_alone.filter(pc.and_(pc.equal(of_alone["domain"], MACRO), pc.equal(of_alone["stratum"], ALL)))
    values = dict(zip(macro["metric"].to_pylist(), macro["value"].to_pylist(), strict=True))
    assert values["full_ndcg@20 of the shrunk domain"] == pytest.approx(values["full_ndcg@20"])  # it is the only one


@pytest.mark.slow
def test_gradients_do_not_depend_on_how_the_run_is_ranked(tmp_path, capsys):
    """They are measured once, not with evidence and without."""
    (tmp_path / "r.toml").write_text(WORLD.replace('store = "store"', f'store = "{tmp_path / "store"}"'))
    options = ("gradient-conflict", str(tmp_path / "r.toml"), "--seeds", "1", "--only", "tables = both")
    assert run(*options) == 0
    assert len(list((tmp_path / "store" / "gradients").iterdir())) == 1
    capsys.readouterr()
