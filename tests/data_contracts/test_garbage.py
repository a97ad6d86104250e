"""Garbage goes, whole and once; what a run, a living process or a stage in progress needs stays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fake_stages import Stages, edda, here, stages
from filelock import FileLock

from data_contracts.contracts import PAIRS, REJECTS
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import _machine, write_atomically
from data_contracts.store.garbage import collect_garbage, find_garbage
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store

__all__ = ["here", "stages"]

ROWS = pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]})


def write(draft: Draft) -> None:
    draft.write(ROWS)


def made(root: Path, number: int = 0, **parents: Artifact) -> Artifact:
    """An artifact that no living store claims; its manifest is read, for it may be gone later."""
    artifact = Store(root).make(REJECTS, {"number": number}, parents, write)
    assert artifact.manifest.rows == 1
    return artifact


def paths(root: Path) -> list[str]:
    return [garbage.path.as_posix() for garbage in collect_garbage(root)]


def test_what_no_run_refers_to_goes_and_parents_of_what_one_does_stay(tmp_path: Path) -> None:
    parent = made(tmp_path, 0)
    child = made(tmp_path, 1, interactions=parent)
    unused = made(tmp_path, 2, interactions=parent)
    Store(tmp_path).link_run(RunRecord.build("run", {"rejects": child}))
    size = sum(file.stat().st_size for file in unused.path.iterdir())
    assert [(found.path, found.size) for found in collect_garbage(tmp_path)] == [(Path("rejects", unused.key), size)]
    assert (parent.verify(), child.verify(), unused.path.exists()) == ([], [], False)


def _left_by(process: int, folder: Path, name: str, machine: str = "") -> Path:
    """The temporary file that a killed process has left of a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.{process}.140001{machine and '.'}{machine}"
    path.write_text("half")
    return path


def _dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _aged(path: Path) -> Path:
    os.utime(path, (time.time() - 4_000, time.time() - 4_000))
    return path


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    run, dead = tmp_path / "runs" / "r", _dead_process()
    left = [_left_by(dead, run, "run.json", _machine()), _left_by(dead, run, "report.html", _machine()),
            _left_by(dead, tmp_path / "tune", "r.json", _machine()), _aged(_left_by(dead, run, "report.html")),
            _aged(_left_by(os.getpid(), run, "run.json", "0" * 8))]  # fmt: skip
    stays = [_left_by(os.getpid(), run, "report.html", _machine()), _left_by(dead, run, "run.json", "1" * 8),
             _left_by(dead, run, "a.json"), run / ".other", run / ".x.y.z"]  # fmt: skip
    for path in stays[-2:]:
        path.write_text("")
    assert sorted(paths(tmp_path)) == sorted(path.relative_to(tmp_path).as_posix() for path in left)
    assert [path.exists() for path in (*left, *stays)] == [False] * len(left) + [True] * len(stays)


def test_the_next_record_removes_what_killed_processes_have_left_of_earlier_ones(tmp_path: Path) -> None:
    run, dead = tmp_path / "runs" / "r", _dead_process()
    left, other = (_left_by(dead, run, name, _machine()) for name in ("run.json", "report.html"))
    Store(tmp_path).link_run(RunRecord.build("r", {}))
    assert (left.exists(), other.exists()) == (False, True)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert [path.name for path in tmp_path.iterdir()] in (["a", "b"], ["b", "a"])


def test_looking_for_garbage_finds_the_same_and_removes_nothing(tmp_path: Path) -> None:
    unused = made(tmp_path)
    found = find_garbage(tmp_path)
    assert unused.verify() == []
    assert collect_garbage(tmp_path) == found != []
    assert find_garbage(tmp_path) == []


def test_a_record_takes_the_links_of_the_one_before_it_away(tmp_path: Path) -> None:
    old, new = made(tmp_path, 1), made(tmp_path, 2)
    Store(tmp_path).link_run(RunRecord.build("run", {"rejects": old}))
    Store(tmp_path).link_run(RunRecord.build("run", {"interactions": new}))
    assert paths(tmp_path) == [f"rejects/{old.key}"]
    assert not (tmp_path / "runs" / "run" / "rejects").is_symlink()


