import importlib.util
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from data_contracts.resources import MemoryLimitError
from flows.cli.main import main
from flows.config.presets import BASELINES
from flows.config.run_config import ConfigError, RunSpec, load_config
from flows.config.tune_settings import DEFAULT_SPACE, WEIGHTS_SPACE, Axis
from flows.tune.models import BestSettings, compared_models, trials_table
from flows.tune.parallel import run_parallel_search
from flows.tune.search import Report, Score, Search, Trial, Values, best_trial, open_study, run_search
from flows.tune.validation import as_options, build_search
from tests.flows.tune.scores import Climb, hill, killed, slow_hill, too_large

SPACE = {"train.learning_rate": Axis(low=1e-4, high=1e-1, log=True), "train.layers": Axis(choices=(1, 2, 3))}


@pytest.fixture
def wanted(tmp_path: Path) -> Search:
    current: Values = {"train.learning_rate": 0.00123456, "train.layers": 2}
    return Search(SPACE, current, 6, 7, tmp_path / "tune" / "r.db", "study")


def ignore(epoch: int, score: float) -> None:
    pass


def recording(score: Score) -> tuple[list[Values], Score]:
    asked: list[Values] = []

    def scored(values: Values, report: Report) -> float:
        asked.append(values)
        return score(values, report)

    return asked, scored


def test_the_files_own_settings_are_tried_first(wanted: Search) -> None:
    trials = run_search(wanted, hill)
    assert (len(trials), trials[0].values) == (6, wanted.current)
    assert trials[0].score == hill(wanted.current, ignore)


def test_drawn_decimals_have_three_digits_and_stay_in_the_space(wanted: Search) -> None:
    for trial in run_search(wanted, hill)[1:]:
        rate = float(trial.values["train.learning_rate"])
        assert rate == float(f"{rate:.3g}")
        assert 1e-4 <= rate <= 1e-1
        assert trial.values["train.layers"] in (1, 2, 3)


def test_a_decimal_is_not_rounded_out_of_its_interval(wanted: Search) -> None:
    narrow = replace(
        wanted, space={"train.edge_dropout": Axis(low=0.9996, high=0.9999)}, current={"train.edge_dropout": 0.5}
    )
    found = {float(trial.values["train.edge_dropout"]) for trial in run_search(narrow, lambda *_: 0.5)}
    assert found == {0.9999}  # three digits are 1, which the setting may not be


def test_a_killed_search_goes_on_as_if_it_had_not_been(wanted: Search, tmp_path: Path) -> None:
    whole, score = recording(hill)
    run_search(wanted, score)
    record = replace(wanted, record=tmp_path / "killed.db")
    asked, score = recording(hill)

    def dying(values: Values, report: Report) -> float:
        if len(asked) == 3:
            raise KeyboardInterrupt
        return score(values, report)

    with pytest.raises(KeyboardInterrupt):
        run_search(record, dying)
    trials = run_search(record, score)
    assert asked == whole
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4, 5]


def test_a_first_trial_that_was_killed_while_others_ended_is_first_again(wanted: Search) -> None:
    with open_study(wanted) as study:
        study.begin_trial()
        study.begin_trial().end(0.5)  # a kill here leaves the first one unfinished
    trials = run_search(wanted, lambda values, _: 0.9 if values == wanted.current else 0.1)
    assert [trial.score for trial in trials] == [0.9, 0.5, 0.1, 0.1, 0.1, 0.1]
    assert [trial.number for trial in trials] == list(range(6))
    assert BestSettings.of(wanted, trials, "auc").first_score == 0.9


def test_a_finished_search_asks_nothing_and_a_longer_one_only_what_is_new(wanted: Search) -> None:
    run_search(wanted, hill)
    asked, score = recording(hill)
    assert len(run_search(wanted, score)) == 6
    assert asked == []
    assert len(run_search(replace(wanted, trials=8), score)) == 8
    assert len(asked) == 2


