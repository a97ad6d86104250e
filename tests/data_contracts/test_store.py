"""Artifacts come to be whole or not at all, once, under their key."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from data_contracts.contracts import INTERACTIONS, NODES, REJECTS
from data_contracts.schema import ContractError
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import write_atomically
from data_contracts.store.garbage import find_garbage
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store

ROWS = pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]})


def write(draft: Draft) -> None:
    draft.write(ROWS)


def never(draft: Draft) -> None:
    raise AssertionError("was asked to make an artifact that exists")


def test_made_artifact_is_found_by_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make(REJECTS, {"a": 1}, {}, write)
    assert store.find(REJECTS, made.key) == made
    assert made.path == tmp_path / "rejects" / made.key
    assert made.read().equals(ROWS)


def test_existing_artifact_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make(REJECTS, {}, {}, write)
    assert store.make(REJECTS, {}, {}, never).path == made.path


def test_other_settings_make_another_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.make(REJECTS, {"a": 1}, {}, write).key != store.make(REJECTS, {"a": 2}, {}, write).key


def test_unknown_key_is_not_found(tmp_path: Path) -> None:
    assert Store(tmp_path).find(REJECTS, "0" * 20) is None


def test_publication_leaves_no_scratch(tmp_path: Path) -> None:
    def with_scratch(draft: Draft) -> None:
        (draft.scratch / "temporary").write_text("x")
        write(draft)

    Store(tmp_path).make(REJECTS, {}, {}, with_scratch)
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock")
    assert files == ["manifest.json", "part-00000.parquet"]


def test_failing_stage_leaves_no_artifact_and_keeps_its_scratch(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(draft: Draft) -> None:
        write(draft)
        (draft.scratch / "half").write_text("x")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        store.make(REJECTS, {}, {}, fail)
    assert not list(tmp_path.glob("rejects/*"))

    def resume(draft: Draft) -> None:
        assert (draft.scratch / "half").read_text() == "x"
        write(draft)

    assert store.make(REJECTS, {}, {}, resume).read().num_rows == 1


def test_table_that_breaks_the_contract_is_not_written(tmp_path: Path) -> None:
    bad = ROWS.set_column(1, "line", pa.array([0]))
    with pytest.raises(ContractError, match=r"rejects/part-00000\.parquet: line\[0\] is 0, must be ≥ 1"):
        Store(tmp_path).make(REJECTS, {}, {}, lambda draft: draft.write(bad))
    assert not list(tmp_path.rglob("*.parquet"))


def test_partition_columns_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"nodes: partition is \(\), must be \('domain',\)"):
        Store(tmp_path).make(NODES, {}, {}, lambda draft: draft.write(ROWS))


def test_parts_of_a_partition_are_numbered(tmp_path: Path) -> None:
    def two(draft: Draft) -> None:
        write(draft)
        write(draft)

    made = Store(tmp_path).make(REJECTS, {}, {}, two)
    assert [path.name for path in made.files()] == ["part-00000.parquet", "part-00001.parquet"]
    assert made.manifest.rows == 2


def test_changed_size_of_a_finished_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make(REJECTS, {}, {}, write)
    with made.files()[0].open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(OSError, match=r"size is \d+, must be \d+; delete .* to make it again"):
        store.find(REJECTS, made.key)


def test_parents_enter_the_manifest_and_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = (store.make(REJECTS, {"n": n}, {}, write) for n in (1, 2))
    children = [store.make(REJECTS, {}, {"interactions": parent}, write) for parent in (first, second)]
    assert [child.manifest.parents for child in children] == [{"interactions": first.key}, {"interactions": second.key}]
    assert children[0].key != children[1].key


SLOW = """
import sys, time
from pathlib import Path
import pyarrow as pa
from data_contracts.contracts import REJECTS
from data_contracts.store.store import Store
root = Path(sys.argv[1])
def write(draft):
    with (root / "calls").open("a") as stream:
        stream.write("called\\n")
    draft.write(pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]}))
    time.sleep(float(sys.argv[2]))
