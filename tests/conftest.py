"""Fixtures of several test modules."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from hypothesis import settings
from tiny_world import Tiny, TinyRun, build, exported, random_log

from data_contracts.store.store import Store
from flows.orchestration.embedded import ENVIRONMENT

os.environ |= {name: value for name, value in ENVIRONMENT.items() if "LOGGING" in name}
settings.register_profile("any-machine", deadline=None)  # the first example may wait for imports, or a busy machine
settings.load_profile("any-machine")
SIZES = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}
WEIGHTS = {"books": (1.0, 2.0), "films": (0.0, 1.0), "games": (1.0, 0.0)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tiny_world(store: Store) -> Tiny:
    """Three domains of 30, 16 and 8 users that share some users and items, with all splits in each domain."""
    return build(store, random_log(1, SIZES), every_pair=True)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The same world as a run named `tiny`, trained for two epochs and exported; to be read only.

    Books are ranked by vectors and evidence, films by evidence alone, games by vectors alone.
    """
    store = Store(tmp_path_factory.mktemp("tiny") / "store")
    return TinyRun(store.root, exported(build(store, random_log(1, SIZES), every_pair=True), "tiny", WEIGHTS))


@pytest.fixture(scope="session")
def vector_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The run of `tiny_run` without evidence."""
    store = Store(tmp_path_factory.mktemp("vectors") / "store")
    return TinyRun(store.root, exported(build(store, random_log(1, SIZES), every_pair=True), "vectors"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Three workers, each a process with one thread on loopback; a killed one is restarted."""
    silent = {"dashboard": False}
    with LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", scheduler_kwargs=silent
    ) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is computed about files of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: what an archive holds may differ between the processes that collect tests."""
    return argname if isinstance(val, bytes) else None
