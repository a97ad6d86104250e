"""Object storage that cannot be reached is reported in one line: what, where, what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from object_storage import address, endpoint

from data_contracts.open_store import open_store
from data_contracts.remote.client import Remote

pytestmark = pytest.mark.slow

__all__ = ["address", "endpoint"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "s3://no-such-bucket/x",
            r"^s3://no-such-bucket/x: bucket 'no-such-bucket' is not there, must exist; create it",
        ),
        ("ftp://host/x", r"^address is 'ftp://host/x', must be one of s3://bucket/prefix, gs://"),
        ("s3:///x", r"^address is 's3:///x', must be one of s3://bucket/prefix"),
        ("s3://user:pass@bucket/x", r"^a store's address holds a password, must not"),
    ],
)
def test_an_address_that_leads_nowhere_is_reported(address, place: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_store(place)


def refused(address: str, **environment: str) -> str:
    """What a command prints where it cannot reach the storage; an empty value unsets a variable."""
    command = [sys.executable, "-m", "flows.cli", "inspect", "run", "--store", address]
    given = {name: value for name, value in {**os.environ, **environment}.items() if value}
    done = subprocess.run(command, capture_output=True, text=True, env=given, check=False)
    assert done.returncode == 1
    return done.stderr


def test_missing_credentials_and_a_silent_storage_are_one_line(address) -> None:
    without = refused(address, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert without.startswith(f"edda: {address}: no usable credentials (NoCredentialsError: ")
    assert without.count("\n") == 1
    silent = refused(address, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert silent.startswith(f"edda: {address}: the storage does not answer as it should (EndpointConnectionError: ")
    assert silent.count("\n") == 1


def test_of_many_who_create_a_file_at_once_one_does(address) -> None:
    remote, contents = Remote(address), [str(number).encode() for number in range(8)]
    with ThreadPoolExecutor(len(contents)) as writers:
        for name in ("a", "b", "c"):
            created = list(writers.map(lambda content, name=name: remote.create(name, content), contents))
            assert [content for content, done in zip(contents, created, strict=True) if done] == [remote.read(name)]


def test_a_refusal_that_does_not_name_the_condition_is_understood(address, monkeypatch) -> None:
    exceptions = pytest.importorskip("moto.s3.exceptions")
    unnamed = lambda error, condition: exceptions.S3ClientError.__init__(error, "it did not hold")  # noqa: E731
    monkeypatch.setattr(exceptions.PreconditionFailed, "__init__", unnamed)
    assert [Remote(address).create("a", content) for content in (b"1", b"2")] == [True, False]
