"""Raw logs to pairs on a Dask cluster of processes: the same results as local threads, whatever happens to workers."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, WorkerPlugin

import pipeline.pairs.join
from data_contracts.contracts import COVERAGE_FILE
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.statistics import CoverageColumns, rows_of_coverage
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.compute.fan_out import fan_out
from pipeline.graph import build_graph, number_nodes
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach
from pipeline.synthetic import make_world, world_logs

pytestmark = pytest.mark.slow

ROWS = 60
WORLD = WorldSettings(domains=3, users=240, items=160, interactions=4000, shrink=0.6)
LOCAL = ComputeSettings(threads=2)
REACH = {method: ReachSettings(method=method, walks=50, anchors_kept=16) for method in ("exact", "pruned", "walk")}
PAIRS = {"exact": PairsSettings(), "candidates": PairsSettings(most_products=0, products_per_row=200, candidates=8)}
LARGEST_MESSAGE = 8192


class SmallChunks(WorkerPlugin):
    """Small chunks on every worker, including those that start later."""

    name = "small-chunks"

    def setup(self, worker: Any) -> None:
        self.before, pipeline.pairs.join._ROWS_PER_CHUNK = pipeline.pairs.join._ROWS_PER_CHUNK, ROWS

    def teardown(self, worker: Any) -> None:
        pipeline.pairs.join._ROWS_PER_CHUNK = self.before


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.pairs.join._ROWS_PER_CHUNK", ROWS)
        patch.setattr("pipeline.reach.vectors._NODES_PER_CHUNK", (ROWS, ROWS))
        yield


@pytest.fixture(scope="module")
def on_cluster(cluster: LocalCluster) -> Iterator[ComputeSettings]:
    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(SmallChunks())
        yield ComputeSettings(dask_scheduler=cluster.scheduler_address)
        client.unregister_worker_plugin(SmallChunks.name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_world(Store(tmp_path_factory.mktemp("world")), WORLD, {}, LOCAL)


def graphs(store: Store, world: Artifact, compute: ComputeSettings) -> dict[str, Artifact]:
    """Interactions, nodes and graph of the world's logs."""
    logs = find_logs(world_logs(world), world.path)
    parents = ingest(store, IngestSettings(), logs, compute)
    parents["nodes"] = number_nodes(store, GraphSettings(), {"interactions": parents["interactions"]}, compute)
    inputs = {name: parents[name] for name in ("interactions", "nodes")}
    return {**parents, "graph": build_graph(store, GraphSettings(), inputs, compute)}


def reach(store: Store, made: dict[str, Artifact], method: str, compute: ComputeSettings) -> Artifact:
    return compute_reach(store, REACH[method], {name: made[name] for name in ("nodes", "graph")}, compute)


def pairs(store: Store, made: dict[str, Artifact], method: str, compute: ComputeSettings) -> Artifact:
    return pair_domains(store, PAIRS[method], {name: made[name] for name in ("nodes", "reach")}, compute)


@pytest.fixture(autouse=True)
def small_domains_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's domains are described and paired as large ones are."""
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)


def content(artifact: Artifact) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Every file with what its bytes hash to, and the statistics."""
    return [(entry.path, entry.sha256) for entry in artifact.manifest.files], artifact.manifest.statistics


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, world: Artifact) -> dict[str, Artifact]:
    """What threads make; `reach` is that of walks."""
    store = Store(tmp_path_factory.mktemp("local"))
    made = graphs(store, world, LOCAL)
    return {**made, "reach": reach(store, made, "walk", LOCAL)}


def test_workers_and_threads_read_number_and_join_alike(tmp_path, world, local, on_cluster):
    made = graphs(Store(tmp_path), world, on_cluster)
    assert {role: content(artifact) for role, artifact in made.items()} == {role: content(local[role]) for role in made}


@pytest.mark.parametrize("method", REACH)
def test_workers_describe_as_threads_do(tmp_path, local, on_cluster, method):
    artifact = reach(Store(tmp_path / "cluster"), local, method, on_cluster)
    expected = reach(Store(tmp_path / "threads"), local, method, LOCAL)
    assert content(artifact) == content(expected)
    assert len(artifact.files()) > 10
    assert {domain["method"] for domain in artifact.statistics["domains"].values()} == {method}


@pytest.mark.parametrize("method", PAIRS)
def test_workers_align_as_threads_do(tmp_path, local, on_cluster, method):
    artifact = pairs(Store(tmp_path / "cluster"), local, method, on_cluster)
    assert content(artifact) == content(pairs(Store(tmp_path / "threads"), local, method, LOCAL))
    assert {row["method"] for row in rows_of_coverage(artifact.read_json(COVERAGE_FILE, CoverageColumns))} == {method}
    assert artifact.manifest.rows > 1000


def _die_at(turn: int, module: str, name: str, folder: str) -> None:
    """On every worker: kill the process that makes the `turn`-th call of a function, after the function's work."""
    original = getattr(import_module(module), name)

    def deadly(*arguments: object) -> object:
        result = original(*arguments)
        if _turn(Path(folder)) == turn:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    deadly.original = original  # type: ignore[attr-defined]
    setattr(import_module(module), name, deadly)


def _turn(folder: Path) -> int:
    """The number of calls by all processes so far, including this one."""
    for number in count(1):
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        return number
    raise AssertionError


def _restore(module: str, name: str) -> None:
    function = getattr(import_module(module), name)
    setattr(import_module(module), name, getattr(function, "original", function))


@pytest.mark.parametrize(
    ("make", "function"),
    [(reach, ("pipeline.reach.vectors", "write_checked")), (pairs, ("pipeline.pairs.join", "_join_exactly"))],
)
def test_a_worker_killed_in_the_middle_does_not_change_the_result(
    tmp_path: Path, local: dict[str, Artifact], on_cluster: ComputeSettings, make: Callable[..., Artifact], function
) -> None:
    method = {reach: "walk", pairs: "exact"}[make]
    turns = tmp_path / "turns"
    turns.mkdir()
    with Client(on_cluster.dask_scheduler, set_as_default=False) as client:
        before = set(client.run(os.getpid).values())
        client.run(_die_at, 4, *function, str(turns))
        artifact = make(Store(tmp_path / "cluster"), local, method, on_cluster)
        client.wait_for_workers(len(before))
        after = set(client.run(os.getpid).values())
        client.run(_restore, *function)
    assert len(before - after) == 1
    assert len(list(turns.iterdir())) > 4
    assert content(artifact) == content(make(Store(tmp_path / "threads"), local, method, LOCAL))


def test_only_paths_and_small_reports_are_sent(tmp_path, local, monkeypatch):
    sizes: list[int] = []

    def recorded(function: Callable[[Any], Any], arguments: Sequence[Any], *rest: Any) -> list[Any]:
        results = fan_out(function, [pickle.loads(pickle.dumps(argument)) for argument in arguments], *rest)
        sizes.extend(len(pickle.dumps((function, *sent))) for sent in zip(arguments, results, strict=True))
        return results

    monkeypatch.setattr("pipeline.reach.stage.fan_out", recorded)
    monkeypatch.setattr("pipeline.pairs.stage.fan_out", recorded)
    for method in REACH:
        reach(Store(tmp_path), local, method, LOCAL)
    for method in PAIRS:
        pairs(Store(tmp_path), local, method, LOCAL)
    assert len(sizes) > 100
    assert max(sizes) < LARGEST_MESSAGE
