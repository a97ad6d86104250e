"""S3 servers on loopback, and an empty bucket for each test."""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import yaml
from prefect_server import ROOT, free_port, started

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@contextmanager
def moto() -> Iterator[str]:
    """The address of a mock server."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """The address of the object store of docker/compose.yaml, started with its command, but outside a container."""
    if (weed := shutil.which("weed")) is None:
        pytest.skip("SeaweedFS is not installed")
    arguments = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]["objects"][
        "command"
    ]
    local = {"-dir=/data": f"-dir={folder}", "-ip=objects": "-ip=localhost", "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1"}
    url = f"http://localhost:{(port := free_port())}"
    command = [weed, *(local.get(word, word) for word in arguments), f"-s3.port={port}", f"-s3.port.grpc={free_port()}"]
    server = started(command, {**os.environ, **KEYS}, folder / "log")
    try:
        until = time.monotonic() + 60
        while not answers(f"{url}/healthz"):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def answers(url: str) -> bool:
    with suppress(URLError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


@pytest.fixture(scope="session", params=["moto", "seaweedfs"])
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("s3fs")
    with moto() if request.param == "moto" else seaweedfs(tmp_path_factory.mktemp("objects")) as url:
        yield url


def use_object_storage(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process use the object storage that these environment variables describe."""
    import fsspec

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # of the endpoint of another module


@pytest.fixture
def address(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder in an empty bucket; the local cache is empty."""
    import fsspec

    settings = {
        "AWS_ENDPOINT_URL": endpoint, **KEYS,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "NO_PROXY": "127.0.0.1,localhost", "EDDA_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    use_object_storage(settings, monkeypatch)
    bucket = f"edda-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    return f"s3://{bucket}/stores/one"
