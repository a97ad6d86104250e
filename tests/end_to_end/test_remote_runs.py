"""Runs whose store is on object storage: machines share artifacts and fetch only what they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_stages import edda, here
from object_storage import address, endpoint
from tiny_world import random_log

from data_contracts.open_store import open_store
from data_contracts.remote.client import Remote
from data_contracts.store.runs import Attempt
from flows.runner.lookup import describe_missing

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint", "here"]

RUN = """
name = "r"
[[logs]]
path = "logs/*.csv"
path_pattern = '/(?P<domain>\\w+)\\.csv'
columns = { split = "split" }
[ingest.split]
method = "given"
[reach]
compared_nodes = 5
[train]
epochs = 1
width = 4
alignment = 0.3
[compute]
threads = 1
"""


@pytest.fixture
def run(here: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the store of a run `r.toml` with two domains, set in the environment."""
    (here / "r.toml").write_text(RUN)
    (here / "logs").mkdir()
    for domain, rows in random_log(1, {"books": (30, 20, 260), "films": (16, 14, 120)}).items():
        lines = ["user_id,item_id,split", *(",".join(row) for row in rows)]
        (here / "logs" / f"{domain}.csv").write_text("\n".join([*lines, ""]))
    monkeypatch.setenv("EDDA_STORE", address)
    return address


def without_logs(here: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as another machine from now on: an empty cache and no logs."""
    monkeypatch.setenv("EDDA_CACHE", str(here / cache))
    for path in (here / "logs").glob("*.csv"):
        path.unlink()


def fetched(here: Path, cache: str) -> set[str]:
    return {path.parents[1].name for path in (here / cache).glob("stores/*/*/*/manifest.json")}


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a stage was asked to work")

    monkeypatch.setattr("flows.runner.execute.make_step", refuse)


def test_a_finished_run_is_read_by_a_new_machine(run, here, monkeypatch, capsys) -> None:
    assert edda("run", "r.toml", "--no-prefect") == 0
    table, report = capsys.readouterr().out.split("\nReport: ")
    assert Path(report.splitlines()[0]).exists()
    assert f"Artifacts in {run}/runs/r/" in table
    without_logs(here, "reader", monkeypatch)
    forbid_work(monkeypatch)
    assert edda("run", "r.toml", "--no-prefect") == 0
    out, err = capsys.readouterr()
    assert "nothing to do, everything is up to date\n" in err
    assert out == table.replace(" made\n", " kept\n")
    assert fetched(here, "reader") == {"metrics"}
    (user,) = (row[0] for row in random_log(1, {"books": (30, 20, 260)})["books"][:1])
    assert edda("recommend", "r", "--domain", "books", "--user", user, "--top", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert fetched(here, "reader") == {"metrics", "embeddings", "graph", "nodes", "neighbours", "blend"}
    assert edda("compare", "r", "--store", run) == 0
    assert capsys.readouterr().out.startswith("films: ")
    assert edda("inspect", "r/pairs", "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["violations"], described["parents"]["reach"]["found"]) == ([], True)
    assert edda("inspect", run) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"Runs in {run}"
    assert edda("inspect", "r/nothing") == 1
    assert "run 'r' has no artifact 'nothing', must be one of " in capsys.readouterr().err
    assert edda("report", "r") == 0
    assert edda("run", "r.toml", "--no-prefect") == 0


def test_an_attempt_counts_as_running_only_while_its_lock_is_held(address: str) -> None:
    store = open_store(address)
    store.begin_attempt("r", Attempt(command="edda run r.toml", at="now", config={}, planned={}, costs={}))
    missing = "is not finished; missing: nothing but its record; resume it with: edda run r.toml"
    assert missing in str(describe_missing("r", store))
    with store.lock_run("r"):
        assert "is in progress" in str(describe_missing("r", store))


def test_training_on_another_machine_fetches_only_what_it_reads(run, here, monkeypatch, capsys) -> None:
    assert edda("align", "r.toml", "--no-prefect") == 0
    without_logs(here, "trainer", monkeypatch)
    assert edda("train", "r.toml", "--no-prefect", "--store", run) == 0
    assert fetched(here, "trainer") == {"interactions", "nodes", "graph", "neighbours", "pairs", "checkpoint"}
    assert {"reach", "checkpoint"} <= {name.split("/")[0] for name in Remote(run).listing()}
    capsys.readouterr()
    assert edda("ingest", "r.toml", "--no-prefect", "--set", "ingest.rejected_share_at_most=0.5") == 1
    assert "matches no file" in capsys.readouterr().err


def test_logs_that_do_not_match_are_an_error_even_if_the_run_is_recorded(run, here, capsys) -> None:
    assert edda("ingest", "r.toml", "--no-prefect") == 0
    (here / "logs" / "@.csv").touch()
    assert edda("ingest", "r.toml", "--no-prefect") == 1
    assert "does not match" in capsys.readouterr().err


def test_logs_on_object_storage_are_copied_only_for_ingest(run, here, monkeypatch, capsys) -> None:
    remote = Remote(run.removesuffix("/stores/one"))
    for path in (here / "logs").glob("*.csv"):
        remote.write(f"logs/{path.name}", path.read_bytes())
    options = ["--no-prefect", "--set", f"logs.0.path={remote.address}/logs/*.csv"]
    assert edda("ingest", "r.toml", *options) == 0
    without_logs(here, "reader", monkeypatch)
    assert edda("graph", "r.toml", *options) == 0
    assert (fetched(here, "reader"), (here / "reader/logs").exists()) == ({"interactions", "nodes", "graph"}, False)
    remote.write("logs/books.csv", b"user_id,item_id,split\nu,i,train\n")
    capsys.readouterr()
    assert edda("ingest", "r.toml", *options) == 0
    assert "ingest: making rejects" in capsys.readouterr().err  # the interactions come with them
