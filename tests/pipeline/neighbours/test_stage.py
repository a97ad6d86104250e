"""Neighbours: weights of three-step walks between items, against sums by hand and by SciPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from oracle_pipeline import cut_rows, item_products
from safetensors.numpy import load_file
from tiny_world import Tiny, build, random_log

import pipeline.neighbours.chunks
from data_contracts.contracts import ITEM, TRAIN
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import neighbours_file
from data_contracts.store.store import Store
from pipeline.graph import DomainGraph, build_edges
from pipeline.neighbours.item_weights import ItemWeights
from pipeline.neighbours.sampled import choose_method
from pipeline.neighbours.stage import build_neighbours, item_neighbours

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)
COUNTS = {"alpha": 0.0, "beta": 0.0, "shrink": 0.0, "power": 1.0}
UNPOWERED = {"alpha": 0.4, "beta": 0.3, "shrink": 2.0, "power": 1.0}
"""Weights that are sums over users, which estimates are right about on average."""
DEFAULTS = NeighboursSettings().model_dump(include={"alpha", "beta", "shrink", "power"})
"""Weights are numbers of users of both items, which sums in any order give to the bit."""


def made(world: Tiny, compute: ComputeSettings = ONE, store: Store | None = None, **settings: Any) -> Artifact:
    parents = {role: world.parents[role] for role in ("nodes", "graph")}
    return build_neighbours(store or world.store, NeighboursSettings(**settings), parents, compute)


def rows_of(artifact: Artifact) -> dict[tuple[str, int], dict[int, float]]:
    return {
        (row["domain"], row["item"]): dict(zip(row["neighbours"], row["weights"], strict=True))
        for row in artifact.read().to_pylist()
    }


def dense(artifact: Artifact, shape: tuple[int, int], domain: str = "") -> np.ndarray:
    rows = np.zeros(shape, np.float32)
    for (of_row, item), row in rows_of(artifact).items():
        if of_row == domain:
            rows[item, list(row)] = list(row.values())
    return rows


def train_matrix(world: Tiny, *domains: str) -> sp.csr_array:
    """Distinct train pairs of some domains, of all by default, [users, items] by numbers over all."""
    rows = world.parents["interactions"].read(["domain", "user", "item", "split"]).to_pylist()
    shape = [1 + max(row[kind] for row in rows) for kind in ("user", "item")]
    wanted = [row for row in rows if row["split"] == TRAIN and (not domains or row["domain"] in domains)]
    users, items = np.array(sorted({(row["user"], row["item"]) for row in wanted})).reshape(-1, 2).T
    return sp.csr_array((np.ones(users.size), (users, items)), shape=shape)


def random_matrix(seed: int, users: int, items: int, edges: int) -> sp.csr_array:
    draw = np.random.default_rng(seed)
    ends = draw.integers(0, users, edges), draw.integers(0, items, edges)
    matrix = sp.coo_array((np.ones(edges), ends), shape=(users, items)).tocsr()
    matrix.data[:] = draw.choice([-2.0, 0.5, 1.0], matrix.nnz)
    return matrix


def files_of(artifact: Artifact) -> list[tuple[str, str]]:
    return [(entry.path, entry.sha256) for entry in artifact.manifest.files]


def test_weights_are_sums_over_the_users_of_both_items(store: Store) -> None:
    log = {"books": [("u", "a", "train"), ("u", "b", "train"), ("v", "a", "train"), ("v", "c", "valid")],
           "films": [("u", "a", "train"), ("v", "b", "train"), ("v", "d", "train"), ("w", "e", "train")]}  # fmt: skip
    # Degrees over both domains: u 2, though it met a in both, v 3, w 1; a 2, b 2, d 1, e 1.
    half = {user: degree**-0.5 for user, degree in {"u": 2, "v": 3}.items()}
    rows = rows_of(made(build(store, log), alpha=0.5, beta=1.0, shrink=2.0, power=2.0))
    both, one = ((half["u"] + half["v"]) / (4 + 2)) ** 2, (half["v"] / (2 + 2)) ** 2
    assert rows == {
        ("", 0): pytest.approx({1: both, 3: one}),
        ("", 1): pytest.approx({0: both, 3: one}),
        ("", 3): pytest.approx({0: one, 1: one}),
        ("", 4): {},
    }


def test_the_union_ties_items_of_different_domains_as_scipys_product_does(tiny_world: Tiny) -> None:
    expected = item_products(train_matrix(tiny_world), **DEFAULTS)
    np.testing.assert_allclose(dense(made(tiny_world), expected.shape), expected, rtol=1e-6)


@pytest.mark.parametrize("domain", ["books", "films", "games"])
def test_a_domains_own_rows_know_no_other_domain(tiny_world: Tiny, domain: str) -> None:
    expected = item_products(train_matrix(tiny_world, domain), **DEFAULTS)
    found = dense(made(tiny_world, scope="domain"), expected.shape, domain)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@tried(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30)), st.floats(0, 2),
    st.floats(0, 2), st.floats(0, 20), st.floats(0.5, 2),
)  # fmt: skip
def test_weights_equal_scipys_on_any_matrix(seed, sizes, alpha, beta, shrink, power) -> None:
    matrix = random_matrix(seed, *sizes)
    items, shape = sizes[1], {"alpha": alpha, "beta": beta, "shrink": shrink, "power": power}
    found = item_neighbours(matrix, NeighboursSettings(**shape), ONE)
    assert (found.dtype, found.shape) == (np.float32, (items, items))
    np.testing.assert_allclose(found.toarray(), item_products(matrix, **shape), rtol=1e-5)


@tried(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 100), st.integers(0, 300), st.integers(1, 12))
def test_the_largest_weights_are_kept_and_of_equal_ones_those_of_smaller_items(seed, users, items, edges, top) -> None:
    matrix = random_matrix(seed, users, items, edges)
    found = item_neighbours(matrix, NeighboursSettings(top=top, **COUNTS), ONE)
    np.testing.assert_array_equal(found.toarray(), cut_rows(item_products(matrix, 0.0, 0.0), top))
    assert found.has_sorted_indices


@pytest.mark.parametrize(("power", "large"), [(0.5, 1e50), (1.0, 1e50), (1.4, 1e35), (4.0, 1e12)])
def test_weights_below_the_smallest_float_are_left_out(power: float, large: float) -> None:
    asked = NeighboursSettings(power=power, shrink=0)
    products = ItemWeights.from_graph(DomainGraph.from_matrix("", build_edges(sp.csr_array(np.ones((2, 4))))), asked)
    norms = products.norms * [1.0, large, 1e10, large]
    faint = replace(products, row_norms=norms, norms=norms)
    rows = faint.rows(np.arange(4))
    assert (rows.weights > 0).all()
    assert np.split(rows.indices, rows.indptr[1:-1])[0].tolist() == [2]
    assert np.diff(rows.indptr).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("scope", ["union", "domain"])
def test_the_tensors_are_the_rows_of_the_table(tiny_world: Tiny, scope: str) -> None:
    artifact = made(tiny_world, scope=scope, top=7)
    table = rows_of(artifact)
    names = {"union": [""], "domain": ["books", "films", "games"]}[scope]
    assert {domain for domain, _ in table} == set(names)
    nodes = tiny_world.parents["nodes"].read(["kind", "entity"]).to_pylist()
    for domain in names:
        tensors = load_file(artifact.path / neighbours_file(domain))
        assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {
            "indptr": "int64", "neighbours": "int32", "weights": "float32",
        }  # fmt: skip
        indptr = tensors["indptr"]
        assert indptr.size - 1 == 1 + max(row["entity"] for row in nodes if row["kind"] == ITEM)
        for item in range(indptr.size - 1):
            entries = slice(indptr[item], indptr[item + 1])
            pairs = zip(tensors["neighbours"][entries].tolist(), tensors["weights"][entries].tolist(), strict=True)
            assert dict(pairs) == table.get((domain, item), {})


@pytest.mark.parametrize("scope", ["union", "domain"])
def test_every_promise_of_the_contract_is_kept(tiny_world: Tiny, scope: str) -> None:
    assert made(tiny_world, scope=scope).verify(list(tiny_world.parents.values())) == []


def test_items_that_are_trained_on_have_a_row_and_others_have_none(store: Store) -> None:
    log = {"books": [("u", "a", "train"), ("u", "b", "valid")], "empty": [("v", "a", "test")],
           "films": [("w", "c", "train"), ("w", "a", "test")]}  # fmt: skip
    world = build(store, log)
    assert rows_of(made(world)) == {("", 0): {}, ("", 2): {}}
    by_domain = made(world, scope="domain")
    assert rows_of(by_domain) == {("books", 0): {}, ("films", 2): {}}
    assert load_file(by_domain.path / neighbours_file("empty"))["indptr"].tolist() == [0, 0, 0, 0]
    assert by_domain.statistics["graphs"]["empty"]["items"] == 0


def test_a_domain_may_have_any_name(store: Store) -> None:
    log = {name: [("u", "a", "train"), ("u", "b", "train")] for name in ("union", "a/b", "é=%")}
    artifact = made(build(store, log), scope="domain")
    assert {domain for domain, _ in rows_of(artifact)} == set(log)
    for name in log:
        assert load_file(artifact.path / neighbours_file(name))["neighbours"].tolist() == [1, 0]


@pytest.fixture
def by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few items, their graphs in files, as on large graphs."""
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    monkeypatch.setattr("pipeline.neighbours.chunks._ENTRIES_PER_CHUNK", 40)


