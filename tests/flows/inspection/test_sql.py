import gzip
import json

import pyarrow as pa
import pytest
from fake_stages import ROWS, Stages, edda, here, stages

from data_contracts.contracts import INTERACTIONS
from data_contracts.store.draft import Draft
from flows.inspection.sql import ask

__all__ = ["here", "stages"]


@pytest.fixture
def run(here, stages: Stages, capsys):
    edda("run", "r.toml", "--no-prefect")
    capsys.readouterr()
    return here


def _json(capsys, *arguments: str):
    assert edda("inspect", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("place", ["r", "r.toml", "r/interactions", "edda-store/runs/r/interactions"])
def test_sql_sees_artifacts_as_views_with_partition_columns(run, capsys, place):
    rows = _json(capsys, place, "--sql", "select domain, user_id, split from interactions order by user_id")
    assert rows == [
        {"domain": "books", "user_id": "u", "split": "train"},
        {"domain": "books", "user_id": "v", "split": "test"},
    ]


@pytest.mark.parametrize("domain", ["0042", "42", "2026-01-31", "a b/ü=%", "it's", "null"])
def test_partition_values_are_text_as_in_the_logs(store, domain):
    table = pa.table(ROWS["interactions"], INTERACTIONS.file_schema)
    made = store.make(INTERACTIONS, {}, {}, lambda draft: draft.write(table, domain=domain))
    with ask({"interactions": made}, "select distinct domain from interactions") as found:
        assert list(found.rows) == [(domain,)]


def test_an_artifacts_views_are_it_and_its_ancestors(run, capsys):
    views = {row["name"] for row in _json(capsys, "r/reach", "--sql", "show tables")}
    assert views == {"reach", "graph", "nodes", "interactions"}
    assert "checkpoint_2022" in {row["name"] for row in _json(capsys, "r/metrics", "--sql", "show tables")}


def test_an_artifact_without_rows_is_an_empty_view_with_all_columns(run, capsys):
    assert _json(capsys, "r", "--sql", "select similarity, source_domain from pairs") == []


def test_a_query_reads_only_the_artifacts_that_it_names_and_counts_every_row_of_a_join(store):
    table = pa.table(ROWS["interactions"], INTERACTIONS.file_schema)

    def write(draft: Draft) -> None:
        draft.write(table, domain="x")
        draft.write(table, domain="y")

    one, other = (store.make(INTERACTIONS, {"log": number}, {}, write) for number in (1, 2))
    other.files()[0].unlink()
    with ask({"one": one, "other": other}, "select count(*), count(distinct l.user_id) from one l, one r") as found:
        assert list(found.rows) == [(16, 2)]
    with (
        pytest.raises(
            OSError, match=f"^{other.files()[0]} is damaged: No such file or directory; delete {other.folder}"
        ),
        ask({"one": one, "other": other}, "from other"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prices.csv", b"item,price\n0042,1.5\n7,2\n"),
        ("prices.tsv.gz", gzip.compress(b"item\tprice\n0042\t1.5\n7\t2\n", mtime=0)),
        ("prices.jsonl", b'{"item": "0042", "price": "1.5"}\n{"item": "7", "price": "2"}\n'),
        ("prices.parquet", None),
    ],
)
def test_other_files_are_joined_if_an_option_names_them(run, capsys, name, content):
    if content is None:
        pa.parquet.write_table(pa.table({"item": ["0042", "7"], "price": ["1.5", "2"]}), run / name)
    else:
        (run / name).write_bytes(content)
    sql = "select user_id, price from interactions, p where p.item = '0042' order by 1"
    assert _json(capsys, "r", "--sql", sql, "--with", f"p={name}") == [
        {"user_id": "u", "price": "1.5"},
        {"user_id": "v", "price": "1.5"},
    ]
    assert edda("inspect", "r", "--sql", f"from '{name}'", "--with", f"p={name}") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p=nowhere.csv"], "--with: nowhere.csv is not there, or no plain file"),
        (["p=r.toml"], "--with: r.toml ends in '.toml', must end in .parquet, .csv, .tsv, .jsonl"),
        (["nodes=a.csv"], "--with nodes=a.csv: nodes is the view of an artifact; choose another name"),
        (["p=a.csv", "p=a.csv"], "--with names 'p' twice"),
        (["a.csv"], "--with is 'a.csv', must be NAME=FILE"),
        (["p=a.parquet"], "--with: a.parquet cannot be read: "),
    ],
)
def test_a_file_to_join_that_cannot_be_read_is_refused_with_its_name(run, capsys, arguments, message):
    (run / "a.csv").write_text("a\n1\n")
    (run / "a.parquet").write_text("PAR1")
    options = [word for argument in arguments for word in ("--with", argument)]
    assert edda("inspect", "r", "--sql", "select 1", *options) == 1
    assert capsys.readouterr().err.startswith(f"edda: {message}")
    assert edda("inspect", "r", "--with", "p=a.csv") == 1


