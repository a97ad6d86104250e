import json
import tomllib
from pathlib import Path

import pytest

from data_contracts.settings.preparation import ReachSettings
from flows.config.reference import meanings, reference
from flows.config.run_config import ConfigError, RunConfig, load_config, store_location

SHIPPED = Path(__file__).parents[3] / "flows" / "runs"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [problem.replace(str(path), "FILE") for problem in caught.value.problems]


def test_a_name_and_a_world_are_enough(tmp_path):
    config = load_config(write(tmp_path, 'name = "a"\n[world]\n'))
    assert (config.name, config.train.epochs, config.logs) == ("a", 100, ())


def test_an_unknown_key_names_file_key_and_the_nearest_known_key(tmp_path):
    (problem,) = problems(tmp_path, 'name = "a"\n[world]\n[train]\nepoch = 5\n')
    assert problem.startswith("FILE: train.epoch is not a known key; did you mean train.epochs? (known here: model, ")


def test_a_key_in_the_wrong_table_is_found_where_it_belongs(tmp_path):
    (problem,) = problems(tmp_path, 'name = "a"\nepochs = 5\n[world]\n')
    assert "did you mean train.epochs?" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[train]\nepochs = 0", "train.epochs is 0, must be ≥ 1"),
        ('[train]\nepochs = "5"', "train.epochs is '5', must be an integer"),
        ("[train]\nepochs = 5.0", "train.epochs is 5.0, must be an integer"),
        ("[train]\nepochs = true", "train.epochs is true, must be an integer"),
        ("[train]\nedge_dropout = 1.0", "train.edge_dropout is 1.0, must be < 1.0"),
        ("[train]\nlearning_rate = 0", "train.learning_rate is 0, must be > 0.0"),
        ("[train]\nlearning_rate = nan", "train.learning_rate is nan, must be a finite number"),
        ("[train]\nlearning_rate = inf", "train.learning_rate is inf, must be a finite number"),
        ('[train]\nbackbone = "gcn"', "train.backbone is 'gcn', must be one of 'grec', 'lightgcn', 'jgcf' or 'mf'"),
        ("[train]\nseeds = [1, -2]", "train.seeds[1] is -2, must be ≥ 0"),
        ("[train]\nseeds = 3", "train.seeds is 3, must be a list, e.g. [3]"),
        ("[train]\nseeds = '1, 2'", "train.seeds is '1, 2', must be a list, e.g. [1, 2]"),
        ("[train]\nseeds = 'one'", "train.seeds is 'one', must be a list, e.g. ['one']"),
        ("[logs]\npath = 'a.csv'", "logs is a table, must be tables under [[logs]]"),
        ("[train]\nseeds = [0, 1, 0]", "train.seeds: 0 more than once, must be distinct"),
        ("[reach]\nsteps = []", "reach.steps is [], must be at least 1 long"),
        (f"[neighbours]\ntop = {2**63}", f"neighbours.top is {2**63}, must be of at most 64 bits"),
        ("[train]\npair_edges = 1e39", "train.pair_edges is 1e+39, must be at most 3.4e+38"),
        ("[train]\nseeds = [-1]", "train.seeds[0] is -1, must be ≥ 0"),
        ("[compute]\ndask_scheduler = 4", "compute.dask_scheduler is 4, must be a string"),
        ("[ingest]\nsplit = 1", "ingest.split is 1, must be a table"),
        ("[ingest.split]\nmethod = 'time'", "ingest.split: method 'time' needs valid_from and test_from"),
        (
            "[ingest.split]\nvalid_from = 'noon'",
            "ingest.split.valid_from: 'noon' must be a number, a date such as 2026-11-15, or a duration such as 30d",
        ),
    ],
)
def test_a_wrong_value_is_reported_with_key_found_and_allowed(tmp_path, text, problem):
    assert problems(tmp_path, f'name = "a"\n[world]\n{text}\n') == [f"FILE: {problem}"]


def test_walks_alone_need_evidence(tmp_path):
    text = 'name = "a"\n[world]\n[train]\nmodel = "walks"\n'
    assert load_config(write(tmp_path, text)).blend.evidence
    assert problems(tmp_path, f"{text}[blend]\nevidence = false\n") == [
        "FILE: train.model is 'walks', which has no vectors, and blend.evidence is false; set blend.evidence = true"
    ]
    (problem,) = problems(tmp_path, 'name = "a"\n[world]\n[blend]\nevidence = false\n', "train.model=walks")
    assert problem.startswith("--set train.model=walks: train.model is 'walks'")


