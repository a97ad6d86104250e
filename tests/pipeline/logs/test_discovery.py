"""Which log files are found, what they are called, and which mistakes are named."""

import glob
import hashlib
import os
from pathlib import Path

import pytest

from data_contracts.settings.logs import Columns, LogSource
from data_contracts.store import digests
from data_contracts.store.digests import file_digest
from pipeline.logs.discovery import Digests, LogError, find_logs


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"user_id,item_id\n{name},i\n")


def names(*paths: str, folder: Path) -> list[str]:
    return [log.name for log in find_logs([LogSource(path=path, domain="d") for path in paths], folder)]


def test_glob_is_relative_to_the_folder_and_sorted(tmp_path: Path) -> None:
    write(tmp_path, "logs/b.csv", "logs/a.csv", "logs/skipped.txt")
    assert names("logs/*.csv", folder=tmp_path) == ["a.csv", "b.csv"]


def test_names_start_after_the_fixed_folders(tmp_path: Path) -> None:
    write(tmp_path, "logs/north/2023/a.csv")
    assert names("logs/*/2023/*.csv", folder=tmp_path) == ["north/2023/a.csv"]


def test_double_star_finds_files_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path, "logs/a.csv", "logs/x/y/b.csv")
    assert names("logs/**/*.csv", folder=tmp_path) == ["a.csv", "x/y/b.csv"]


def test_equal_names_grow_by_folders_until_they_differ(tmp_path: Path) -> None:
    write(tmp_path, "music/day.csv", "books/day.csv", "books/other.csv")
    found = names("music/*.csv", "books/*.csv", folder=tmp_path)
    assert found == ["books/day.csv", "music/day.csv", "other.csv"]


def test_existing_path_with_brackets_is_taken_literally(tmp_path: Path) -> None:
    write(tmp_path, "log[1].csv", "log1.csv")
    assert names("log[1].csv", folder=tmp_path) == ["log[1].csv"]


def test_environment_variable_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data", "a.csv")
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    assert names("${MY_DATA}/*.csv", folder=Path("/nowhere")) == ["a.csv"]


def test_unset_variable_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_DATA", raising=False)
    with pytest.raises(LogError, match=r"log source 1: path .*MY_DATA.*not set; set it"):
        names("${MY_DATA}/*.csv", folder=tmp_path)


def test_no_match_is_an_error_that_names_the_source(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    with pytest.raises(LogError, match=r"log source 2: path 'b/\*\.csv' matches no file"):
        names("a.csv", "b/*.csv", folder=tmp_path)


def test_what_is_there_and_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("b.csv")
    with pytest.raises(LogError, match=r"path 'a\.csv' is a device or a pipe, must be a file"):
        names("a.csv", folder=tmp_path)
    with pytest.raises(LogError, match=r"path 'b\.csv' is a link that leads to no file"):
        names("b.csv", folder=tmp_path)


def test_folder_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, "logs/a.csv")
    with pytest.raises(LogError, match=r"is a folder, must be a file or a glob"):
        names("logs", folder=tmp_path)


def test_file_of_two_sources_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    with pytest.raises(LogError, match=r"a\.csv is matched by 2 paths"):
        names("a.csv", "*.csv", folder=tmp_path)


def test_files_and_folders_whose_names_begin_with_a_dot_or_underscore_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a/x.csv", "a/._x.csv", "a/.x.csv", "a/_x.csv", "_tmp/x.csv", ".old/x.csv", "a/_b/x.csv")
    assert names("**/*.csv", folder=tmp_path) == ["a/x.csv"]
    assert names("*/*.csv", folder=tmp_path) == ["a/x.csv"]


@pytest.mark.parametrize(("path", "found"), [("_tmp/*.csv", "x.csv"), ("a/_*.csv", "_x.csv"), ("a/_x.csv", "_x.csv")])
def test_hidden_files_are_read_where_the_path_names_them(tmp_path: Path, path: str, found: str) -> None:
    write(tmp_path, "a/_x.csv", "a/._x.csv", "_tmp/x.csv")
    assert names(path, folder=tmp_path) == [found]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "logs/a/x.csv", "elsewhere/y.csv")
    (tmp_path / "logs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs" / "a" / "loop").symlink_to(tmp_path / "logs")
    assert names("logs/**/*.csv", folder=tmp_path) == ["a/x.csv", "linked/y.csv"]


