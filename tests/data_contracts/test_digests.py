"""A file is hashed once as long as it stays the same, and what is remembered can be lost or damaged."""

import os
import threading
from pathlib import Path

import pytest

from data_contracts.store import digests
from data_contracts.store.digests import DigestCache, file_digest

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, in order; every file counts as old."""
    names: list[str] = []

    def count(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(digests, "file_digest", count)
    monkeypatch.setattr(digests, "_SETTLED_NANOSECONDS", -1)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "a file").write_bytes(b"hello")
    return tmp_path / "artifact"


def test_a_file_is_read_once_by_one_process_and_not_again_by_the_next(folder, cache, hashed):
    first = DigestCache(folder)
    assert [first.digest("a file"), first.digest("a file"), DigestCache(folder).digest("a file")] == [HELLO] * 3
    assert hashed == ["a file"]


@pytest.mark.parametrize("change", ["content", "content, time kept", "replaced"])
def test_a_changed_file_is_read_again(folder, cache, hashed, change):
    file = folder / "a file"
    before = file.stat()
    DigestCache(folder).digest("a file")
    if change == "replaced":
        (folder / "new").write_bytes(b"jello")
        (folder / "new").rename(file)
    else:
        file.write_bytes(b"jello")
    if change != "content":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert DigestCache(folder).digest("a file") == file_digest(file) != HELLO
    assert hashed == ["a file"] * 2


def test_what_changed_just_now_is_not_remembered(folder, cache, hashed, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_NANOSECONDS", 10**12)
    first = DigestCache(folder)
    assert [first.digest("a file"), first.digest("a file")] == [HELLO] * 2
    assert hashed == ["a file"] * 2
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"\x00\xff\n", None])
def test_a_damaged_memory_is_a_lost_one(folder, cache, hashed, damage):
    DigestCache(folder).digest("a file")
    (memory,) = cache.iterdir()
    line = memory.read_bytes()
    memory.write_bytes(line[: len(line) // 2] if damage is None else damage)
    assert [DigestCache(folder).digest("a file") for _ in range(2)] == [HELLO] * 2
    assert hashed == ["a file"] * 2


def test_a_wrong_line_is_no_digest_of_the_manifest(folder, cache, hashed):
    """Lines say what was read, not what is right: a changed one makes its file differ from the manifest."""
    DigestCache(folder).digest("a file")
    (memory,) = cache.iterdir()
    memory.write_bytes(memory.read_bytes().replace(b"2cf2", b"2cf3"))
    assert DigestCache(folder).digest("a file") != HELLO


def test_a_name_with_a_line_break_is_not_remembered(folder, cache, hashed):
    (folder / "a\nfile").write_bytes(b"hello")
    assert [DigestCache(folder).digest("a\nfile") for _ in range(2)] == [HELLO] * 2
    assert hashed == ["a\nfile"] * 2
    assert not cache.exists()


@pytest.mark.parametrize("obstacle", ["a file in the way", "no home"])
def test_nothing_can_be_remembered_and_all_is_read(folder, cache, hashed, monkeypatch, obstacle):
    if obstacle == "no home":
        for name in ("EDDA_CACHE", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", _raise)
    else:
        cache.parent.write_text("")
    assert [DigestCache(folder).digest("a file") for _ in range(2)] == [HELLO] * 2
    assert hashed == ["a file"] * 2
    DigestCache(folder).forget()


def _raise() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_processes_that_append_at_once_lose_nothing(folder, cache, hashed):
    names = [f"{number} {'x' * 200}" for number in range(40)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    threads = [threading.Thread(target=lambda: [DigestCache(folder).digest(n) for n in names]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hashed.clear()
    again = DigestCache(folder)
    assert [again.digest(name) for name in names] == [file_digest(folder / name) for name in names]
    assert hashed == []


def test_what_is_forgotten_is_read_again(folder, cache, hashed):
    DigestCache(folder).digest("a file")
    DigestCache(folder).forget()
    assert list(cache.iterdir()) == []
    DigestCache(folder).digest("a file")
    assert hashed == ["a file"] * 2