def test_a_key_of_several_types_names_them_all_once(tmp_path):
    text = 'name = "a"\n[[logs]]\npath = "x.csv"\ncolumns = { user = 2.5 }\n'
    assert problems(tmp_path, text) == ["FILE: logs[0].columns.user is 2.5, must be a string or an integer"]


@pytest.mark.parametrize(
    ("columns", "twice"),
    [
        ('user = "x", item = "x"', "user and item"),
        ('user = "item_id"', "user and item"),
        ("user = 0, item = 1, domain = 1", "domain and item"),
        ('domain = "user_id"', "domain and user"),
    ],
)
def test_user_item_and_domain_are_columns_of_their_own(tmp_path, columns, twice):
    (problem,) = problems(tmp_path, f'name = "a"\n[[logs]]\npath = "x.csv"\ncolumns = {{ {columns} }}\n')
    assert problem.startswith(f"FILE: logs[0].columns: {twice} are both ")


def test_all_mistakes_are_reported_at_once(tmp_path):
    found = problems(tmp_path, 'name = "a b"\n[[logs]]\npth = "x"\n[train]\nepochs = 0\nlayers = 9\n')
    keys = {problem.removeprefix("FILE: ").split(" ")[0] for problem in found}
    assert keys == {"name", "logs[0].path", "logs[0].pth", "train.epochs", "train.layers"}


@pytest.mark.parametrize("name", ["..", "a/b", "", "-a", ".hidden", "a\\nb"])
def test_a_name_is_one_path_component(tmp_path, name):
    (problem,) = problems(tmp_path, f'name = "{name}"\n[world]\n')
    assert problem.startswith("FILE: name is ")


def test_a_name_has_at_most_100_characters(tmp_path):
    (problem,) = problems(tmp_path, f'name = "{"n" * 101}"\n[world]\n')
    assert problem.endswith("n', must be at most 100 long")


def test_logs_and_world_exclude_each_other(tmp_path):
    both = problems(tmp_path, 'name = "a"\n[world]\n[[logs]]\npath = "x"\n')
    assert both == ["FILE: found both [world] and [[logs]], must be exactly one of them"]
    assert problems(tmp_path, 'name = "a"\n') == [
        "FILE: found neither [world] nor [[logs]], must be exactly one of them"
    ]


def test_a_file_that_is_not_toml_is_reported_with_its_line(tmp_path):
    (problem,) = problems(tmp_path, 'name = "a"\nworld = \n')
    assert problem.startswith("FILE: not TOML: ")
    assert "line 2" in problem


def test_a_missing_file_is_reported():
    with pytest.raises(ConfigError, match=r"^/nowhere/x.toml: no such file$"):
        load_config(Path("/nowhere/x.toml"))
    with pytest.raises(ConfigError, match=r"^my-run: no such file, must be a run's TOML file$"):
        load_config(Path("my-run"))


def test_overrides_take_toml_values_and_bare_words(tmp_path):
    path = write(tmp_path, 'name = "a"\n[world]\n')
    overrides = ["train.epochs=5", "train.seeds=[1, 2]", "train.tables=intra", 'name="b"', "pairs.identity=false"]
    config = load_config(path, overrides)
    assert (config.train.epochs, config.train.seeds, config.train.tables) == (5, (1, 2), "intra")
    assert (config.name, config.pairs.identity) == ("b", False)


def test_overrides_reach_into_lists(tmp_path):
    config = load_config(write(tmp_path, 'name = "a"\n[[logs]]\npath = "x"\n'), ["logs.0.domain=books"])
    assert config.logs[0].domain == "books"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("store=", "--set store=: store is '', must be at least 1 long"),
        ("train.seeds=[]", "--set train.seeds=[]: train.seeds is [], must be at least 1 long"),
        ("train.epochs=0", "--set train.epochs=0: train.epochs is 0, must be ≥ 1"),
        ("train.epochs", "--set train.epochs: must be KEY=VALUE, e.g. train.epochs=5"),
        ("name.x=1", "--set name.x=1: name is 'a', which has no keys"),
        (
            "train.epochs=5\nseeds=[1]",
            "--set train.epochs=5\nseeds=[1]: train.epochs is '5\\nseeds=[1]', must be an integer",
        ),
        ("logs.1.path=x", "--set logs.1.path=x: 1 must be a number from 0 to 0"),
    ],
)
def test_a_wrong_override_is_named_as_the_cause(tmp_path, override, problem):
    assert problems(tmp_path, 'name = "a"\n[[logs]]\npath = "x"\n', override) == [problem]


