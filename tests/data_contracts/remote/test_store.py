"""Artifacts on object storage come to be whole or not at all, once, and are fetched whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from damage import resigned
from object_storage import address, endpoint

from data_contracts.contracts import INTERACTIONS, REJECTS
from data_contracts.open_store import open_store
from data_contracts.remote.client import Remote
from data_contracts.remote.store import RemoteStore
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.runs import RunRecord

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint"]

ROWS = pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]})


def write(draft: Draft) -> None:
    draft.write(ROWS)


def never(draft: Draft) -> None:
    raise AssertionError("was asked to make an artifact that exists")


def other_machine(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    """The store as a machine with an empty cache has it."""
    monkeypatch.setenv("EDDA_CACHE", str(folder))
    store = open_store(address)
    assert isinstance(store, RemoteStore)
    return store


def names(address: str) -> list[str]:
    return list(Remote(address).listing())


def list_files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def test_what_one_machine_made_another_finds_and_reads_only_when_it_is_asked(address, tmp_path, monkeypatch) -> None:
    made = open_store(address).make(REJECTS, {"a": 1}, {}, write)
    other = other_machine(address, tmp_path / "other", monkeypatch)
    found = other.make(REJECTS, {"a": 1}, {}, never)
    assert (found.manifest, found.address) == (made.manifest, f"{address}/rejects/{made.key}")
    assert (found.is_readable, found.is_local) == (True, False)
    assert found.read().equals(ROWS)
    assert (found.is_local, found.verify(), list_files(found.path)) == (True, [], list_files(made.path))
    assert other.find(REJECTS, "0" * 20) is None


def test_layout_is_a_folders_but_for_a_folder_of_each_writer(address) -> None:
    store = open_store(address)
    made = store.make(INTERACTIONS, {}, {}, lambda draft: None)
    rejects = store.make(REJECTS, {}, {}, write)
    assert (made.read().num_rows, rejects.read().num_rows) == (0, 1)
    data, manifest = sorted(names(f"{address}/rejects"), key=lambda name: name.endswith("json"))
    assert manifest == f"{rejects.key}/manifest.json"
    assert data.split("/")[::2] == [rejects.key, "part-00000.parquet"]
    assert names(f"{address}/interactions") == [f"{made.key}/manifest.json"]


def test_a_run_is_recorded_for_all_machines(address, tmp_path, monkeypatch) -> None:
    store = open_store(address)
    made = store.make(REJECTS, {}, {}, write)
    store.link_run(RunRecord.build("first", {"rejects": made}, config={"seed": 3}))
    other = other_machine(address, tmp_path / "other", monkeypatch)
    record = other.run("first")
    assert (other.recorded(record)["rejects"].key, record.config) == (made.key, {"seed": 3})
    with pytest.raises(FileNotFoundError, match=rf"run 'two' is not in {address}; runs there: first"):
        other.run("two")


def test_what_the_remote_lost_is_put_there_again_when_a_run_is_recorded(address, tmp_path, monkeypatch) -> None:
    store = open_store(address)
    made = store.make(REJECTS, {}, {}, write)
    remote = Remote(address)
    remote.delete(list(remote.listing()))
    store.link_run(RunRecord.build("run", {"rejects": made}))
    other = other_machine(address, tmp_path / "other", monkeypatch)
    assert other.recorded(other.run("run"))["rejects"].read().equals(ROWS)
    remote.delete([f"rejects/{made.key}/manifest.json"])
    third = other_machine(address, tmp_path / "third", monkeypatch)
    with pytest.raises(FileNotFoundError, match="is not there any more; run its TOML file again"):
        third.link_run(RunRecord.build("again", third.recorded(third.run("run"))))


WRITER = """
import sys, time
from pathlib import Path
import pyarrow as pa
from data_contracts.contracts import REJECTS
from data_contracts.remote.client import Remote
from data_contracts.open_store import open_store
folder, name, wait = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
create = Remote.create
def after_all(self, *arguments):
    (folder / f"{name}.uploaded").touch()
    while not (folder / wait).exists():
        time.sleep(0.02)
    return create(self, *arguments)
Remote.create = after_all
def write(draft):
    draft.write(pa.table({"file": [name], "line": [1], "reason": ["arity"], "text": ["x"]}))
