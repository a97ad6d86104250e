from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.contracts import CHECKPOINT
from data_contracts.store.store import Store
from flows.cli.main import main
from flows.config.presets import BASELINES
from flows.config.run_config import RunSpec
from flows.tune.models import BestSettings, Model, compared_models, read_best, tuned_run
from flows.tune.search import PrunedError, Trial, Values
from flows.tune.validation import ValidationScore, build_search

SMALL = """
name = "r"
store = "store"
[world]
domains = 2
users = 40
items = 30
interactions = 400
[train]
model = "mmoe"
width = 4
epochs = 3
[neighbours]
compared_items = 5
"""


@pytest.fixture
def run(tmp_path: Path) -> RunSpec:
    (tmp_path / "r.toml").write_text(SMALL)
    return RunSpec(tmp_path / "r.toml")


def edda(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_the_best_of_as_many_trials_as_all_models_have_is_kept(run: RunSpec) -> None:
    search = replace(build_search([run]), trials=3)
    scores = [0.2, 0.5, None, 0.9]
    values: Values = dict.fromkeys(search.space, 1)
    trials = [Trial(n, values, score, 1.5, pruned=score is None) for n, score in enumerate(scores)]
    best = BestSettings.of(search, trials, "auc")
    assert (best.score, best.first_score, best.trials, best.pruned, best.failed, best.seconds) == (
        0.5, 0.2, 3, 1, 0, 4.5
    )  # fmt: skip


def test_every_baseline_has_the_same_trials_and_a_space_of_its_own(run: RunSpec) -> None:
    spaced = run.with_overrides("tune.trials=7", 'tune.space={"train.l2" = {low = 1.0, high = 2.0}}')
    models = compared_models([spaced], list(BASELINES))
    searches = {model.name: model.search() for model in models}
    assert [name for name, search in searches.items() if search is None] == ["released", "popularity"]
    assert {search.trials for search in searches.values() if search} == {7}
    assert list(searches["r"].space) == ["train.l2"]
    assert list(searches["ease"].space) == ["neighbours.ease.l2"]
    assert "train.experts" in searches["ple"].space
    of_graphs = {"train.layers", "train.edge_dropout", "train.objective", "train.negatives", "train.negative_weight"}
    assert set(searches["lightgcn"].space) - set(searches["mf-bpr"].space) == of_graphs


def test_kept_settings_are_those_of_the_same_search_alone(run: RunSpec) -> None:
    model = Model("r", (run,))
    search = model.search()
    assert read_best(search) is None
    best = BestSettings(study=search.study, measure="auc", score=0.5, first_score=None, trials=1, pruned=0, failed=0,
                        seconds=1.0, values=search.current)  # fmt: skip
    path = search.record.with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(best.model_dump_json())
    assert read_best(search) == best
    assert read_best(replace(search, study="another")) is None
    path.write_text(best.model_copy(update={"values": {"train.l2": 1.0}}).model_dump_json())
    with pytest.raises(ValueError, match=r"r.json is damaged: values are not those of the space"):
        read_best(search)
    path.write_text('{"study": 1}')
    with pytest.raises(ValueError, match=r"r.json is damaged: study: .*; delete it and tune again"):
        read_best(search)


def test_a_tuned_run_has_the_best_settings_and_another_name(run: RunSpec) -> None:
    best = BestSettings(study="", measure="auc", score=0.5, first_score=None, trials=1, pruned=0, failed=0, seconds=1.0,
                        values={"train.l2": 0.25, "train.hidden": 64})  # fmt: skip
    config = tuned_run(run, best).config
    assert (config.name, config.train.l2, config.train.hidden) == ("r-tuned", 0.25, 64)


def test_a_training_reports_its_epochs_even_if_it_was_finished_before(run: RunSpec) -> None:
    reports: list[tuple[int, float]] = []
    score = ValidationScore((run,))
    value = score({"train.hidden": 8}, lambda *report: reports.append(report))
    first = dict(reports)
    assert list(first) == [1, 2, 3]
    assert value == max(first.values())
    reports.clear()
    assert score({"train.hidden": 8}, lambda *report: reports.append(report)) == value
    assert reports == list(first.items())


def test_a_pruned_training_ends_after_that_epoch_and_leaves_nothing(run: RunSpec, tmp_path: Path) -> None:
    epochs: list[int] = []

    def report(epoch: int, score: float) -> None:
        epochs.append(epoch)
        if epoch == 2:
            raise PrunedError(epoch)

    with pytest.raises(PrunedError):
        ValidationScore((run,))({"train.hidden": 8}, report)
    assert epochs == [1, 2]
    assert list((tmp_path / "store" / ".staging" / CHECKPOINT.name).glob("*/")) == []
    assert not (tmp_path / "store" / CHECKPOINT.name).exists()


def test_only_the_first_seed_of_the_first_run_is_reported(run: RunSpec) -> None:
    epochs: list[int] = []
    seeds = run.with_overrides("train.seeds=[1, 2]")
    other = seeds.with_overrides("name=s", "world.seed=5")
    ValidationScore((seeds, other))({"train.hidden": 8}, lambda epoch, _: epochs.append(epoch))
    assert sorted(set(epochs)) == [1, 2, 3]
    store = Store(run.path.parent / "store")
    assert len(list((store.root / CHECKPOINT.name).iterdir())) == 4


def test_tune_tunes_baselines_in_turn_and_keeps_what_is_best(run: RunSpec, capsys) -> None:
    arguments = ["tune", str(run.path), "--baselines", "popularity,item-knn", "--trials", "2"]
    assert edda(*arguments) == 0
    out, err = capsys.readouterr()
    table = out.split("\n\n")[-1].splitlines()
    assert table[0].startswith("Models by validation full_ndcg@20")
    assert [line.split()[:2] for line in table[2:]] == [["r", "2"], ["popularity", "0"], ["item-knn", "2"]]
    assert err.count("trial 1 of 2: score") == 2
    kept = run.path.parent / "store" / "tune"
    assert sorted(path.name for path in kept.glob("*.json")) == ["r-item-knn.json", "r.json"]
    assert not (kept.parent / "metrics").exists()
    assert edda(*arguments) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert "trial 1 of 2:" not in err


def test_a_baseline_that_cannot_be_made_is_left_out(run: RunSpec, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.neighbours.fitted.predict_ease_bytes", lambda *_: 1 << 50)
    assert edda("tune", str(run.path), "--baselines", "ease,item-knn", "--trials", "1") == 0
    out = capsys.readouterr().out
    assert "\nitem-knn  1 " in out
    (row,) = [line for line in out.splitlines() if line.startswith("ease ")]
    assert row.split(maxsplit=7)[1:7] == ["–"] * 6
    assert "not made: neighbours of " in row


def test_two_processes_tune_as_many_trials(run: RunSpec, capsys) -> None:
    assert edda("tune", str(run.path), "--trials", "3", "--parallel", "2") == 0
    out = capsys.readouterr().out
    assert "Best of 3: trial" in out
    names = {path.name for path in (run.path.parent / "store" / "runs").iterdir() if path.is_dir()}
    assert names == {"r-tune-1", "r-tune-2"}