def test_an_override_in_an_unknown_table_is_named_as_the_cause(tmp_path):
    (problem,) = problems(tmp_path, 'name = "a"\n[world]\n', "trian.epochs=5")
    assert problem.startswith("--set trian.epochs=5: trian is not a known key; did you mean train?")


def test_the_runs_protocol_holds_for_ingest_and_evaluate_unless_they_name_their_own(tmp_path):
    path = write(tmp_path, 'name = "a"\nprotocol = "released"\n[world]\n[evaluate]\nprotocol = "clean"\n')
    config = load_config(path)
    assert (config.ingest.protocol, config.evaluate.protocol) == ("released", "clean")


def test_paths_are_relative_to_the_runs_file_and_take_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("EDDA_DATA", "/data")
    text = 'name = "a"\nstore = "artifacts"\n[[logs]]\npath = "a/*.csv"\n[[logs]]\npath = "${EDDA_DATA}/b.csv"\n'
    config = load_config(write(tmp_path, text))
    assert [log.path for log in config.logs] == [f"{tmp_path}/a/*.csv", "/data/b.csv"]
    assert store_location(config) == str(tmp_path / "artifacts")


def test_a_password_for_mlflow_is_refused_and_not_repeated(tmp_path):
    (found,) = problems(tmp_path, 'name = "a"\n[world]\n[tracking]\nmlflow = "https://me:s3cret@host/"\n')
    assert "tracking.mlflow: has a password in it" in found
    assert "MLFLOW_TRACKING_PASSWORD" in found
    assert "s3cret" not in found


def test_the_folder_of_event_files_is_relative_to_the_runs_file_and_an_address_is_not(tmp_path):
    text = 'name = "a"\n[world]\n[tracking]\ntensorboard = "curves"\nmlflow = "http://localhost:5000"\n'
    tracking = load_config(write(tmp_path, text)).tracking
    assert (tracking.tensorboard, tracking.mlflow) == (str(tmp_path / "curves"), "http://localhost:5000")


def test_an_environment_variable_that_is_not_set_is_reported(tmp_path, monkeypatch):
    monkeypatch.delenv("EDDA_DATA", raising=False)
    (problem,) = problems(tmp_path, 'name = "a"\n[[logs]]\npath = "${EDDA_DATA}/b.csv"\n')
    assert problem == "FILE: logs[0].path needs the environment variable EDDA_DATA, which is not set"


def test_the_store_is_the_files_else_the_environments_else_beside_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDDA_STORE", raising=False)
    assert store_location() == str(tmp_path / "edda-store")
    monkeypatch.setenv("EDDA_STORE", "/elsewhere")
    assert store_location() == "/elsewhere"


@pytest.mark.parametrize("name", ["demo", "aliccp", "aliad", "amazon"])
def test_the_shipped_runs_are_valid(name, monkeypatch):
    monkeypatch.setenv("EDDA_DATA", "/data")
    assert load_config(SHIPPED / f"{name}.toml").name == name


def test_the_reference_is_itself_a_run_with_every_default(tmp_path):
    assert load_config(write(tmp_path, reference())) == RunConfig(name="my-run", world={})


def test_the_reference_explains_every_key():
    text = reference()
    for table in tomllib.loads(text).items():
        assert json.dumps(table)
    texts = meanings(RunConfig)
    assert texts["update"].startswith("If logs have grown, continue from the last run of the name")
    assert [name for name in RunConfig.model_fields if not texts[name] or f"# {texts[name]}" not in text] == []
    assert "# Most epochs to train.\n# (integer, ≥ 1)\nepochs = 100\n" in text
    assert "integer, ≥ 0, < 2^63)" in text
    assert str(2**63) not in text


def test_every_line_of_a_keys_meaning_is_a_comment():
    text = reference()
    meaning = meanings(ReachSettings)["method"].splitlines()
    assert len(meaning) > 1
    assert "\n".join(f"# {line}" for line in meaning) in text
    assert all(line[:1] in ("", "#", "[") or " = " in line for line in text.splitlines())


def test_dates_of_toml_are_cut_offs(tmp_path):
    cut_offs = "valid_from = 2026-11-01\ntest_from = 2026-11-08T12:00:00Z\n"
    path = write(tmp_path, f"name = 'r'\n[world]\n[ingest.split]\nmethod = 'time'\n{cut_offs}")
    split = load_config(path).ingest.split
    assert (split.valid_from, split.test_from) == ("2026-11-01", "2026-11-08T12:00:00+00:00")