print(Store(root).make(REJECTS, {}, {}, write).key)
"""


def start(root: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert path.exists()


def test_kill_in_the_middle_leaves_no_artifact_and_the_next_run_finishes(tmp_path: Path) -> None:
    process = start(tmp_path, 120)
    wait_for(tmp_path / "calls")
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.close()
    assert not list(tmp_path.glob("rejects/*"))
    made: Artifact = Store(tmp_path).make(REJECTS, {}, {}, write)
    assert (made.read().num_rows, made.verify()) == (1, [])


def test_two_processes_that_want_one_key_do_the_work_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 1.0) for _ in range(2)]
    keys = [process.communicate()[0].strip() for process in processes]
    assert keys[0] == keys[1] != ""
    assert (tmp_path / "calls").read_text() == "called\n"


def test_run_links_to_what_it_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make(REJECTS, {}, {}, write)
    folder = store.link_run(RunRecord.build("first", {"rejects": made}, config={"seed": 3}))
    assert (folder / "rejects").resolve() == made.path.resolve()
    record = store.run("first")
    assert (record.name, record.config, store.recorded(record)) == ("first", {"seed": 3}, {"rejects": made})


def test_relinked_run_points_at_the_new_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for n in (1, 2):
        made = store.make(REJECTS, {"n": n}, {}, write)
        folder = store.link_run(RunRecord.build("run", {"rejects": made}))
    assert (folder / "rejects").resolve() == made.path.resolve()


def test_a_link_is_there_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, replace, found = Store(tmp_path), Path.replace, list[Path]()
    first, second = (store.make(REJECTS, {"n": n}, {}, write) for n in (1, 2))
    store.link("run", "index", first)

    def observe(path: Path, target: Path) -> Path:
        found.append(target.resolve(strict=True))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", observe)
    store.link("run", "index", second)
    assert found == [first.path.resolve()]
    assert (tmp_path / "runs/run/index").resolve() == second.path.resolve()


def test_unknown_run_names_the_known_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.link_run(RunRecord.build("one", {}))
    with pytest.raises(FileNotFoundError, match=r"run 'two' is not in .*; runs there: one"):
        store.run("two")


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        write_atomically({tmp_path / "file": content})
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_moved_store_still_works(tmp_path: Path) -> None:
    store = Store(tmp_path / "old")
    made = store.make(REJECTS, {}, {}, write)
    store.link_run(RunRecord.build("run", {"rejects": made}))
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Store(tmp_path / "new")
    artifacts = moved.recorded(moved.run("run"))
    assert artifacts["rejects"].read().num_rows == 1
    assert (tmp_path / "new" / "runs" / "run" / "rejects" / "manifest.json").exists()


def test_empty_artifact_is_an_artifact(tmp_path: Path) -> None:
    made = Store(tmp_path).make(INTERACTIONS, {}, {}, lambda draft: None)
    assert (made.read().num_rows, made.partitions(), made.verify()) == (0, [], [])


def test_a_store_that_was_copied_with_links_followed_is_used_as_before(store, tmp_path):
    made = store.make(REJECTS, {"number": 1}, {}, write)
    other = store.make(REJECTS, {"number": 2}, {}, write)
    store.link_run(RunRecord.build("run", {"rejects": made}))
    store.link("run", "other", other)
    shutil.copytree(store.root, tmp_path / "copy", symlinks=False)
    copy = Store(tmp_path / "copy")
    assert (copy.root / "runs/run/rejects").is_symlink() is False
    assert copy.linked("run", "other") == Artifact(REJECTS, copy.root / "rejects" / other.key)
    assert find_garbage(copy.root) == []
    copy.link_run(RunRecord.build("run", {"rejects": made}))
    copy.link("run", "other", made)
    assert (copy.root / "runs/run/other").readlink().name == made.key
    copy.unlink("run", "rejects")
    assert not (copy.root / "runs/run/rejects").exists()
    assert copy.find(REJECTS, made.key).verify() == []
