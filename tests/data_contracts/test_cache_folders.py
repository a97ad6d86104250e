"""Caches lie where the user can write, and otherwise in temporary folders that only the user can write."""

from __future__ import annotations

import os
import resource
import stat
import tempfile
from pathlib import Path

import pytest

from data_contracts import cache_folders
from data_contracts.cache_folders import can_write, private_temporary_folder, provide_caches, writable_cache_folder
from data_contracts.resources import raise_open_files


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a temporary folder and nothing else; returns the temporary folder."""
    for name in ("EDDA_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private_temporary_folder.cache_clear()
    yield tmp_path
    private_temporary_folder.cache_clear()


def test_without_a_home_caches_are_in_a_private_temporary_folder(homeless):
    assert writable_cache_folder() == homeless / f"edda-{os.getuid()}"
    assert stat.S_IMODE(writable_cache_folder().stat().st_mode) == 0o700


def test_a_folder_that_others_prepared_is_not_used(homeless):
    (homeless / f"edda-{os.getuid()}").mkdir()
    (homeless / f"edda-{os.getuid()}").chmod(0o777)
    folder = private_temporary_folder()
    assert folder != homeless / f"edda-{os.getuid()}"
    assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (homeless, 0o700)


def test_a_home_that_can_be_written_has_the_caches(homeless, monkeypatch):
    monkeypatch.setenv("HOME", str(homeless / "home"))
    assert writable_cache_folder() == homeless / "home/.cache/edda-recsys"
    provide_caches()
    assert not {"NUMBA_CACHE_DIR", "MPLCONFIGDIR"} & os.environ.keys()


def test_numba_and_matplotlib_get_folders_where_theirs_cannot_be_written(homeless, monkeypatch):
    monkeypatch.setattr(cache_folders, "can_write", lambda _: False)
    provide_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == str(homeless / f"edda-{os.getuid()}" / "numba")
    assert os.environ["MPLCONFIGDIR"] == str(homeless / f"edda-{os.getuid()}" / "matplotlib")


def test_what_the_user_has_chosen_stays(homeless, monkeypatch):
    monkeypatch.setattr(cache_folders, "can_write", lambda _: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    provide_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"


def test_a_folder_that_does_not_exist_can_be_written_if_it_can_be_made(tmp_path):
    assert can_write(tmp_path / "a/b") is True
    assert can_write(Path("/proc/none/a")) is False


def test_the_soft_limit_on_open_files_is_raised():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        raise_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert (soft, hard) == (65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
