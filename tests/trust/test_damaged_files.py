"""Whatever of an artifact's files is damaged, whoever opens it says so in one line that names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from damage import DAMAGES, damage_file
from fake_stages import edda

from data_contracts.contracts import CONTRACTS
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.statistics import CoverageColumns
from data_contracts.store.artifact import Artifact, read_blocks
from data_contracts.store.dataset import ArtifactDataset
from data_contracts.store.store import Store, open_artifact
from flows.inspection.sql import ask
from model.data.dataset import load_dataset
from model.edda.checkpoint import load_checkpoint
from model.evidence.neighbours import open_neighbours
from model.serving.approximate import build_index, open_index
from model.serving.catalogue import open_catalogue
from pipeline.pairs.incremental import ReusedPairs
from pipeline.synthetic import make_world, world_logs

Artifacts = Mapping[str, Artifact]
VECTORS = "vectors/books.safetensors"


@pytest.fixture(scope="module")
def store(tiny_run, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A copy of the tiny run, with an index and a world."""
    root = tmp_path_factory.mktemp("damaged") / "store"
    shutil.copytree(tiny_run.store, root, symlinks=True)
    store = Store(root)
    artifacts = {role: Artifact(a.contract, root / a.contract.name / a.key) for role, a in tiny_run.artifacts.items()}
    (pairs,) = (root / "pairs").iterdir()
    world = WorldSettings(domains=2, users=50, items=40, interactions=500)
    made = {
        "pairs": open_artifact(pairs),
        "index": build_index(store, artifacts),
        "world": make_world(store, world, {}, ComputeSettings(threads=1)),
    }
    store.link_run(store.run("tiny").build("tiny", {**artifacts, **made}))
    return store


def _artifacts(store: Store) -> dict[str, Artifact]:
    return store.recorded(store.run("tiny"))


def _sql(name: str) -> Callable[[Artifacts], object]:
    def query(artifacts: Artifacts) -> list[tuple[Any, ...]]:
        with ask(artifacts, f'from "{name}"') as result:
            return list(result.rows)

    return query


def _checkpoint(artifacts: Artifacts) -> object:
    return load_checkpoint(artifacts["checkpoint-1"], load_dataset(artifacts["nodes"], artifacts["graph"]))


READERS: dict[str, tuple[str, str, Callable[[Artifacts], object]]] = {
    "vectors that are served": (
        "embeddings", VECTORS, lambda artifacts: open_catalogue(artifacts, "books"),
    ),
    "ids that are served": (
        "embeddings", "domain=books/part-00000.parquet", lambda artifacts: open_catalogue(artifacts, "books"),
    ),
    "neighbours that are served": (
        "neighbours", "rows/union.safetensors", lambda artifacts: open_neighbours(artifacts["neighbours"], 32),
    ),
    "an index": ("index", "items/films.faiss", lambda artifacts: open_index(artifacts["index"])),
    "a model's tensors": ("checkpoint-1", "model.safetensors", _checkpoint),
    "a model's description": ("checkpoint-1", "model.json", _checkpoint),
    "rows": ("nodes", "domain=films/part-00000.parquet", lambda artifacts: artifacts["nodes"].read()),
    "one column": ("nodes", "domain=films/part-00000.parquet", lambda artifacts: artifacts["nodes"].read(["node"])),
    "rows by blocks": (
        "nodes", "domain=films/part-00000.parquet", lambda artifacts: list(read_blocks(artifacts["nodes"], ["id"])),
    ),
    "rows by SQL": ("nodes", "domain=films/part-00000.parquet", _sql("nodes")),
    "rows of an engine": (
        "nodes", "domain=films/part-00000.parquet", lambda artifacts: ArtifactDataset(artifacts["nodes"]).to_table(),
    ),
    "coverage of pairs": (
        "pairs", "coverage.json", lambda artifacts: artifacts["pairs"].read_json("coverage.json", CoverageColumns),
    ),
    "pairs that an update copies": (
        "pairs", "source_domain=books/part-00000.parquet",
        lambda artifacts: ReusedPairs(previous=artifacts["pairs"]).file("books", "films"),
    ),
    "logs of a world": ("world", "logs/east.csv.gz", lambda artifacts: world_logs(artifacts["world"])),
}  # fmt: skip


@pytest.fixture
def damaged(store: Store) -> Iterator[Callable[[str, str, Callable[[bytes], bytes]], Path]]:
    """Damages a file of an artifact until the test ends."""
    before: dict[Path, bytes] = {}

    def damage(role: str, name: str, how: Callable[[bytes], bytes]) -> Path:
        path = _artifacts(store)[role].folder / name
        before[path] = path.read_bytes()
        damage_file(path, how)
        return path

    yield damage
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(store, damaged, reader, damage):
    role, name, read = READERS[reader]
    assert read(_artifacts(store))
    path = damaged(role, name, damage)
    with pytest.raises(OSError, match=r" is damaged: .*; delete .* to make it again$") as refused:
        read(_artifacts(store))
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_file_is_refused_in_one_line_that_names_it(store, reader):
    role, name, read = READERS[reader]
    path = _artifacts(store)[role].folder / name
    path.rename(path.with_name("elsewhere"))
    try:
        with pytest.raises(OSError, match=rf"^{path} is damaged: No such file or directory; delete "):
            read(_artifacts(store))
    finally:
        path.with_name("elsewhere").rename(path)


def test_every_kind_of_file_that_contracts_name_has_a_reader_here(store):
    names = {name for contract in CONTRACTS.values() for name in contract.files}
    tried = {name for _, name, _ in READERS.values()}
    assert {pattern for pattern in names if not any(Path(name).match(pattern) for name in tried)} == set()


@pytest.mark.parametrize("damage", DAMAGES)
def test_recommend_refuses_damaged_vectors_and_answers_again_when_they_are_right(store, damaged, capsys, damage):
    user = _artifacts(store)["nodes"].read(["id"], domain="books")["id"][0].as_py()
    command = ["recommend", "tiny", "--store", str(store), "--domain", "books", "--user", user, "--top", "3"]
    assert edda(*command) == 0
    right, content = capsys.readouterr().out, (_artifacts(store)["embeddings"].folder / VECTORS).read_bytes()
    path = damaged("embeddings", VECTORS, damage)
    assert edda(*command) == 1
    refused = capsys.readouterr()
    assert (refused.out, refused.err.count("\n")) == ("", 1)
    assert refused.err.startswith(f"edda: {path}")
    path.write_bytes(content)
    assert edda(*command) == 0
    assert capsys.readouterr().out == right


def test_ids_of_a_domain_are_queried_without_the_files_of_others(store, damaged):
    damaged("nodes", "domain=films/part-00000.parquet", DAMAGES[0])
    with ask({"nodes": _artifacts(store)["nodes"]}, "select count(*) from nodes where domain = 'books'") as result:
        assert list(result.rows) == [(len(_artifacts(store)["nodes"].read(["node"], domain="books")),)]