def test_a_run_whose_folder_was_deleted_refers_to_nothing(tmp_path: Path) -> None:
    only, both = made(tmp_path, 1), made(tmp_path, 2)
    Store(tmp_path).link_run(RunRecord.build("old", {"a": only, "b": both}))
    Store(tmp_path).link_run(RunRecord.build("new", {"b": both}))
    for path in (tmp_path / "runs/old").iterdir():
        path.unlink()
    assert paths(tmp_path) == [f"rejects/{only.key}"]


def test_files_that_are_no_artifacts_are_left_alone(tmp_path: Path) -> None:
    made(tmp_path)
    kept = [tmp_path / "rejects/notes.txt", tmp_path / "tune/r.db", tmp_path / "mine" / ("0" * 20) / "x"]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert len(paths(tmp_path)) == 1
    assert all(path.exists() for path in kept)


def test_a_store_claims_what_it_found_or_made_as_long_as_it_lives(tmp_path: Path) -> None:
    found, parent = made(tmp_path, 0), made(tmp_path, 1)
    store = Store(tmp_path)
    store.find(REJECTS, found.key)
    store.make(REJECTS, {"number": 2}, {"interactions": parent}, write)
    assert paths(tmp_path) == []
    del store
    assert len(paths(tmp_path)) == 3
    assert not list(tmp_path.glob(".staging/claims/*"))


def test_a_key_is_claimed_before_its_artifact_exists(tmp_path: Path) -> None:
    key = made(tmp_path).key
    collect_garbage(tmp_path)
    store = Store(tmp_path)
    assert store.find(REJECTS, key) is None
    assert made(tmp_path).key == key
    assert paths(tmp_path) == []


def test_abandoned_staging_goes_and_that_under_a_lock_stays(tmp_path: Path) -> None:
    folders = [tmp_path / ".staging" / REJECTS.name / (digit * 20) for digit in "12"]
    for folder in folders:
        (folder / "scratch").mkdir(parents=True)
        (folder / "scratch" / "half").write_text("1234567")
    os.link(folders[0] / "scratch" / "half", folders[0] / "adopted")
    with FileLock(folders[1].with_suffix(".lock")):
        assert [(found.path.name, found.size) for found in collect_garbage(tmp_path)] == [("1" * 20, 7)]
        assert (folders[1] / "scratch" / "half").exists()
    assert paths(tmp_path) == [f".staging/rejects/{'2' * 20}"]


def test_who_may_only_read_the_store_finds_and_cannot_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = made(tmp_path)

    def refuse(staging: Path) -> FileLock:
        raise PermissionError(errno.EACCES, "permission denied", str(staging))

    monkeypatch.setattr("data_contracts.store.claims.claims_lock", refuse)
    assert Store(tmp_path).find(REJECTS, there.key) == there
    with pytest.raises(PermissionError):
        Store(tmp_path).make(REJECTS, {"number": 1}, {}, write)


SLOW = """
import sys, time
from pathlib import Path
import pyarrow as pa
from data_contracts.contracts import REJECTS
from data_contracts.store.store import Store
root, key = Path(sys.argv[1]), sys.argv[2]
def write(draft):
    (draft.scratch / "half").write_text("x")
    (root / "started").touch()
    time.sleep(300)
store = Store(root)
store.make(REJECTS, {}, {"interactions": store.find(REJECTS, key)}, write)
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a stage, with a parent that no run refers to."""
    parent = made(tmp_path)
    with subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path), parent.key]) as process:
        try:
            until = time.monotonic() + 60
            while not (tmp_path / "started").exists() and time.monotonic() < until:
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def test_a_stage_in_progress_and_its_parents_stay_until_its_process_is_killed(
    tmp_path: Path, slow: subprocess.Popen[bytes]
) -> None:
    assert paths(tmp_path) == []
    assert len(list(tmp_path.glob(".staging/rejects/*/scratch/half"))) == 1
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    assert [path.rsplit("/", 1)[0] for path in paths(tmp_path)] == [".staging/rejects", "rejects"]
    assert not list(tmp_path.glob(".staging/claims/*"))


