"""The ingest on a Dask cluster of processes, and what a killed worker or a killed run costs."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import number_nodes
from pipeline.ingest import deduplicate, partition
from pipeline.ingest import stage as ingest_stage
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs

pytestmark = pytest.mark.slow

FILES, BUCKETS = 12, 22
BUCKET_ROWS = (300, 300)
LOCAL = ComputeSettings(threads=1)
STAGE = IngestSettings(split=SplitSettings(), rejected_share_at_most=1.0)
LOGS = LogSource(path="*.csv", columns=Columns(domain="d", timestamp="t"))


@pytest.fixture(scope="module", autouse=True)
def small_buckets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_stage, "_BUCKET_ROWS", BUCKET_ROWS)
        yield


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six thousand rows in twelve files, every fiftieth broken."""
    folder = tmp_path_factory.mktemp("logs")
    for part in range(FILES):
        lines = [f"u{n * 7 % 211},i{n * 13 % 147},d{n % 3},{n}" for n in range(part * 500, part * 500 + 500)]
        lines[::50] = ["broken,line"] * len(lines[::50])
        (folder / f"{part:02}.csv").write_text("user_id,item_id,d,t\n" + "\n".join(lines))
    return folder


def workers(count: int) -> LocalCluster:
    """Processes on loopback, every port a free one, no dashboard."""
    silent = {"dashboard": False}
    return LocalCluster(
        n_workers=count, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", scheduler_kwargs=silent
    )


def made(
    store: Path, logs: Path, compute: ComputeSettings, before: Mapping[str, Artifact] = {}
) -> list[tuple[str, str]]:
    """Every file of both artifacts, and what its bytes hash to."""
    artifacts = ingest(Store(store), STAGE, find_logs([LOGS], logs), compute, previous=before)
    return [(entry.path, entry.sha256) for artifact in artifacts.values() for entry in artifact.manifest.files]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> list[tuple[str, str]]:
    return made(tmp_path_factory.mktemp("local"), logs, LOCAL)


def test_workers_write_what_threads_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Path, expected: list[tuple[str, str]]
) -> None:
    with workers(3) as running:
        assert made(tmp_path, logs, ComputeSettings(dask_scheduler=running.scheduler_address)) == expected


def test_workers_update_as_threads_do(tmp_path: Path, logs: Path, expected: list[tuple[str, str]]) -> None:
    """Half of the files were there before."""
    for path in sorted(logs.iterdir())[::2]:
        (tmp_path / "half").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "half")
    store = Store(tmp_path / "store")
    before = {"interactions": ingest(store, STAGE, find_logs([LOGS], tmp_path / "half"), LOCAL)["interactions"]}
    before["nodes"] = number_nodes(store, GraphSettings(), before, LOCAL)
    updated = made(tmp_path / "threads", logs, LOCAL, before)
    assert updated != expected
    with workers(2) as running:
        on_cluster = ComputeSettings(dask_scheduler=running.scheduler_address)
        assert made(tmp_path / "workers", logs, on_cluster, before) == updated


def _die_once(marker: str, task: str) -> None:
    """On every worker: the first process that is in the middle of `task` is killed, and no other."""
    from pipeline.ingest import deduplicate, partition

    module, name = {"partition": (partition, "clean"), "deduplicate": (deduplicate, "_merge")}[task]
    original = getattr(module, name)

    def deadly(*arguments: object) -> object:
        try:
            Path(marker).touch(exist_ok=False)
        except FileExistsError:
            return original(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(module, name, deadly)


@pytest.mark.parametrize("task", ["partition", "deduplicate"])
def test_a_killed_worker_does_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Path, expected: list[tuple[str, str]], task: str
) -> None:
    with workers(2) as running:
        with Client(running, set_as_default=False) as client:
            before = set(client.run(os.getpid).values())
            client.run(_die_once, str(tmp_path / "killed"), task)
        found = made(tmp_path / "store", logs, ComputeSettings(dask_scheduler=running.scheduler_address))
        with Client(running, set_as_default=False) as client:
            client.wait_for_workers(2)
            after = set(client.run(os.getpid).values())
    assert (tmp_path / "killed").exists()
    assert len(before & after) == 1
    assert found == expected


KILLED = """
import os, signal, sys
from pathlib import Path
import test_cluster as test
from pipeline.ingest import deduplicate, partition, stage as ingest_stage

module, name, turn = {"partition": (partition, "clean", 8), "deduplicate": (deduplicate, "_kept_table", 8)}[sys.argv[3]]
original, turns = getattr(module, name), iter(range(1, 1000))

def deadly(*arguments):
    if next(turns) == turn:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)

setattr(module, name, deadly)
ingest_stage._BUCKET_ROWS = test.BUCKET_ROWS
test.made(Path(sys.argv[1]), Path(sys.argv[2]), test.LOCAL)
"""


@pytest.mark.parametrize(
    ("task", "partitioned_before", "deduplicated_before"), [("partition", 7, 0), ("deduplicate", FILES, 7)]
)
def test_a_killed_run_goes_on_with_the_chunk_that_it_was_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Path,
    expected: list[tuple[str, str]],
    task: str,
    partitioned_before: int,
    deduplicated_before: int,
) -> None:
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(logs), task]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    assert subprocess.run(arguments, env=os.environ | {"PYTHONPATH": path}, check=False).returncode == -signal.SIGKILL
    calls: Counter[str] = Counter()
    monkeypatch.setattr(partition, "_write_partition", counted(partition._write_partition, calls, "partition"))
    monkeypatch.setattr(deduplicate, "_write_bucket", counted(deduplicate._write_bucket, calls, "deduplicate"))
    assert made(tmp_path, logs, LOCAL) == expected
    assert calls["partition"] == FILES - partitioned_before
    assert calls["deduplicate"] == BUCKETS - deduplicated_before


def counted(work: Callable[..., None], calls: Counter[str], name: str) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        calls[name] += 1
        work(*arguments)

    return call
