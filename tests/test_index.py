import json
from dataclasses import replace

import numpy as np
import pytest
from fake_stages import edda
from tiny_world import TinyRun

from data_contracts.artifact import Artifact
from data_contracts.garbage import find_garbage
from data_contracts.store import Store
from flows.recommending import Recommender

pytest.importorskip("faiss")

from model import index as indexing
from model.catalogue import Catalogue, open_catalogue
from model.index import IndexSearch, build_index, find_index, open_index
from model.recommending import best_items


@pytest.fixture(scope="module")
def built(tiny_run: TinyRun) -> Artifact:
    return build_index(Store(tiny_run.store), tiny_run.artifacts)


class Ball:
    """An index that finds the items it is told, in place of faiss's."""

    def __init__(self, found: list[int], size: int) -> None:
        self.found, self.ntotal = found, size

    def search(self, vectors, wanted, params):
        items = np.array([self.found[:wanted] + [-1] * (wanted - len(self.found))] * len(vectors))
        return -items.astype(np.float32), items


def forty(known: list[int]) -> tuple[Catalogue, tuple[np.ndarray, np.ndarray]]:
    """Forty items, the higher its number the better, and what one user knows."""
    vectors = np.arange(40, dtype=np.float32)[:, None]
    nobody = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(40, np.int64)
    catalogue = Catalogue("books", None, None, np.ones((1, 1), np.float32), vectors, *nobody)
    return catalogue, (np.array([0, len(known)]), np.array(known, np.int32))


def test_what_the_index_finds_is_taken_but_what_the_user_knows() -> None:
    catalogue, left_out = forty([7, 9])
    items, scores = IndexSearch({"books": Ball([5, 7, 6, 9, 8, 4], 40)})(catalogue, catalogue.users, left_out, 3)
    assert (items.tolist(), scores.tolist()) == ([[5, 6, 8]], [[-5, -6, -8]])


@pytest.mark.parametrize(("found", "size"), [([5, 7], 40), ([5, 6, 8, 9, 10], 19)])
def test_too_few_found_or_too_many_wanted_is_answered_exactly(found, size) -> None:
    catalogue, left_out = forty([38, 39])
    items, scores = IndexSearch({"books": Ball(found, size)})(catalogue, catalogue.users, left_out, 3)
    assert (items.tolist(), scores.tolist()) == ([[37, 36, 35]], [[37, 36, 35]])


def test_an_index_finds_nearly_what_exact_search_finds(tmp_path, monkeypatch) -> None:
    random = np.random.default_rng(3)
    vectors = random.standard_normal((2_000, 16), dtype=np.float32)
    faiss_index = indexing.faiss.IndexHNSWFlat(16, 32, indexing.faiss.METRIC_INNER_PRODUCT)
    faiss_index.add(vectors)
    users = random.standard_normal((20, 16), dtype=np.float32)
    nobody = np.zeros(21, np.int64), np.zeros(0, np.int32)
    catalogue = Catalogue("books", None, None, users, vectors, *nobody, np.zeros(2_000, np.int64))
    found = IndexSearch({"books": faiss_index})(catalogue, users, nobody, 10)
    exact = best_items(catalogue, users, nobody, 10)
    assert np.mean([np.isin(*rows).mean() for rows in zip(exact[0], found[0], strict=True)]) > 0.9
    assert (np.diff(found[1], axis=1) <= 0).all()


def test_recall_is_whole_where_there_is_nothing_to_find() -> None:
    catalogue = replace(forty([])[0], indptr=np.array([0, 40]), known=np.arange(40, dtype=np.int32))
    assert indexing._compared(catalogue, IndexSearch({"books": Ball([], 40)}))["recall"] == 1.0


def test_every_domain_is_indexed_and_compared(built: Artifact) -> None:
    rows = built.read().to_pylist()
    assert [(row["domain"], row["items"]) for row in rows] == [("books", 20), ("films", 14), ("games", 10)]
    assert built.verify() == []
    assert all(row["recall"] == 1.0 for row in rows)  # so few items are searched exactly


def test_the_same_vectors_give_the_same_bytes(tiny_run: TinyRun, built: Artifact, tmp_path) -> None:
    again = build_index(Store(tmp_path), tiny_run.artifacts)
    digests = [[f.sha256 for f in made.manifest.files if f.path.endswith(".faiss")] for made in (built, again)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_an_index_is_found_by_what_it_was_built_from_alone(tiny_run: TinyRun, built: Artifact, tmp_path) -> None:
    found = find_index(Store(tiny_run.store), tiny_run.artifacts)
    assert found is not None
    assert found.path == built.path
    assert find_index(Store(tmp_path), tiny_run.artifacts) is None


def test_index_and_what_asks_it_on_the_command_line(tiny_run: TinyRun, capsys) -> None:
    options = ["--store", str(tiny_run.store)]
    assert edda("index", "tiny", *options) == 0
    out = capsys.readouterr().out
    assert "recall@20" in out
    assert out.splitlines()[-1].split()[:3] == ["games", "10", "1.000"]
    assert not [found for found in find_garbage(tiny_run.store) if "index" in str(found.path)]
    assert edda("inspect", "tiny/index", *options) == 0
    assert capsys.readouterr().out.startswith("index (contract version 1)")
    assert edda("recommend", "tiny", *options, "--domain", "books", "--user", "u0001", "--index", "--json") == 0
    expected = Recommender(tiny_run.artifacts).for_user("books", "u0001", 10)
    assert [row["item"] for row in json.loads(capsys.readouterr().out)["items"]] == [row.item for row in expected]


def test_an_index_that_is_not_there_is_asked_for_by_name(tiny_run: TinyRun, capsys, monkeypatch) -> None:
    monkeypatch.setattr(indexing, "SETTINGS", {**indexing.SETTINGS, "links": 8})
    assert edda("recommend", "tiny", "--store", str(tiny_run.store), "--domain", "books", "--user", "u", "--index") == 1
    assert "run tiny has no index of its embeddings yet; make it with: edda index tiny" in capsys.readouterr().err


def test_an_opened_index_answers_for_the_service(tiny_run: TinyRun, built: Artifact) -> None:
    books = open_catalogue(tiny_run.artifacts, "books")
    found = Recommender(tiny_run.artifacts, open_index(built)).for_users("books", books.user_ids.to_pylist(), 3)
    assert found == Recommender(tiny_run.artifacts).for_users("books", books.user_ids.to_pylist(), 3)