print(open_store(sys.argv[1]).make(REJECTS, {}, {}, write).read()["file"][0])
"""


def start(address: str, folder: Path, name: str, wait: str) -> subprocess.Popen[str]:
    """A machine of its own that makes an artifact and waits, between data and manifest, for a file."""
    environment = {**os.environ, "EDDA_CACHE": str(folder / name)}
    command = [sys.executable, "-c", WRITER, address, str(folder), name, wait]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 300
    while not all(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(path.exists() for path in paths)


def test_of_two_writers_at_once_one_wins_and_both_have_its_artifact(address, tmp_path, monkeypatch) -> None:
    writers = [start(address, tmp_path, name, "both") for name in ("one", "two")]
    wait_for(tmp_path / "one.uploaded", tmp_path / "two.uploaded")
    assert len(names(address)) == 2
    (tmp_path / "both").touch()
    said = [writer.communicate()[0].strip() for writer in writers]
    assert said[0] == said[1]
    assert len(names(address)) == 2
    winner = other_machine(address, tmp_path / "reader", monkeypatch).make(REJECTS, {}, {}, never)
    assert winner.read()["file"].to_pylist() == said[:1]


def test_a_writer_killed_before_its_manifest_leaves_no_artifact(address, tmp_path) -> None:
    writer = start(address, tmp_path, "one", "never")
    wait_for(tmp_path / "one.uploaded")
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(names(address)) == 1
    assert [path.suffix for path in (tmp_path / "one").glob("stores/*/rejects/*")] == []
    (tmp_path / "now").touch()
    again = start(address, tmp_path, "one", "now")
    assert again.communicate()[0].strip() == "one"
    assert len(names(address)) == 3


def test_a_reply_that_was_lost_is_no_lost_race(address, monkeypatch) -> None:
    create = Remote.create

    def told_late(self: Remote, name: str, content: bytes) -> bool:
        create(self, name, content)
        return create(self, name, content)

    monkeypatch.setattr(Remote, "create", told_late)
    made = open_store(address).make(REJECTS, {}, {}, write)
    assert made.verify() == []
    assert len(names(address)) == 2


def test_stray_files_disturb_nobody(address, tmp_path, monkeypatch) -> None:
    made = open_store(address).make(REJECTS, {}, {}, write)
    remote = Remote(address)
    for name in (f"rejects/{made.key}/stray/part-00000.parquet", "rejects/notes.txt", "rejects/00/x", "runs/x/notes"):
        remote.write(name, b"stray")
    other = other_machine(address, tmp_path / "other", monkeypatch)
    found = other.make(REJECTS, {}, {}, never)
    assert (found.verify(), len(found.files())) == ([], 1)
    with pytest.raises(FileNotFoundError, match="runs there: none"):
        other.run("x")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:], r"sha256 is \w+, must be \w+"),
        (lambda content: content[:-1], r"sha256 is \w+, must be \w+"),
        (None, r"a file is missing \(.*\)"),
    ],
)
def test_a_damaged_file_is_refused_with_its_remedy(address, tmp_path, monkeypatch, damage, problem) -> None:
    made = open_store(address).make(REJECTS, {}, {}, write)
    remote = Remote(address)
    (name,) = (name for name in remote.listing() if name.endswith(".parquet"))
    content = remote.read(name)
    assert content is not None
    remote.delete([name]) if damage is None else remote.write(name, damage(content))
    other = other_machine(address, tmp_path / "other", monkeypatch)
    found = other.find(REJECTS, made.key)
    assert found is not None
    where = f"{address}/rejects/{made.key}"
    with pytest.raises(OSError, match=rf"{where} is damaged: .*{problem}; delete {where} to make it again"):
        found.read()
    assert not found.is_local


def test_a_fetch_that_ends_early_leaves_nothing_and_the_next_is_whole(address, tmp_path, monkeypatch) -> None:
    made = open_store(address).make(REJECTS, {}, {}, write)
    found = other_machine(address, tmp_path / "other", monkeypatch).find(REJECTS, made.key)
    assert found is not None
    download = Remote.download

    def half(self: Remote, files: Mapping[str, Path]) -> None:
        download(self, files)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Remote, "download", half)
        with pytest.raises(KeyboardInterrupt):
            found.read()
    assert not found.is_local
    assert found.read().equals(ROWS)
    assert not list((tmp_path / "other").glob("stores/*/.staging/rejects/*/*"))


def edited(remote: Remote, artifact: Artifact, **values: object) -> None:
    name = f"rejects/{artifact.key}/manifest.json"
    content = remote.read(name)
    assert content is not None
    remote.write(name, resigned(content, **values))


def test_a_manifest_that_leads_out_of_its_artifact_is_refused(address, tmp_path, monkeypatch) -> None:
    made = open_store(address).make(REJECTS, {}, {}, write)
    entry = made.manifest.files[0].model_dump()
    edited(Remote(address), made, files=[{**entry, "path": "writer/../../../../evil"}])
    other = other_machine(address, tmp_path / "other", monkeypatch)
    with pytest.raises(
        OSError, match=r"manifest\.json is damaged: .* must be a relative path inside the artifact's folder"
    ):
        other.find(REJECTS, made.key)
    edited(Remote(address), made, files=[{**entry, "path": "evil"}])
    found = other_machine(address, tmp_path / "second", monkeypatch).find(REJECTS, made.key)
    assert found is not None
    with pytest.raises(OSError, match="lies outside, must lie in WRITER"):
        found.read()
    edited(Remote(address), made, rows="many")
    other = other_machine(address, tmp_path / "third", monkeypatch)
    with pytest.raises(OSError, match=r"manifest\.json is damaged: "):
        other.find(REJECTS, made.key)
