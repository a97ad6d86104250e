"""Pieces of an earlier attempt are used if they are what was written, and made again if not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from damage import DAMAGES, damage_file

from pipeline.compute.array_folder import DiskArrays
from pipeline.compute.scratch import ensure_folder, fill_folder, is_damaged, read_report, write_reports


def fill(folder: Path) -> None:
    (folder / "a").write_bytes(b"piece 12")
    (folder / "inner").mkdir()
    (folder / "inner" / "b").write_bytes(b"piece 34")


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} is there")


def test_a_whole_folder_is_not_filled_again(tmp_path, caplog):
    assert ensure_folder(tmp_path / "x", fill) == ensure_folder(tmp_path / "x", never) == tmp_path / "x"
    assert (tmp_path / "x" / "inner" / "b").read_bytes() == b"piece 34"
    assert caplog.messages == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["a", "inner/b", ".digests.json"])
def test_a_damaged_folder_is_told_and_filled_again_once(tmp_path, caplog, name, damage):
    folder = ensure_folder(tmp_path / "x", fill)
    damage_file(folder / name, damage)
    assert is_damaged(folder)
    ensure_folder(folder, fill)
    assert ((folder / "a").read_bytes(), (folder / "inner" / "b").read_bytes()) == (b"piece 12", b"piece 34")
    assert caplog.messages == [f"{folder}, left by an earlier attempt, is damaged; making it again"]
    ensure_folder(folder, never)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a").unlink(),
        lambda folder: (folder / ".digests.json").unlink(),
        lambda folder: (folder / ".digests.json").write_bytes(b"[" * 100_000),
        lambda folder: (folder / ".digests.json").write_bytes(b"[]"),
    ],
)
def test_a_folder_that_lacks_a_file_is_filled_again(tmp_path, change: Callable[[Path], object]):
    folder = ensure_folder(tmp_path / "x", fill)
    change(folder)
    ensure_folder(folder, fill)
    assert not is_damaged(folder)
    assert (folder / "a").exists()


def test_what_is_put_into_a_folder_later_is_another_piece(tmp_path):
    folder = ensure_folder(tmp_path / "x", fill)
    inner = ensure_folder(folder / "later", fill)
    damage_file(inner / "a", DAMAGES[0])
    assert (is_damaged(folder), is_damaged(inner)) == (False, True)


def test_a_folder_that_is_only_filled_is_never_compared(tmp_path):
    folder = fill_folder(tmp_path / "x", fill)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "inner"]
    damage_file(folder / "a", DAMAGES[0])
    assert fill_folder(folder, never) == folder


def test_damaged_arrays_do_not_exist_and_are_written_again(tmp_path):
    arrays = DiskArrays(tmp_path / "arrays")
    assert (arrays.exists(), arrays.is_damaged()) == (False, False)
    arrays.write_arrays(x=np.arange(5))
    assert (arrays.exists(), arrays.is_damaged()) == (True, False)
    damage_file(tmp_path / "arrays" / "x.npy", DAMAGES[0])
    assert (arrays.exists(), arrays.is_damaged()) == (False, True)
    arrays.write_arrays(x=np.arange(5))
    assert arrays.arrays()["x"].tolist() == [0, 1, 2, 3, 4]
    arrays.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "rows").write_bytes(b"rows 123")
    write_reports({tmp_path / "report.json": ({"rows": 123}, [tmp_path / "rows"])})
    return tmp_path / "report.json"


def test_a_report_says_what_was_written_of_its_files(report, tmp_path, caplog):
    assert read_report(report) == {"rows": 123}
    assert read_report(tmp_path / "other.json") is None
    assert caplog.messages == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["rows", "report.json"])
def test_a_damaged_report_or_file_is_told_once_and_counts_as_none(report, tmp_path, caplog, name, damage):
    damage_file(tmp_path / name, damage)
    assert (read_report(report), read_report(report)) == (None, None)
    assert caplog.messages == [f"{report}, left by an earlier attempt, is damaged; making it again"]


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"{}", b'{"rows": 123}', b"[" * 100_000])
def test_what_is_no_report_counts_as_none(report, content):
    report.write_bytes(content)
    assert read_report(report) is None


def test_a_changed_value_is_damage_and_so_is_a_missing_file(report, tmp_path):
    content = report.read_bytes()
    report.write_text(json.dumps({**json.loads(content), "value": {"rows": 124}}))
    assert read_report(report) is None
    report.write_bytes(content)
    (tmp_path / "rows").unlink()
    assert read_report(report) is None
