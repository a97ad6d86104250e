"""The Python interface on pandas, Polars, Arrow and matrices: the same interactions are the same run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

import edda
from edda.fitted import _entries
from model.serving.ids import UnknownError

QUICK = {"train": {"epochs": 1, "width": 8, "intra_width": 4}, "evaluate": {"resamples": 5}}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """Two domains with 30 users in common; users like items of their own parity."""
    draws = np.random.default_rng(3)
    found = {(f"u{u}", f"{domain}{2 * i + u % 2}", domain)
             for domain in ("books", "films") for u in range(30) for i in draws.integers(0, 12, 9)}  # fmt: skip
    return dict(zip(("user_id", "item_id", "domain"), map(list, zip(*sorted(found), strict=True)), strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("edda") / "store")


@pytest.fixture(scope="module")
def model(rows, store) -> edda.Model:
    return edda.fit(pa.table(rows), store=store, **QUICK)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_of_all_libraries_are_the_same_run(frame, rows, store, model):
    again = edda.fit(frame(rows), store=store, name=f"of-{frame.__module__.partition('.')[0]}", **QUICK)
    assert again.artifacts["interactions"].read() == model.artifacts["interactions"].read()
    assert again.artifacts["checkpoint-2022"].key == model.artifacts["checkpoint-2022"].key


def test_frames_by_domain_and_other_names_of_columns(rows, store, model):
    table = pa.table(rows)
    frames = {
        domain: table.filter(pc.equal(table["domain"], domain))
        .select(["user_id", "item_id"])
        .rename_columns(["u", "i"])
        for domain in ("books", "films")
    }
    again = edda.fit(frames, user="u", item="i", store=store, name="apart", **QUICK)
    assert again.artifacts["interactions"].read() == model.artifacts["interactions"].read()


def test_recommendations_leave_out_what_is_known(rows, model):
    lists = model.recommend(["u3", "u4"], top=5)
    assert lists.schema.names == ["domain", "user_id", "rank", "item_id", "score"]
    assert set(lists["domain"].to_pylist()) == {"books", "films"} == set(model.domains)
    train = model.artifacts["interactions"].read()
    train = train.filter(pc.equal(train["split"], "train")).select(["domain", "user_id", "item_id"])
    assert lists.join(train, ["domain", "user_id", "item_id"], join_type="left semi").num_rows == 0
    one = model.recommend("u3", "books", top=3)
    assert one["rank"].to_pylist() == [1, 2, 3]
    assert one["score"].to_pylist() == sorted(one["score"].to_pylist(), reverse=True)


def test_new_people_and_similar_items(model):
    lists = model.recommend_for(["books0", "films2"], "films", top=4)
    assert lists.num_rows == 4
    assert "films2" not in lists["item_id"].to_pylist()
    similar = model.similar("books0", "books", top=4)
    assert "books0" not in similar["item_id"].to_pylist()


def test_a_user_whom_nobody_knows_is_named(model):
    with pytest.raises(UnknownError, match="no domain has items for user 'nobody' and 1 others"):
        model.recommend(["u3", "nobody", "none"])


def test_a_user_who_has_everything_has_no_row_and_the_others_have_theirs(rows, store):
    more = {"user_id": ["u1", "u2"], "item_id": ["the only one"] * 2, "domain": ["single"] * 2}
    fitted = edda.fit(pa.table({name: rows[name] + more[name] for name in rows}), store=store, name="all", **QUICK)
    assert fitted.recommend("u1", "single").num_rows == 0
    assert set(fitted.recommend(["u1", "u3"], "books")["user_id"].to_pylist()) == {"u1", "u3"}


def test_metrics_and_loading_by_name(model, store):
    assert "full_ndcg@20" in model.metrics()["metric"].to_pylist()
    assert edda.load("fit", store).artifacts["embeddings"].key == model.artifacts["embeddings"].key


def test_matrices_by_domain(store):
    draws = np.random.default_rng(5)
    matrices = {"a": sp.csr_array(draws.random((20, 15)) < 0.3), "b": (draws.random((20, 10)) < 0.3).astype(float)}
    fitted = edda.fit(matrices, store=store, name="matrices", **QUICK)
    table = fitted.artifacts["interactions"].read()
    of_b = table.filter(pc.equal(table["domain"], "b"))
    found = set(zip(of_b["user_id"].to_pylist(), of_b["item_id"].to_pylist(), strict=True))
    known = {(str(row), f"b-{column}") for row, column in zip(*matrices["b"].nonzero(), strict=True)}
    assert found <= known
    assert len(found) > 0.9 * len(known)  # cold held-out rows are rejects


TWO = {"user_id": ["a", "b"], "item_id": ["c", "d"], "domain": ["x", "y"]}


@pytest.mark.parametrize(
    ("interactions", "error", "message"),
    [
        (
            pa.table({"user": ["a"], "item_id": ["b"]}),
            ValueError,
            "no column 'user_id'; it has user, item_id; name yours",
        ),
        (7, TypeError, "interactions are a int, must be a frame, an Arrow table or a matrix"),
        (pd.DataFrame(TWO | {"user_id": [1, "b"]}), TypeError, "Arrow cannot read: .* column user_id with type object"),
        (pd.DataFrame(TWO | {"user_id": [1j, 2j]}), TypeError, "column user_id with type complex128; make each column"),
        (pa.table([["a"], ["b"]], ["user_id", "user_id"]), ValueError, "has column 'user_id' 2 times"),
        (pa.table(TWO | {"item_id": [[1], [2]]}), TypeError, "column 'item_id' is list<.*>, must be text, numbers"),
        (pa.table(TWO).slice(0, 0), ValueError, "there are no interactions, must be at least one"),
        ({}, ValueError, "there are no interactions, must be at least one"),
        ({"x": pa.table(TWO), "y": pa.table(TWO).slice(0, 0)}, ValueError, "domain 'y' has no interactions"),
        ({"x": pa.table(TWO), "y": pa.table(TWO)}, ValueError, "domains 'x' and 'y' have the same interactions"),
        ({1: np.eye(2)}, TypeError, "domain 1 is of type int, must be text, e.g. '1'"),
        (np.eye(2), TypeError, "a matrix has no domain, must be given by domain"),
        ({"x": np.ones(3)}, ValueError, "domain 'x' is float64 of 1 dimensions, must be numbers of users × items"),
        ({"x": np.array([["a"]])}, ValueError, "domain 'x' is <U1 of 2 dimensions, must be numbers"),
        ({"x": np.full((2, 2), np.nan)}, ValueError, "domain 'x' has NaN, must have 0 where there is no interaction"),
    ],
)
def test_what_cannot_be_fitted_is_said(interactions, error, message, tmp_path):
    with pytest.raises(error, match=message):
        edda.fit(interactions, store=str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "", 5, "a\n"])
def test_a_name_that_is_no_component_of_a_path_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(ValueError, match=r"name is .*, must be letters, digits"):
        edda.fit(pa.table(TWO), store=str(tmp_path / "a" / "store"), name=name)
    assert not list(tmp_path.iterdir())


def test_masked_entries_of_a_matrix_are_no_interactions():
    masked = np.ma.masked_array(np.ones((2, 2)), mask=[[False, True], [True, False]])
    entries = _entries(masked, {"user": "user_id", "item": "item_id"}, "x")
    assert entries.to_pydict() == {"user_id": ["0", "1"], "item_id": ["x-0", "x-1"]}


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda model: model.recommend(7), TypeError, "id 7 is of type int, must be text, e.g. '7'"),
        (lambda model: model.recommend(["u3", None]), TypeError, "id None is of type NoneType, must be text"),
        (lambda model: model.recommend("u3", 5), TypeError, "domain 5 is of type int, must be text"),
        (lambda model: model.recommend("u3", top=0), ValueError, "top is 0, must be an integer from 1 on"),
        (lambda model: model.recommend("u3", top=2.5), TypeError, "top is 2.5, must be an integer from 1 on"),
        (lambda model: model.recommend_for([1], "films"), TypeError, "id 1 is of type int"),
        (lambda model: model.similar("books0", None), TypeError, "domain None is of type NoneType"),
    ],
)
def test_what_cannot_be_asked_is_said(model, ask, error, message):
    with pytest.raises(error, match=message):
        ask(model)


def test_ids_may_be_one_text_a_list_or_a_column(model):
    one = model.recommend("u3", "books", top=2)
    for users in (["u3"], pa.array(["u3"]), np.array(["u3"]), pd.Series(["u3"]), pl.Series(["u3"])):
        assert model.recommend(users, "books", top=np.int64(2)) == one
    assert model.recommend_for("films2", "films", top=2) == model.recommend_for(["films2"], "films", top=2)


def test_a_setting_that_toml_does_not_have_is_named(store):
    with pytest.raises(TypeError, match=r"train\.epochs is None \(NoneType\), must be a number"):
        edda.fit(pa.table(TWO), store=store, name="wrong", train={"epochs": None})


def test_a_wrong_setting_is_named(rows, store):
    with pytest.raises(ValueError, match=r"train\.epochs is 0, must be"):
        edda.fit(pa.table(rows), store=store, name="wrong", train={"epochs": 0})


def test_importing_it_imports_nothing_heavy(tmp_path: Path):
    code = "import edda, sys; print(sorted({'torch', 'numba', 'prefect', 'pyarrow'} & set(sys.modules)), dir(edda)[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] Model"
    with pytest.raises(AttributeError, match="edda has no 'Modle'; it has Model, align_domains"):
        _ = edda.Modle


def test_a_user_without_home_gets_a_folder_for_compiled_kernels_where_the_installation_is_read_only(
    tmp_path: Path,
) -> None:
    """Numba would refuse to import its first cached kernel."""
    code = (
        "import os; from data_contracts import cache_folders; cache_folders.can_write = lambda _: False\n"
        "import edda; edda.align_domains; print(os.environ['NUMBA_CACHE_DIR'])"
    )
    environment = {"HOME": "/proc/none", "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / f"edda-{os.getuid()}" / "numba")


def test_names_in_any_script_are_kept_where_the_locale_has_ascii_alone(
    rows: dict[str, list[str]], tmp_path: Path
) -> None:
    """Files are UTF-8 whatever the locale: the same fit under UTF-8 finds everything made."""
    named = {**rows, "domain": [{"books": "Bücher", "films": "書"}[domain] for domain in rows["domain"]]}
    pq.write_table(pa.table(named), tmp_path / "rows.parquet")
    code = (
        "import sys, edda, pyarrow.parquet as pq\n"
        f"model = edda.fit(pq.read_table('rows.parquet'), store='store', **{QUICK!r})\n"
        "print(sys.getfilesystemencoding(), ascii(model.recommend('u1', domain='\\u66f8')['item_id'].to_pylist()))"
    )
    printed = []
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUTF8": "1"}):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **locale}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        printed.append(done.stdout.split(maxsplit=1))
    assert [encoding for encoding, _ in printed] == ["ascii", "utf-8"]
    assert printed[0][1] == printed[1][1]
    assert "making" not in done.stderr