HEIGHTS = [5.0, 4.0, 3.0, 2.0, 1.0, 2.5, 3.5]
"""The median of the first five is 3.0: the sixth is pruned as soon as it may be, the seventh is not."""


def test_a_trial_below_the_median_of_the_finished_ones_ends_after_the_spared_epochs(wanted: Search) -> None:
    climb = Climb(HEIGHTS)
    trials = run_search(replace(wanted, trials=7, spared=3), climb)
    assert [trial.score for trial in trials] == [5.0, 4.0, 3.0, 2.0, 1.0, None, 3.5]
    assert [trial.pruned for trial in trials] == [False] * 5 + [True, False]
    assert climb.epochs == 6 * 10 + 4
    assert trials_table(trials, "auc").rows[-1][1] == "pruned"


def test_without_spared_epochs_no_trial_is_pruned(wanted: Search) -> None:
    assert not any(trial.pruned for trial in run_search(replace(wanted, trials=7), Climb(HEIGHTS)))


def test_a_killed_search_prunes_and_draws_what_it_would_have(wanted: Search, tmp_path: Path) -> None:
    search = replace(wanted, trials=7, spared=3)
    whole = run_search(search, Climb(HEIGHTS))
    other, climb = replace(search, record=tmp_path / "killed.db"), Climb([*HEIGHTS[:5], 2.5, *HEIGHTS[5:]])

    def dying(values: Values, report: Report) -> float:
        if climb.begun == 5:
            climb.begun += 1
            report(1, 0.25)
            report(2, 0.5)
            raise KeyboardInterrupt
        return climb(values, report)

    with pytest.raises(KeyboardInterrupt):
        run_search(other, dying)
    resumed = run_search(other, climb)
    assert [replace(trial, seconds=0) for trial in resumed] == [replace(trial, seconds=0) for trial in whole]


def test_trials_side_by_side_are_as_many_and_begin_with_the_files_own(wanted: Search) -> None:
    trials = run_parallel_search(wanted, [slow_hill, slow_hill])
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4, 5]
    assert trials[0].values == wanted.current
    assert [trial.score for trial in trials] == [hill(trial.values, ignore) for trial in trials]
    assert len({trial.values["train.learning_rate"] for trial in trials}) == 6
    assert run_search(wanted, too_large) == trials


def test_a_trial_in_another_process_is_pruned_by_the_record(wanted: Search) -> None:
    run_search(replace(wanted, trials=6, spared=3), Climb(HEIGHTS))
    *_, last = run_parallel_search(replace(wanted, trials=7, spared=3), [Climb([2.0])])
    assert (last.score, last.pruned) == (None, True)


def test_an_error_in_another_process_ends_the_search(wanted: Search) -> None:
    with pytest.raises(MemoryLimitError, match="EASE takes too much"):
        run_parallel_search(wanted, [too_large])
    with pytest.raises(ConnectionError, match="ended with status 9"):
        run_parallel_search(wanted, [killed])
    assert len(run_search(wanted, hill)) == 6


def test_another_seed_draws_other_settings(wanted: Search, tmp_path: Path) -> None:
    other = replace(wanted, seed=8, record=tmp_path / "other.db")
    assert run_search(wanted, hill)[1].values != run_search(other, hill)[1].values


def test_settings_that_diverge_count_as_a_failed_trial(wanted: Search) -> None:
    def diverging(values: Values, report: Report) -> float:
        if values["train.layers"] != 2:
            raise FloatingPointError("loss is NaN")
        return hill(values, report)

    trials = run_search(wanted, diverging)
    assert len(trials) == 6
    assert {trial.score is None for trial in trials} == {True, False}
    assert best_trial(trials).values["train.layers"] == 2
    assert trials_table(trials, "auc").rows[-1][1] == "failed"


