"""Raw logs on object storage are read as if they lay here, each whole and of one version."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from object_storage import address, endpoint

from data_contracts.remote.client import Remote
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.store.store import Store
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import LogError, find_logs

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint"]


def content(name: str) -> bytes:
    return gzip.compress(f"user_id,item_id\n{name},i\n".encode(), mtime=0)


@pytest.fixture
def logs(address: str) -> str:
    remote = Remote(address)
    for name in ("logs/north_train.csv.gz", "logs/deep/south_test.csv.gz", "logs/notes.txt"):
        remote.write(name, content(name))
    return f"{address}/logs"


def test_logs_have_the_names_and_digests_that_they_would_have_in_a_folder(logs: str, tmp_path: Path) -> None:
    pattern = r"^(.*/)?(?P<domain>\w+)_(?P<split>\w+)\."
    found = find_logs([LogSource(path=f"{logs}/**/*.csv.gz", path_pattern=pattern)], tmp_path)
    expected = [("deep/south_test.csv.gz", "south", "test"), ("north_train.csv.gz", "north", "train")]
    assert [(log.name, log.domain, log.split) for log in found] == expected
    assert found[1].sha256 == hashlib.sha256(content("logs/north_train.csv.gz")).hexdigest()
    assert found[1].path.as_posix().endswith(f"{logs.removeprefix('s3://')}/north_train.csv.gz")
    single = find_logs([LogSource(path=f"{logs}/north_train.csv.gz", domain="north")], tmp_path)
    assert [(log.name, log.path) for log in single] == [("north_train.csv.gz", found[1].path)]


def test_a_copy_is_fetched_once_and_again_when_its_original_changed(logs: str, tmp_path: Path, monkeypatch) -> None:
    source = LogSource(path=f"{logs}/*.gz", domain="north")
    (first,) = find_logs([source], tmp_path)

    def never(self: Remote, files: Mapping[str, Path]) -> None:
        raise AssertionError(f"fetched {files}")

    with monkeypatch.context() as patched:
        patched.setattr(Remote, "download", never)
        assert find_logs([source], tmp_path) == [first]
    Remote(logs).write("north_train.csv.gz", content("changed"))
    (second,) = find_logs([source], tmp_path)
    assert (second.name, second.sha256 == first.sha256) == (first.name, False)
    assert (first.path.read_bytes(), second.path.read_bytes()) == (
        content("logs/north_train.csv.gz"),
        content("changed"),
    )


def test_what_is_cut_short_or_changes_meanwhile_is_no_copy(logs: str, tmp_path: Path, monkeypatch) -> None:
    source = LogSource(path=f"{logs}/*.gz", domain="north")
    download = Remote.download

    def cut(self: Remote, files: Mapping[str, Path]) -> None:
        download(self, files)
        for path in files.values():
            path.write_bytes(path.read_bytes()[:-1])

    def changed(self: Remote, files: Mapping[str, Path]) -> None:
        download(self, files)
        self.write("north_train.csv.gz", content("other"))

    for fault in (cut, changed):
        with monkeypatch.context() as patched:
            patched.setattr(Remote, "download", fault)
            with pytest.raises(ConnectionError, match=r"north_train\.csv\.gz changed while it was fetched"):
                find_logs([source], tmp_path)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_logs_that_are_not_there_are_reported(logs: str, tmp_path: Path) -> None:
    with pytest.raises(LogError, match=rf"path '{logs}/\*.tsv' matches no file"):
        find_logs([LogSource(path=f"{logs}/*.tsv", domain="d")], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"bucket 'nothing' is not there"):
        find_logs([LogSource(path="s3://nothing/logs/*.csv", domain="d")], tmp_path)


def test_ingest_reads_them(logs: str, store: Store, tmp_path: Path) -> None:
    source = LogSource(path=f"{logs}/**/*.csv.gz", domain="north", columns=Columns())
    made = ingest(store, IngestSettings(), find_logs([source], tmp_path), ComputeSettings(threads=1))
    users = made["interactions"].read(["user_id"])["user_id"].to_pylist()
    assert sorted(users) == ["logs/deep/south_test.csv.gz", "logs/north_train.csv.gz"]