def test_columns_of_one_name_are_distinguished(run, capsys):
    assert _json(capsys, "r", "--sql", "select 1 as a, 2 as a, 3 as a") == [{"a": 1, "a_1": 2, "a_1_1": 3}]


def test_a_person_sees_aligned_rows_and_that_there_are_more(run, capsys):
    assert edda("inspect", "r", "--sql", "select i, 'x\ty' as t from range(101) as r(i)") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["i      t", "0   x\\ty"]
    assert (len(lines), lines[-1]) == (102, "… more than 100 rows: add a limit, or --json for all")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("create table t as select 1", "--sql is CREATE, must be one statement that reads"),
        ("copy nodes to 'x.csv'", "--sql is COPY, must be one"),
        ("select 1; select 2", "--sql is SELECT, SELECT, must be one"),
        ("", "--sql is nothing, must be one"),
        ("select * from nodez", "views: world, rejects, interactions, nodes, graph, neighbours, reach, pairs, "),
        ("selec 1", "syntax error"),
    ],
)
def test_sql_that_is_wrong_or_writes_is_refused(run, capsys, sql, message):
    assert edda("inspect", "r", "--sql", sql) == 1
    assert message in capsys.readouterr().err
    assert not (run / "x.csv").exists()


def test_lineage_goes_to_the_logs_and_tells_nothing_twice(run, capsys):
    found = _json(capsys, "r/reach")
    graph = found["parents"]["graph"]
    assert graph["parents"]["nodes"]["parents"]["interactions"]["rows"] == 2
    assert edda("inspect", "r/reach") == 0
    tree = [
        line.split(" (")[0].rsplit(" ", 1)[0] for line in capsys.readouterr().out.split("made from:\n")[1].splitlines()
    ]
    assert tree == [
        "├── nodes",
        "│   └── interactions",
        "└── graph",
        "    ├── interactions",
        "    └── nodes",
    ]


def test_an_artifact_outside_a_store_names_the_parents_it_lacks(run, capsys):
    key = _json(capsys, "r/graph")["parents"]["nodes"]["key"]
    (run / "alone").mkdir()
    next((run / "edda-store/graph").iterdir()).rename(run / "alone/graph")
    assert edda("inspect", "alone/graph") == 0
    assert f"└── nodes {key} (not in this store)" in capsys.readouterr().out


def test_a_runs_tree_begins_with_what_nothing_was_made_from(run, capsys):
    assert edda("inspect", "r") == 0
    tree = capsys.readouterr().out.split("what was made from what:\n")[1]
    roots = [line.split()[1] for line in tree.splitlines() if line[0] in "├└"]
    assert roots == ["world", "rejects", "metrics", "ranks", "recommendations"]


def test_rows_are_counted_by_partition(run, capsys):
    assert _json(capsys, "r/recommendations")["partitions"] == [{"domain": "books", "rows": 2}]
    assert edda("inspect", "r/recommendations") == 0
    out = capsys.readouterr().out
    assert "rows by partition:\n  books                                          2\n" in out
    assert "books         u        j    1.5     1" in out