@pytest.mark.parametrize("folder", ["a*b", "a?b", "a[1]b"])
def test_special_characters_of_escaped_folders_are_no_pattern(tmp_path: Path, folder: str) -> None:
    write(tmp_path, f"{folder}/logs/x.csv", "axb/logs/y.csv", "a1b/logs/z.csv")
    escaped = glob.escape(str(tmp_path / folder))
    assert names(f"{escaped}/logs/*.csv", folder=Path()) == ["x.csv"]
    assert names(f"{escaped}/logs/x.csv", folder=Path()) == ["x.csv"]


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "logs/x.csv")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/logs/*.csv", folder=Path("/nowhere")) == ["x.csv"]


def test_folders_above_the_logs_do_not_name_domains(tmp_path: Path) -> None:
    write(tmp_path, "films-2024/books.csv", "films-2024/films.csv")
    pattern = r"(?P<domain>books|films)"
    found = find_logs([LogSource(path=f"{tmp_path}/films-2024/*.csv", path_pattern=pattern)], Path())
    assert [log.domain for log in found] == ["books", "films"]


def test_content_is_hashed_and_measured(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    (log,) = find_logs([LogSource(path="a.csv", domain="d")], tmp_path)
    content = (tmp_path / "a.csv").read_bytes()
    assert (log.sha256, log.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_pattern_gives_domain_and_split(tmp_path: Path) -> None:
    write(tmp_path, "d0_val.csv")
    source = LogSource(path="*.csv", path_pattern=r"(?P<domain>[^/]+)_(?P<split>\w+)\.csv$")
    (log,) = find_logs([source], tmp_path)
    assert (log.domain, log.split) == ("d0", "valid")


def test_pattern_that_does_not_match_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "readme.csv")
    source = LogSource(path="*.csv", path_pattern=r"(?P<domain>[^/]+)_train\.csv$")
    with pytest.raises(LogError, match=r"path_pattern .* does not match .*readme\.csv"):
        find_logs([source], tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is not a regular expression"), ("x", "has no group"), (r"/(?P<split>\w+)\.csv", "finds the split 'a'")],
)
def test_useless_patterns_are_refused(tmp_path: Path, pattern: str, message: str) -> None:
    write(tmp_path, "a.csv")
    with pytest.raises(LogError, match=message):
        find_logs([LogSource(path="a.csv", domain="d", path_pattern=pattern)], tmp_path)


def test_file_without_domain_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    with pytest.raises(LogError, match=r"a\.csv has no domain; set `domain`"):
        find_logs([LogSource(path="a.csv")], tmp_path)


def test_domain_column_needs_no_domain_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    (log,) = find_logs([LogSource(path="a.csv", columns=Columns(domain="market"))], tmp_path)
    assert log.domain is None


def test_a_log_is_read_once_for_its_digest_by_this_process_and_the_next(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDDA_CACHE", str(tmp_path / "cache"))
    read: list[str] = []
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    write(tmp_path, "x/a.csv", "y/a.csv")
    hello = hashlib.sha256(b"user_id,item_id\nx/a.csv,i\n").hexdigest()
    this = Digests()
    assert [this(tmp_path / "x/a.csv"), this(tmp_path / "x/a.csv")] == [hello] * 2
    assert read == ["a.csv"]  # once, although it is too young to be remembered
    monkeypatch.setattr(digests, "_SETTLED_NANOSECONDS", -1)
    assert [Digests()(tmp_path / "x/a.csv") for _ in range(3)] == [hello] * 3
    assert Digests()(tmp_path / "y/a.csv") != hello
    assert len(read) == 3
    (tmp_path / "x/a.csv").write_text("user_id,item_id\nx/b.csv,i\n")
    assert Digests()(tmp_path / "x/a.csv") == hashlib.sha256(b"user_id,item_id\nx/b.csv,i\n").hexdigest()