BUSY = """
import sys
import pyarrow as pa
from data_contracts.contracts import REJECTS
from data_contracts.store.store import Store
rows = pa.table({"file": ["a.csv"], "line": [1], "reason": ["arity"], "text": ["x"]})
for number in range(int(sys.argv[2])):
    store = Store(sys.argv[1])
    parent = store.make(REJECTS, {"number": number % 3}, {}, lambda draft: draft.write(rows))
    child = store.make(REJECTS, {"child": number % 5}, {"interactions": parent}, lambda draft: draft.write(rows))
    assert parent.verify() == child.verify() == [], number
    assert store.find(REJECTS, parent.key) and store.find(REJECTS, child.key), number
"""


def test_a_process_that_makes_and_reads_beside_collections_loses_nothing(tmp_path: Path) -> None:
    collected = 0
    with subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path), "60"]) as busy:
        while busy.poll() is None:
            collected += len(collect_garbage(tmp_path))
            time.sleep(0.005)
    assert busy.returncode == 0
    assert collected > 0


def test_a_collection_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".staging/garbage/rejects" / ("1" * 20)
    left.mkdir(parents=True)
    assert paths(tmp_path) == []
    assert not left.exists()


def test_two_collections_at_once_are_refused(tmp_path: Path) -> None:
    collect_garbage(tmp_path)
    with (
        FileLock(tmp_path / ".staging/garbage.lock"),
        pytest.raises(BlockingIOError, match="another process collects garbage"),
    ):
        collect_garbage(tmp_path)


@pytest.mark.parametrize("damaged", ["runs/run/run.json", "runs/run/rejects/manifest.json"])
def test_where_nobody_knows_what_must_stay_nothing_goes(tmp_path: Path, damaged: str) -> None:
    unused, used = made(tmp_path, 1), made(tmp_path, 2)
    Store(tmp_path).link_run(RunRecord.build("run", {"rejects": used}))
    (tmp_path / damaged).write_text("{")
    with pytest.raises(ValueError, match=r"is damaged: .*; delete "):
        collect_garbage(tmp_path)
    assert unused.verify() == []


def test_no_store_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder, so no store; name it by --store or \$EDDA_STORE"):
        collect_garbage(tmp_path / "nothing")


def test_gc_removes_what_a_run_used_before_and_the_run_stays_finished(here, stages: Stages, capsys) -> None:
    edda("run", "r.toml", "--no-prefect")
    edda("run", "r.toml", "--no-prefect", "--set", "pairs.k=2")
    _, earlier = Store("edda-store").generations("r")
    capsys.readouterr()
    assert edda("gc") == 0
    assert "removed 0 folders" in capsys.readouterr().out, "both generations are kept"
    assert edda("delete", f"r@{earlier.generation}") == 0
    before = {path.name for path in Path("edda-store/pairs").iterdir()}
    capsys.readouterr()
    assert edda("gc", "--dry-run") == 0
    dry = capsys.readouterr().out
    assert {path.name for path in Path("edda-store/pairs").iterdir()} == before
    assert edda("gc") == 0
    out = capsys.readouterr().out
    old = before - {path.name for path in Path("edda-store/pairs").iterdir()}
    assert [f"{PAIRS.name}/{key}" in out and f"{PAIRS.name}/{key}" in dry for key in old] == [True]
    assert ("\nwould remove 7 folders, " in dry, "\nremoved 7 folders, " in out) == (True, True)
    assert edda("run", "r.toml", "--set", "pairs.k=2") == 0
    assert capsys.readouterr().err == "nothing to do, everything is up to date\n"


def test_gc_counts_one_folder_as_one(here, capsys) -> None:
    made(Path("edda-store"))
    assert edda("gc", "--dry-run") == 0
    assert "\nwould remove 1 folder, " in capsys.readouterr().out


def test_garbage_of_a_read_only_store_is_shown_without_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unused, begun = made(tmp_path, 1), tmp_path / ".staging" / "rejects" / ("0" * 20)
    begun.mkdir(parents=True)
    claimed = made(tmp_path, 2)
    (tmp_path / ".staging" / "claims").mkdir(exist_ok=True)
    (tmp_path / ".staging" / "claims" / "x.keys").write_text(f"{claimed.key}\n")
    monkeypatch.setattr("os.access", lambda *_: False)
    before = sorted(tmp_path.rglob("*"))
    assert [garbage.path for garbage in find_garbage(tmp_path)] == [Path("rejects", unused.key)]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(PermissionError, match="is read-only, must be writable to lock"):
        collect_garbage(tmp_path)