def test_a_search_in_which_every_trial_failed_says_so() -> None:
    with pytest.raises(ValueError, match=r"every trial failed; narrow \[tune.space\]"):
        best_trial([Trial(0, {}, None, 0.0)])


def test_the_record_is_an_sqlite_file(wanted: Search) -> None:
    run_search(wanted, hill)
    with sqlite3.connect(wanted.record) as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (6,)
    connection.close()


def test_two_processes_do_not_share_a_search(wanted: Search) -> None:
    wanted.record.parent.mkdir()
    with FileLock(wanted.record.with_suffix(".lock")), pytest.raises(BlockingIOError, match="another process"):
        run_search(wanted, hill)


def test_without_optuna_the_search_says_what_to_install(wanted: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="optuna is not installed; run `pip install"):
        run_search(wanted, hill)


def test_options_are_ready_for_the_command_line() -> None:
    values: Values = {"train.learning_rate": 0.0031, "train.backbone": "mf"}
    assert as_options(values) == "--set train.learning_rate=0.0031 --set train.backbone=mf"


def toml(folder: Path, text: str, name: str = "r") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\nstore = "store"\n[world]\n{text}')
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[tune.space]\n"train.epoch" = { choices = [1] }',
            "train.epoch is not a known key; did you mean",
        ),
        ('[tune.space]\n"train.layers" = { choices = [1, 99] }', "train.layers is 99, must be ≤ 8"),
        ('[tune.space]\n"train.l2" = { low = 1.0 }', "must have both low and high, or choices"),
        ('[tune.space]\n"train.l2" = { low = 1.0, high = 0.5 }', "low is 1.0, must be < high (0.5)"),
        ('[tune.space]\n"train.l2" = { low = 0.0, high = 0.5, log = true }', "low is 0.0, must be > 0"),
        ('[tune.space]\n"evaluate.candidates" = { choices = [1] }', "space has 'evaluate.candidates', must be keys of"),
        ('[tune.space]\n"train.select_by" = { choices = ["auc"] }', "space has 'train.select_by', must be keys of"),
        ('[train]\nmodel = "popularity"', "nothing to search for train.model 'popularity'"),
    ],
)
def test_a_wrong_space_is_reported_before_anything_runs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((ConfigError, ValueError)) as raised:
        build_search([RunSpec(toml(tmp_path, text))])
    assert message in str(raised.value)


def test_more_trials_and_another_name_are_the_same_study_but_other_settings_are_not(tmp_path: Path) -> None:
    path = toml(tmp_path, "")
    first = build_search([RunSpec(path)])
    assert first.record == tmp_path / "store" / "tune" / "r.db"
    assert (
        build_search(
            [
                RunSpec(
                    path,
                    (
                        "tune.trials=99",
                        "compute.threads=1",
                    ),
                )
            ]
        ).study
        == first.study
    )
    assert build_search([RunSpec(path, ("train.epochs=5",))]).study != first.study
    assert build_search([RunSpec(path, ("blend.evidence=false",))]).study != first.study
    assert build_search([RunSpec(path, ("train.seeds=[1]",))]).study != first.study
    assert build_search([RunSpec(path), RunSpec(path)]).study != first.study


@pytest.mark.parametrize("model", [model for model, space in DEFAULT_SPACE.items() if space])
def test_every_default_space_is_allowed_and_read_by_its_model(tmp_path: Path, model: str) -> None:
    wanted = build_search([RunSpec(toml(tmp_path, f'[train]\nmodel = "{model}"'))])
    last = [f"{key}={json.dumps(axis.ends[-1])}" for key, axis in wanted.space.items()]  # read where not at its default
    config = load_config(tmp_path / "r.toml", last)
    read = [*config.train.keyed(), *(config.neighbours.keyed() if model == "walks" else [])]
    assert {key.partition(".")[2] for key in wanted.space} <= set(read)


