"""Garbage on object storage goes when it is old enough; what a recorded run refers to stays."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from fake_stages import edda
from object_storage import address, endpoint

from data_contracts.contracts import REJECTS
from data_contracts.open_store import open_store
from data_contracts.remote.client import Remote
from data_contracts.remote.garbage import collect_remote_garbage, find_remote_garbage
from data_contracts.store.artifact import Artifact
from data_contracts.store.runs import RunRecord
from flows.runner.lookup import find_artifact

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint"]

ROWS = pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]})
NOW = timedelta(0)


def made(address: str, number: int, **parents: Artifact) -> Artifact:
    return open_store(address).make(REJECTS, {"number": number}, parents, lambda draft: draft.write(ROWS))


@pytest.fixture
def world(address: str) -> tuple[str, Artifact, Artifact]:
    """A store with a parent, its recorded child, an artifact that nobody refers to, strays, and what is not ours."""
    parent = made(address, 0)
    child, unused = made(address, 1, interactions=parent), made(address, 2)
    open_store(address).link_run(RunRecord.build("run", {"rejects": child}))
    remote = Remote(address)
    for name in (f"rejects/{child.key}/lost/part-00000.parquet", f"nodes/{'1' * 20}/killed/part-00000.parquet"):
        remote.write(name, b"12345")
    for name in ("rejects/notes.txt", f"mine/{'2' * 20}/x", "tune/x.db"):
        remote.write(name, b"not ours")
    return address, child, unused


def test_what_is_young_stays(world) -> None:
    address, *_ = world
    before = Remote(address).listing()
    assert collect_remote_garbage(Remote(address)) == []
    assert Remote(address).listing() == before


def test_unused_artifacts_and_strays_go_and_all_else_stays(world) -> None:
    address, child, unused = world
    before = set(Remote(address).listing())
    found = find_remote_garbage(Remote(address), NOW)
    assert set(Remote(address).listing()) == before
    places = [f"nodes/{'1' * 20}", *sorted([f"rejects/{unused.key}", f"rejects/{child.key}"])]
    assert [garbage.path.as_posix() for garbage in found] == places
    assert {garbage.size for garbage in found} >= {5}
    assert collect_remote_garbage(Remote(address), NOW) == found
    gone = before - set(Remote(address).listing())
    strays = {f"nodes/{'1' * 20}/killed/part-00000.parquet", f"rejects/{child.key}/lost/part-00000.parquet"}
    assert strays < gone
    assert {name.split("/")[1] for name in gone - strays} == {unused.key}
    assert find_remote_garbage(Remote(address), NOW) == []


def test_what_another_machine_links_into_a_run_stays_and_is_found(world, tmp_path: Path, monkeypatch) -> None:
    address, child, unused = world
    monkeypatch.setenv("EDDA_CACHE", str(tmp_path / "other"))
    open_store(address).link("run", "index", unused)
    assert open_store(address).linked("run", "index") == find_artifact("run/index", address)
    assert open_store(address).linked("run", "index").key == unused.key
    open_store(address).link_run(RunRecord.build("run", {"rejects": child}))
    assert unused.key not in {garbage.path.name for garbage in find_remote_garbage(Remote(address), NOW)}
    open_store(address).unlink("run", "index")
    assert open_store(address).linked("run", "index") is None
    assert unused.key in {garbage.path.name for garbage in find_remote_garbage(Remote(address), NOW)}


def test_a_young_file_keeps_an_unused_artifact(world, monkeypatch) -> None:
    address, _, unused = world
    old = Remote(address).listing()
    young = max(file.modified for file in old.values()) + timedelta(days=30)
    parse_listing = Remote._parse_listing

    def one_is_young(self, found):
        files = parse_listing(self, found)
        return {
            name: type(file)(file.size, young if unused.key in name and "part" in name else file.modified, file.tag)
            for name, file in files.items()
        }

    monkeypatch.setattr(Remote, "_parse_listing", one_is_young)
    assert unused.key not in {garbage.path.name for garbage in find_remote_garbage(Remote(address), NOW)}


@pytest.mark.parametrize("damaged", ["run", "manifest"])
def test_where_nobody_knows_what_must_stay_nothing_goes(world, damaged: str) -> None:
    address, child, _ = world
    name = "runs/run/run.json" if damaged == "run" else f"rejects/{child.key}/manifest.json"
    Remote(address).write(name, b"{")
    before = set(Remote(address).listing())
    with pytest.raises(ValueError, match=rf"{address}/{name} is damaged: .*; delete "):
        collect_remote_garbage(Remote(address), NOW)
    assert set(Remote(address).listing()) == before


def test_the_command_takes_an_age_and_says_what_goes(world, tmp_path: Path, capsys) -> None:
    address, *_ = world
    assert edda("gc", "--dry-run", "--store", address) == 0
    assert capsys.readouterr().out == f"would remove 0 folders, 0 bytes, from {address}\n"
    assert edda("gc", "--older-than", "0s", "--store", address) == 0
    assert "\nremoved 3 folders, " in capsys.readouterr().out
    assert edda("gc", "--older-than", "1d", "--store", str(tmp_path)) == 1
    assert "--older-than is for object storage, the store is " in capsys.readouterr().err
