import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from damage import resigned
from fake_stages import edda
from tiny_world import TinyRun, make_blend

from data_contracts.store.artifact import Artifact
from data_contracts.store.garbage import find_garbage
from data_contracts.store.store import Store
from flows.runner.execute import _unlink_stale_index
from model.serving.recommender import Recommender

pytest.importorskip("faiss")

from model.evidence.blend import Blend, BlendWeights
from model.evidence.domain_evidence import DomainEvidence, Histories
from model.evidence.neighbours import ItemNeighbours
from model.serving import approximate
from model.serving.approximate import IndexSearch, build_index, find_index, open_index
from model.serving.catalogue import Catalogue
from model.serving.exact import top_items
from model.serving.scorer import DomainScorer, DomainScorers, Query


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


def forty(known: list[int], blend: Blend | None = None) -> tuple[DomainScorer, Query]:
    """Forty items, the higher its number the better, and a user who knows some."""
    vectors = np.arange(40, dtype=np.float32)[:, None]
    nobody = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(40, np.int64)
    catalogue = Catalogue("books", None, None, np.ones((1, 1), np.float32), vectors, *nobody)
    histories = Histories(np.array([0, len(known)]), np.array(known, np.int32)) if blend else None
    excluded = np.array([0, len(known)]), np.array(known, np.int32)
    return DomainScorer(catalogue, blend), Query(catalogue.users, histories, *excluded)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more candidates by vectors than items are asked for."""
    monkeypatch.setitem(approximate.SETTINGS, "candidates_by_vectors", 0)


def world_of(users: int, items: int, seed: int = 3) -> DomainScorer:
    """Users and items that are drawn, with histories of up to thirty items and sparse neighbours."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((users + items, 16), dtype=np.float32)
    lengths = random.integers(0, 30, users)
    known = np.concatenate([np.sort(random.choice(items, n, replace=False)) for n in lengths]).astype(np.int32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    rows = sp.random_array((items, items), density=40 / items, format="csr", rng=random, dtype=np.float32)
    rows.sort_indices()
    neighbours = ItemNeighbours(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data)
    numbers = np.arange(users, dtype=np.int32), np.arange(items, dtype=np.int32)
    evidence = DomainEvidence(neighbours, Histories(indptr, known), *numbers)
    catalogue = Catalogue("books", None, None, vectors[:users], vectors[users:], indptr, known, np.bincount(known))
    return DomainScorer(catalogue, Blend(BlendWeights(1.0, 3.0, 4.0), evidence))


@pytest.mark.usefixtures("few")
def test_what_the_index_finds_is_taken_but_what_the_user_knows() -> None:
    scorer, query = forty([7, 9])
    items, scores = IndexSearch({"books": Ball([5, 7, 6, 9, 8, 4], 40)})(scorer, query, 3)
    assert (items.tolist(), scores.tolist()) == ([[8, 6, 5]], [[8, 6, 5]])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("found", "size"), [([5, 7], 40), ([5, 6, 8, 9, 10], 19)])
def test_too_few_found_or_too_many_wanted_is_answered_exactly(found, size) -> None:
    scorer, query = forty([38, 39])
    items, scores = IndexSearch({"books": Ball(found, size)})(scorer, query, 3)
    assert (items.tolist(), scores.tolist()) == ([[37, 36, 35]], [[37, 36, 35]])


@pytest.mark.usefixtures("few")
def test_items_that_evidence_speaks_for_are_candidates_too() -> None:
    """Item 9 leads to 2 and 3; 3 is known."""
    rows = sp.csr_array(([60.0, 70.0], ([9, 9], [2, 3])), shape=(40, 40), dtype=np.float32)
    neighbours = ItemNeighbours(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data)
    evidence = DomainEvidence(neighbours, Histories(np.zeros(2, np.int64), np.zeros(0, np.int32)),
                              np.zeros(1, np.int32), np.arange(40, dtype=np.int32))  # fmt: skip
    scorer, query = forty([3, 9], Blend(BlendWeights(1.0, 1.0, 5.0), evidence))
    items, scores = IndexSearch({"books": Ball([5, 6, 7, 4], 40)})(scorer, query, 3)
    assert items.tolist() == [[2, 7, 6]]
    assert scores[0] == pytest.approx(scorer.score(query)[0, [2, 7, 6]])


