"""A run's file that is no TOML is refused in one line that names it; a byte order mark is no part of it."""

import os

import pytest

from flows.config.run_config import ConfigError, load_config
from flows.config.toml_file import TomlError, read_toml


def test_a_byte_order_mark_is_read_past(tmp_path):
    (tmp_path / "run.toml").write_bytes(b'\xef\xbb\xbfname = "a"\n[world]\n')
    assert load_config(tmp_path / "run.toml").name == "a"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfea\0", "is UTF-16, must be UTF-8; save it again"),
        (b'a = 1\nname = "\xe9"', "not UTF-8 at line 2, byte 0xe9; save it again"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = " + b"[" * 60 + b"]" * 60, "is nested too deeply, must have at most 50 tables"),
        (b"[" + b".".join([b"a"] * 20_000) + b"]\n", "is nested too deeply"),
        (b"a = " + b"9" * 5_000, "not TOML: Exceeds the limit"),
        (b"a\0 = 1", "not TOML: "),
        (b"a = 1\na = 2", "not TOML: Cannot overwrite a value"),
        (b"#" * (1 << 24) + b"#", "has 16,777,217 bytes, must be a TOML file of at most 16,777,216"),
    ],
)
def test_what_is_no_toml_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(TomlError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"run\.toml: "):
        load_config(path)


def test_a_log_in_place_of_a_runs_file_is_answered_by_the_command_that_writes_one(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,i\n")
    with pytest.raises(TomlError, match=r"log\.csv: not TOML: .*; `edda init log\.csv` writes a run's TOML file"):
        read_toml(tmp_path / "log.csv")


def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    problems = {
        "pipe": "is a device or a pipe",
        "zero": "is a device or a pipe",
        "loop": "cannot be read: Too many levels of symbolic links",
        "gone": "no such file",
    }
    for name, problem in problems.items():
        with pytest.raises(TomlError, match=f"{name}.toml: {problem}"):
            read_toml(tmp_path / f"{name}.toml")


@pytest.mark.parametrize("override", ["a=" + "[" * 5_000, "a=" + "9" * 5_000, ".".join("a" * 500) + "=1"])
def test_an_absurd_override_is_refused_in_one_line(tmp_path, override):
    (tmp_path / "run.toml").write_text('name = "a"\n[world]\n')
    with pytest.raises(ConfigError, match="is nested too deeply") as error:
        load_config(tmp_path / "run.toml", [override])
    assert len(str(error.value)) < 300
