"""No secret of the environment is in anything that a run writes or says."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_run import SMALL_RUN

SECRETS = {
    name: f"secret-{number}-7f3a9c"
    for number, name in enumerate(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
         "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_API_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING",
         "PREFECT_SERVER_DATABASE_PASSWORD", "EDDA_TOKEN", "DATABASE_URL", "PASSWORD")
    )
}  # fmt: skip
SECRET = b"7f3a9c"


def _contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file, and what is in those that are compressed."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield path, content
            if path.suffix == ".gz":
                yield path, gzip.decompress(content)
            if path.suffix == ".parquet":
                yield path, str(pq.read_table(path, partitioning=None).to_pydict()).encode()


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EDDA_", "PREFECT_API_"))}
    environment |= SECRETS | {"HOME": str(home), "TMPDIR": str(home), "PREFECT_HOME": str(home / "prefect")}
    environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"  # nothing answers there
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


def _assert_nothing_tells(folder: Path, *outputs: subprocess.CompletedProcess[bytes]) -> None:
    files = list(_contents(folder))
    assert [path for path, content in files if SECRET in content] == []
    assert not any(SECRET in output.stdout + output.stderr for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["--no-prefect", "--prefect"])
def test_no_secret_of_the_environment_reaches_logs_artifacts_or_the_report(tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "run.toml").write_text(SMALL_RUN)
    made = _run(tmp_path, "run", "run.toml", scheduler)
    assert made.returncode == 0, made.stderr.decode()
    others = [
        _run(tmp_path, *command, "--store", "edda-store")
        for command in (["inspect", "killed"], ["compare", "killed", "--json"], ["gc", "--dry-run"])
    ]
    assert [other.returncode for other in others] == [0, 0, 0], [other.stderr for other in others]
    names = {path.name for path, _ in _contents(tmp_path)}
    assert {"report.html", "run.json", "manifest.json", "model.safetensors"} <= names
    _assert_nothing_tells(tmp_path, made, *others)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["compute.threads=-1", 'store="s3://bucket/store"'])
def test_no_secret_of_the_environment_is_in_an_error(tmp_path: Path, change: str) -> None:
    (tmp_path / "run.toml").write_text(SMALL_RUN)
    failed = _run(tmp_path, "run", "run.toml", "--no-prefect", "--set", change)
    assert failed.returncode != 0
    _assert_nothing_tells(tmp_path, failed)