def test_an_index_finds_nearly_what_exact_search_finds() -> None:
    scorer = world_of(users=200, items=3_000)
    index = approximate.faiss.IndexHNSWFlat(16, 32, approximate.faiss.METRIC_INNER_PRODUCT)
    index.add(scorer.catalogue.items)
    query = scorer.query(np.arange(200))
    found = IndexSearch({"books": index})(scorer, query, 20)
    exact = top_items(scorer, query, 20)
    shares = [np.isin(*rows).mean() for rows in zip(exact[0], found[0], strict=True)]
    assert np.mean(shares) > 0.99
    for mine, scores, row in zip(*found, scorer.score(query), strict=True):
        assert scores == pytest.approx(row[mine], rel=1e-4, abs=1e-4)
    assert (np.diff(found[1], axis=1) <= 0).all()


def test_a_bound_on_candidates_by_evidence_keeps_the_strongest(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = world_of(users=50, items=3_000)
    monkeypatch.setitem(approximate.SETTINGS, "candidates_by_evidence", 20)
    found = IndexSearch({"books": Ball(list(range(70)), 3_000)})(scorer, scorer.query(np.arange(50)), 20)
    for user, items in enumerate(found[0]):
        query = scorer.query(np.array([user]))
        evidence = scorer.user_evidence(query)
        new = ~np.isin(evidence.items, query.excluded)
        strongest = evidence.items[new][np.argsort(-evidence.weighted[new])[:20]]
        candidates = np.union1d(np.setdiff1d(np.arange(70), query.excluded), strongest)
        scores = scorer.score(query)[0]
        assert scores[items].min() >= np.sort(scores[candidates])[-20] - 1e-4


def test_recall_is_whole_where_there_is_nothing_to_find() -> None:
    scorer, _ = forty([])
    catalogue = replace(scorer.catalogue, indptr=np.array([0, 40]), known=np.arange(40, dtype=np.int32))
    assert approximate._compare(DomainScorer(catalogue, None), IndexSearch({"books": Ball([], 40)}))["recall"] == 1.0


def test_every_domain_is_indexed_and_compared(built: Artifact) -> None:
    rows = built.read().to_pylist()
    assert [(row["domain"], row["items"]) for row in rows] == [("books", 20), ("films", 14), ("games", 10)]
    assert built.verify() == []
    assert all(row["recall"] == 1.0 for row in rows)  # so few items are searched exactly
    assert all(0 < row[f"{kind}_p50"] <= row[f"{kind}_p99"] for row in rows for kind in ("exact", "index"))


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


def other_blend(run: TinyRun, store: Store) -> dict[str, Artifact]:
    """The run's artifacts, but for weights that were fitted anew."""
    return {**run.artifacts, "blend-1": make_blend(store, run.artifacts, {"books": (1.0, 9.0)})}


def test_another_blend_needs_another_index(tiny_run: TinyRun, built: Artifact, tmp_path) -> None:
    assert set(built.manifest.parents) == {"embeddings", "graph", "nodes", "neighbours", "blend-1"}
    assert find_index(Store(tiny_run.store), other_blend(tiny_run, Store(tmp_path))) is None


def test_vectors_alone_have_an_index_of_vectors_alone(vector_run: TinyRun) -> None:
    made = build_index(Store(vector_run.store), vector_run.artifacts)
    assert set(made.manifest.parents) == {"embeddings", "graph"}
    books = DomainScorers(vector_run.artifacts)["books"].catalogue
    found = Recommender(vector_run.artifacts, open_index(made)).for_users("books", books.user_ids.to_pylist(), 3)
    assert found == Recommender(vector_run.artifacts).for_users("books", books.user_ids.to_pylist(), 3)


@pytest.fixture
def linked(built: Artifact, tmp_path) -> Store:
    """A store with a run that has the index."""
    store = Store(tmp_path / "linked")
    (store.root / "index").mkdir(parents=True)
    (store.root / "index" / built.key).symlink_to(built.path)
    store.link("tiny", "index", built)
    return store


def ended(store: Store, artifacts: dict[str, Artifact]) -> None:
    """What happens to an index when a run ends with such artifacts."""
    plan = SimpleNamespace(store=store)
    _unlink_stale_index(SimpleNamespace(plan=plan, config=SimpleNamespace(name="tiny"), artifacts=artifacts))


def test_a_run_that_serves_the_same_keeps_its_index(linked: Store, tiny_run: TinyRun) -> None:
    ended(linked, tiny_run.artifacts)
    assert linked.linked("tiny", "index") is not None
    ended(linked, {role: made for role, made in tiny_run.artifacts.items() if role != "embeddings"})
    assert linked.linked("tiny", "index") is not None


def test_a_run_with_another_blend_or_none_lets_go_of_its_index(
    linked: Store, tiny_run: TinyRun, built, tmp_path
) -> None:
    ended(linked, other_blend(tiny_run, Store(tmp_path)))
    assert linked.linked("tiny", "index") is None
    linked.link("tiny", "index", built)
    ended(linked, {role: made for role, made in tiny_run.artifacts.items() if role != "blend-1"})
    assert linked.linked("tiny", "index") is None


def test_a_run_lets_go_of_an_index_of_an_earlier_version_or_one_that_is_gone(linked: Store, tiny_run, built) -> None:
    folder = linked.root / "index" / built.key
    folder.unlink()
    ended(linked, tiny_run.artifacts)
    assert linked.link_target("tiny", "index") is None
    folder.mkdir()
    (folder / "manifest.json").write_bytes(resigned((built.path / "manifest.json").read_bytes(), version=1))
    linked.link("tiny", "index", built)
    ended(linked, tiny_run.artifacts)
    assert linked.link_target("tiny", "index") is None


def test_index_and_what_asks_it_on_the_command_line(tiny_run: TinyRun, capsys) -> None:
    options = ["--store", str(tiny_run.store)]
    assert edda("index", "tiny", *options) == 0
    out = capsys.readouterr().out
    assert "recall@20" in out
    assert out.splitlines()[-1].split()[:3] == ["games", "10", "1.0000"]
    assert not [found for found in find_garbage(tiny_run.store) if "index" in str(found.path)]
    assert edda("inspect", "tiny/index", *options) == 0
    assert capsys.readouterr().out.startswith("index (contract version 2)")
    assert edda("recommend", "tiny", *options, "--domain", "books", "--user", "u0001", "--index", "--json") == 0
    expected = Recommender(tiny_run.artifacts).for_user("books", "u0001", 10).items
    assert [row["item"] for row in json.loads(capsys.readouterr().out)["items"]] == [row.item for row in expected]


def test_an_index_that_is_not_there_is_asked_for_by_name(tiny_run: TinyRun, capsys, monkeypatch) -> None:
    monkeypatch.setattr(approximate, "SETTINGS", {**approximate.SETTINGS, "links": 8})
    assert edda("recommend", "tiny", "--store", str(tiny_run.store), "--domain", "books", "--user", "u", "--index") == 1
    assert "run tiny has no index of what it serves yet; build it with: edda index tiny" in capsys.readouterr().err


def test_an_opened_index_answers_for_the_service(tiny_run: TinyRun, built: Artifact) -> None:
    users = DomainScorers(tiny_run.artifacts)["books"].catalogue.user_ids.to_pylist()
    found = Recommender(tiny_run.artifacts, open_index(built)).for_users("books", users, 3)
    assert found == Recommender(tiny_run.artifacts).for_users("books", users, 3)