@pytest.mark.parametrize(
    ("train", "key", "has", "has_not"),
    [
        ('model = "ials"\nwidth = 160', "train.width", (128, 160), 161),
        ("edge_dropout = 0.95", "train.edge_dropout", (0.0, 0.95), 0.96),
        ("layers = 5", "train.layers", (1, 5), 4),
        ("l2 = 0.0", "train.l2", (1e-5,), 0.0),  # a logarithmic axis cannot have it
    ],
)
def test_a_default_space_has_the_files_own_settings(tmp_path: Path, train: str, key: str, has, has_not) -> None:
    axis = build_search([RunSpec(toml(tmp_path, f"[train]\n{train}"))]).space[key]
    assert all(axis.has(value) for value in has)
    assert not axis.has(has_not)


def test_the_preset_of_every_baseline_is_its_first_trial(tmp_path: Path) -> None:
    for model in compared_models([RunSpec(toml(tmp_path, ""))], list(BASELINES)):
        if search := model.search():
            assert all(axis.has(search.current[key]) for key, axis in search.space.items()), model.name


def test_what_an_objective_and_a_contrastive_loss_read_is_searched_too(tmp_path: Path) -> None:
    def searched(train: str) -> set[str]:
        return set(build_search([RunSpec(toml(tmp_path, f"[train]\n{train}"))]).space)

    plain = searched("")
    squared = {"train.negative_weight", "train.negatives"}
    assert plain > {"train.objective", *squared}
    assert searched('objective = "softmax"') - plain == {"train.temperature"}
    assert plain - searched('objective = "softmax"') == {"train.objective", "train.negative_weight"}
    assert searched("contrast = 0.2") - plain == {"train.contrast", "train.contrast_noise"}
    assert searched('objective = "squared"') == plain
    assert searched('backbone = "mf"\nobjective = "squared"') - searched('backbone = "mf"') == squared
    assert searched('model = "ials"\nobjective = "softmax"\ncontrast = 0.2') == searched('model = "ials"')


@pytest.mark.parametrize("weights", WEIGHTS_SPACE)
def test_every_default_space_of_item_weights_is_read_by_them(tmp_path: Path, weights: str) -> None:
    path = toml(tmp_path, f'[train]\nmodel = "walks"\n[neighbours]\nweights = "{weights}"')
    keyed = load_config(path).neighbours.keyed()
    for _, name, *inner in (key.split(".") for key in build_search([RunSpec(path)]).space):
        assert name in keyed
        assert all(parameter in keyed[name] for parameter in inner)


def test_runs_that_are_selected_by_different_scores_are_not_searched_together(tmp_path: Path) -> None:
    first, second = toml(tmp_path, ""), toml(tmp_path, '[train]\nselect_by = "auc"', "s")
    with pytest.raises(ValueError, match="selected by auc and full_ndcg@20, must be by one"):
        build_search([RunSpec(first), RunSpec(second)])
    assert build_search([RunSpec(first, ("train.select_by=auc",)), RunSpec(second)])


SMALL = """
domains = 2
users = 40
items = 30
interactions = 400
[train]
model = "mmoe"
width = 4
epochs = 1
[tune]
trials = 2
[tune.space]
"train.hidden" = { choices = [4, 8] }
"""


def test_tune_trains_prints_the_best_and_leaves_the_test_split_alone(tmp_path: Path, capsys) -> None:
    worlds = {number: SMALL.replace("= 400", f"= {number}") for number in (400, 500)}
    paths = [str(toml(tmp_path, world, f"r{number}")) for number, world in worlds.items()]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["tune", *paths])
        assert not ended.value.code
    out, err = capsys.readouterr()
    assert "Best of 2: trial" in out
    assert "Trials by validation score (full_ndcg@20 of the best epoch" in out
    assert f"  edda run {paths[1]} --set train.hidden=" in out
    assert err.count("trial 1 of 2:") == 2
    made = {path.name for path in (tmp_path / "store").iterdir()}
    assert "checkpoint" in made
    assert "metrics" not in made