@pytest.mark.parametrize("scope", ["union", "domain"])
@pytest.mark.parametrize("method", ["exact", "walk"])
def test_rows_do_not_depend_on_threads_or_chunks(tiny_world: Tiny, tmp_path: Path, by_chunks, scope, method) -> None:
    asked = {"scope": scope, "method": method, "walks": 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.undo()
        patch.setattr("pipeline.neighbours.chunks._ENTRIES_PER_CHUNK", 1 << 20)
        whole = made(tiny_world, ONE, Store(tmp_path / "whole"), **asked)
    parts = made(tiny_world, TWO, Store(tmp_path / "parts"), **asked)
    assert len(parts.files()) > len(whole.files())
    assert parts.read().equals(whole.read())
    tensors = [[entry for entry in files_of(of) if entry[0].startswith("rows/")] for of in (whole, parts)]
    assert tensors[0] == tensors[1]
    assert whole.statistics == parts.statistics


def test_workers_of_a_cluster_make_the_same_files(tiny_world: Tiny, tmp_path: Path, monkeypatch, cluster) -> None:
    for small in (0, 1000):
        monkeypatch.setattr("pipeline.compute.array_folder._SMALL", small)
        on_cluster = ComputeSettings(dask_scheduler=cluster.scheduler_address)
        asked = {"scope": "domain", "method": "walk", "walks": 60}
        found = made(tiny_world, on_cluster, Store(tmp_path / f"cluster{small}"), **asked)
        assert files_of(found) == files_of(made(tiny_world, TWO, Store(tmp_path / f"local{small}"), **asked))


def ends_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the stage end when it has worked on so many chunks; the sizes of those that it works on from now."""
    sizes: list[int] = []
    rows = pipeline.neighbours.chunks.NeighbourComputation.rows

    def counted(walked: Any, places: range) -> Any:
        if len(sizes) == chunks:
            raise KeyboardInterrupt
        sizes.append(len(places))
        return rows(walked, places)

    monkeypatch.setattr("pipeline.neighbours.chunks.NeighbourComputation.rows", counted)
    return sizes


@pytest.mark.parametrize("entries", [40, 90])
def test_an_interrupted_attempt_goes_on_whatever_the_size_of_chunks(
    tiny_world: Tiny, tmp_path: Path, by_chunks, monkeypatch, entries: int
) -> None:
    whole = made(tiny_world, ONE, Store(tmp_path / "whole"))
    store, chunks = Store(tmp_path / "again"), len(whole.files())
    with monkeypatch.context() as patch:
        ends_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            made(tiny_world, ONE, store)
    monkeypatch.setattr("pipeline.neighbours.chunks._ENTRIES_PER_CHUNK", entries)
    worked_on = ends_after(-1, monkeypatch)
    again = made(tiny_world, ONE, store)
    assert again.read().equals(whole.read())
    if entries == 40:
        assert len(worked_on) == chunks - 3
        assert files_of(again) == files_of(whole)


def test_progress_counts_items(tiny_world: Tiny, by_chunks) -> None:
    seen: list[tuple[int, int, str]] = []
    parents = {role: tiny_world.parents[role] for role in ("nodes", "graph")}
    artifact = build_neighbours(
        tiny_world.store,
        NeighboursSettings(),
        parents,
        ONE,
        lambda done, total, unit, note="": seen.append((done, total, unit)),
    )
    assert seen[0] == (0, artifact.manifest.rows, "items")
    assert seen[-1] == (artifact.manifest.rows, artifact.manifest.rows, "items")
    assert len(seen) == 1 + len(artifact.files())


def histories(seed: int = 1) -> sp.csr_array:
    """60 users, some of whom have most of the 80 items."""
    draw = np.random.default_rng(seed)
    liked = draw.random((60, 80)) < np.sort(draw.random(60) ** 3)[:, None] * np.linspace(0.2, 1.0, 80)
    return sp.csr_array(liked.astype(float))


def walked(matrix: sp.csr_array, walks: int, seed: int = 0, **options: Any) -> np.ndarray:
    return item_neighbours(matrix, NeighboursSettings(method="walk", walks=walks, seed=seed, **options), ONE).toarray()


def test_walks_are_exact_where_they_are_as_many_as_there_are(tiny_world: Tiny) -> None:
    matrix = histories()
    paths = int((matrix.T @ matrix.sum(axis=1)).max())
    exact = item_neighbours(matrix, NeighboursSettings(method="exact"), ONE).toarray()
    np.testing.assert_array_equal(walked(matrix, paths), exact)
    assert (walked(matrix, paths - 1) != exact).any()


@pytest.mark.parametrize("walks", [1, 7, 150])
def test_estimates_of_all_weights_together_are_right_on_average(walks: int) -> None:
    matrix = histories()
    sums = np.array([walked(matrix, walks, seed, **UNPOWERED).sum(dtype=np.float64) for seed in range(400)])
    z = (sums.mean() - item_products(matrix, **UNPOWERED).sum()) / (sums.std(ddof=1) / 20)
    assert abs(z) < 4


def test_the_estimate_of_each_weight_is_right_on_average() -> None:
    matrix = histories()
    exact = item_products(matrix, **UNPOWERED)
    draws = np.array([walked(matrix, 150, seed, **UNPOWERED) for seed in range(400)], np.float64)
    error, spread = draws.mean(axis=0) - exact, draws.std(axis=0, ddof=1) / 20
    is_estimated = spread > 1e-9
    z = error[is_estimated] / spread[is_estimated]
    assert np.abs(error[~is_estimated]).max() < 1e-6
    assert z.size > 1000
    assert (abs(z.mean()) < 0.2, 0.8 < z.std() < 1.2) == (True, True)


def test_estimates_come_closer_with_more_walks() -> None:
    matrix = histories()
    exact = item_products(matrix, **UNPOWERED)
    errors = [np.abs(walked(matrix, walks, **UNPOWERED) - exact).sum() / exact.sum() for walks in (30, 120, 480, 1500)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_an_estimate_depends_on_seed_and_domain_and_on_no_other_domain(store: Store) -> None:
    log = random_log(1, {"books": (30, 20, 400), "films": (30, 20, 400)})
    asked = {"scope": "domain", "method": "walk", "walks": 30}
    both = rows_of(made(build(store, log), **asked))
    alone = rows_of(made(build(store, {"books": log["books"]}), **asked))
    assert [sorted(row.values()) for (domain, _), row in both.items() if domain == "books"] == [
        sorted(row.values()) for row in alone.values()
    ]
    assert both != rows_of(made(build(store, log), seed=1, **asked))


def test_exact_is_chosen_where_its_predicted_cost_is_allowed() -> None:
    paths = np.array([3, 0, 4_000_000_000])
    allowed = NeighboursSettings(exact_multiply_adds=4_000_000_003)
    assert choose_method(paths, allowed).method == "exact"
    choice = choose_method(paths, NeighboursSettings(exact_multiply_adds=4_000_000_002))
    assert choice.method == "walk"
    assert choice.reason == "exact takes 4 G multiply-adds; allowed are 4 G"
    assert choose_method(paths, NeighboursSettings(method="walk")).reason == "asked for"


def test_the_manifest_tells_the_method_its_cost_and_how_far_estimates_are_off(tiny_world: Tiny) -> None:
    exact = made(tiny_world).statistics["graphs"]["union"]
    assert exact["method"] == "exact"
    assert exact["against_exact"] == {"estimated_items": 0, "items": 0}
    assert exact["items_with_neighbours"] <= exact["items"]
    asked = {"exact_multiply_adds": 0, "compared_items": 5}
    few, many = (made(tiny_world, walks=walks, **asked).statistics["graphs"]["union"] for walks in (20, 40))
    assert few["method"] == many["method"] == "walk"
    assert few["against_exact"]["items"] == 5
    assert few["against_exact"]["estimated_items"] > many["against_exact"]["estimated_items"]
    assert few["against_exact"]["relative_error"] > many["against_exact"]["relative_error"]
    assert 0 < few["against_exact"]["overlap_at_20"] <= 1
