"""Weights of item-to-item models: against dense formulas, one regression per item, and scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from oracle_pipeline import cosine_weights, cut_rows, ease_weights, rp3beta_weights
from pydantic import ValidationError
from sklearn.linear_model import ElasticNet
from tiny_world import Tiny

from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import neighbours_file
from data_contracts.store.store import Store
from pipeline.neighbours.ease import invert_in_place, predict_ease_bytes
from pipeline.neighbours.stage import build_neighbours, item_neighbours

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)
MODELS = ["cosine", "rp3beta", "ease", "slim"]
OTHER_PARAMETERS = {
    "walks": {"rp3beta": {"alpha": 1.0}, "ease": {"l2": 9.0}, "slim": {"l1": 9.0}},
    "cosine": {"alpha": 1.0, "beta": 1.0, "power": 2.0, "rp3beta": {"alpha": 1.0}, "ease": {"l2": 9.0}},
    "rp3beta": {"alpha": 1.0, "beta": 1.0, "power": 2.0, "shrink": 9.0, "ease": {"l2": 9.0}},
    "ease": {"alpha": 1.0, "shrink": 9.0, "walks": 9, "seed": 9, "slim": {"l2": 9.0}},
    "slim": {"alpha": 1.0, "shrink": 9.0, "method": "walk", "ease": {"l2": 9.0}},
}  # fmt: skip
"""Settings that the chosen weights do not read."""


def likes(seed: int, users: int = 50, items: int = 30, share: float = 0.15) -> sp.csr_array:
    return sp.csr_array((np.random.default_rng(seed).random((users, items)) < share).astype(float))


def weights_of(matrix: sp.csr_array, compute: ComputeSettings = ONE, **settings: Any) -> np.ndarray:
    return item_neighbours(matrix, NeighboursSettings(**settings), compute).toarray()


def elastic_nets(matrix: sp.csr_array, l1: float, l2: float) -> np.ndarray:
    """Scikit-learn's, whose squared errors are a mean over users."""
    x = matrix.toarray()
    weights = np.zeros((x.shape[1], x.shape[1]))
    for item in range(x.shape[1]):
        others = x.copy()
        others[:, item] = 0.0
        model = ElasticNet(
            alpha=(l1 + l2) / len(x), l1_ratio=l1 / (l1 + l2), positive=True, fit_intercept=False, tol=1e-10,
            max_iter=100_000,
        )  # fmt: skip
        weights[:, item] = model.fit(others, x[:, item]).coef_
    return weights


def make(
    world: Tiny,
    store: Store | None = None,
    compute: ComputeSettings = ONE,
    progress: Progress = silent,
    **settings: Any,
) -> Artifact:
    parents = {role: world.parents[role] for role in ("nodes", "graph")}
    return build_neighbours(store or world.store, NeighboursSettings(**settings), parents, compute, progress)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few items, as on large graphs."""
    monkeypatch.setattr("pipeline.neighbours.ease._BLOCK", 7)
    monkeypatch.setattr("pipeline.neighbours.slim._ENTRIES_PER_BLOCK", 40)
    monkeypatch.setattr("pipeline.neighbours.common_users._ENTRIES_PER_BLOCK", 40)


def test_two_users_by_hand() -> None:
    # u has a, b; v has a, c: users of a 2, of b and c 1; each user has two items.
    matrix = sp.csr_array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    np.testing.assert_allclose(weights_of(matrix, weights="cosine", shrink=1.0)[0], [0, *[1 / (2**0.5 + 1)] * 2])
    rp3beta = weights_of(matrix, weights="rp3beta", rp3beta={"alpha": 1.0, "beta": 1.0})
    np.testing.assert_allclose(rp3beta, [[0, 1 / 4, 1 / 4], [1 / 4, 0, 0], [1 / 4, 0, 0]])
    # Each of b and c on a alone: 1 / (2 + 2); a on b and c, which have no user in common: 1 / (1 + 2) each.
    fitted = [[0, 1 / 4, 1 / 4], [1 / 3, 0, 0], [1 / 3, 0, 0]]
    np.testing.assert_allclose(weights_of(matrix, weights="slim", slim={"l1": 0.0, "l2": 2.0}), fitted, rtol=1e-4)
    slim = weights_of(matrix, weights="slim", slim={"l1": 0.5, "l2": 2.0})
    np.testing.assert_allclose(slim, np.array([[0, 1 / 8, 1 / 8], [1 / 6, 0, 0], [1 / 6, 0, 0]]), rtol=1e-4)
    # a on b and c as above; b on a and c: (2 + 2) w_a + w_c = 1, w_a + (1 + 2) w_c = 0.
    ease = weights_of(matrix, weights="ease", ease={"l2": 2.0})
    np.testing.assert_allclose(ease, [[0, 3 / 11, 3 / 11], [1 / 3, 0, 0], [1 / 3, 0, 0]], rtol=1e-6)


@tried(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 20), st.floats(0, 2), st.floats(0, 2))
def test_sums_over_users_equal_dense_formulas(seed: int, shrink: float, alpha: float, beta: float) -> None:
    matrix = likes(seed, 12, 10)
    cosine = weights_of(matrix, weights="cosine", shrink=shrink)
    np.testing.assert_allclose(cosine, cosine_weights(matrix, shrink), rtol=1e-5)
    rp3beta = weights_of(matrix, weights="rp3beta", rp3beta={"alpha": alpha, "beta": beta})
    np.testing.assert_allclose(rp3beta, rp3beta_weights(matrix, alpha, beta), rtol=1e-5)


@pytest.mark.parametrize("l2", [0.5, 100.0])
def test_ease_is_the_positive_part_of_every_items_ridge_regression(small_blocks, l2: float) -> None:
    matrix = likes(3)
    expected = ease_weights(matrix, l2)
    assert expected.min() < 0
    found = weights_of(matrix, weights="ease", ease={"l2": l2})
    np.testing.assert_allclose(found, np.maximum(expected, 0.0), rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize(("l1", "l2"), [(0.5, 5.0), (2.0, 0.1), (1e-9, 1.0)])
def test_slim_is_every_items_elastic_net_without_negative_weights(small_blocks, l1: float, l2: float) -> None:
    matrix = likes(4)
    expected = elastic_nets(matrix, l1, l2)
    np.testing.assert_allclose(weights_of(matrix, weights="slim", slim={"l1": l1, "l2": l2}), expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 6, 7, 20])
def test_a_matrix_is_inverted_in_half_its_place(small_blocks, size: int) -> None:
    square = np.random.default_rng(size).random((size, size + 3))
    matrix = square @ square.T + np.eye(size)
    lower = [matrix[start : start + 7, : min(start + 7, size)].astype(np.float32) for start in range(0, size, 7)]
    invert_in_place(lower, 2)
    for start, block in zip(range(0, size, 7), lower, strict=True):
        expected = -np.linalg.inv(matrix)[start : start + 7, : min(start + 7, size)]
        np.testing.assert_allclose(block, expected, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_the_largest_weights_of_an_item_are_kept(small_blocks, model: str) -> None:
    whole = weights_of(likes(5), weights=model)
    np.testing.assert_array_equal(weights_of(likes(5), weights=model, top=3), cut_rows(whole, 3))


@pytest.mark.parametrize("model", MODELS)
def test_items_without_users_have_no_weights(model: str) -> None:
    matrix = likes(6, 20, 9).tolil()
    matrix[:, 4] = 0.0
    found = weights_of(matrix.tocsr(), weights=model)
    assert not found[4].any()
    assert not found[:, 4].any()
    assert not weights_of(sp.csr_array((3, 2)), weights=model).any()


@pytest.mark.parametrize("scope", ["union", "domain"])
@pytest.mark.parametrize("model", MODELS)
def test_artifacts_do_not_depend_on_threads_or_memory(
    tiny_world: Tiny, tmp_path: Path, small_blocks, monkeypatch, model: str, scope: str
) -> None:
    whole = make(tiny_world, Store(tmp_path / "whole"), ONE, weights=model, scope=scope)
    assert whole.verify(list(tiny_world.parents.values())) == []
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    monkeypatch.setattr("pipeline.neighbours.chunks._ENTRIES_PER_CHUNK", 40)
    chunks = make(tiny_world, Store(tmp_path / "chunks"), TWO, weights=model, scope=scope)
    assert chunks.read().equals(whole.read())
    assert (chunks.key, chunks.statistics) == (whole.key, whole.statistics)
    assert whole.manifest.settings["scope"] == scope


def test_a_fit_is_kept_where_chunks_are_interrupted(tiny_world: Tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    store, whole = Store(tmp_path / "again"), make(tiny_world, weights="ease")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.neighbours.chunks.NeighbourComputation.rows", lambda *_: {}["interrupted"])
        with pytest.raises(KeyError, match="interrupted"):
            make(tiny_world, store, weights="ease")
    monkeypatch.setattr("pipeline.neighbours.chunks.fit_rows", lambda *_: pytest.fail("fitted again"))
    assert make(tiny_world, store, weights="ease").read().equals(whole.read())


@pytest.mark.parametrize(("model", "unit"), [("ease", "blocks of "), ("slim", "pairs of items")])
def test_a_fit_reports_its_progress_from_nothing_to_all(
    tiny_world: Tiny, tmp_path: Path, small_blocks, model: str, unit: str
) -> None:
    reports: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, counted: str, note: str = "") -> None:
        if counted.startswith(unit):
            reports.append((done, total, note))

    make(tiny_world, Store(tmp_path / "watched"), weights=model, progress=progress)
    done = [done for done, *_ in reports]
    assert len(done) > 2
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, reports[0][1])
    assert {report[1:] for report in reports} == {(done[-1], f"{model.upper()} of all domains")}


def test_workers_of_a_cluster_read_what_was_fitted(tiny_world: Tiny, tmp_path: Path, cluster) -> None:
    on_cluster = ComputeSettings(dask_scheduler=cluster.scheduler_address)
    found = make(tiny_world, Store(tmp_path / "cluster"), on_cluster, weights="slim", scope="domain")
    assert found.read().equals(make(tiny_world, weights="slim", scope="domain").read())


@pytest.mark.parametrize(
    ("model", "scope", "message"),
    [
        ("ease", "union", r"neighbours of all domains: EASE of .* items takes up to [\d,]+ MiB of memory, allowed are "
         r'64; raise compute.memory_mib, set neighbours.scope = "domain", or set neighbours.weights = "walks"'),
        ("slim", "domain", r"neighbours of books: SLIM of .* have fewer items, or"),
    ],
)  # fmt: skip
def test_a_fit_that_takes_too_much_memory_is_refused_before_it_begins(
    tiny_world: Tiny, monkeypatch, model: str, scope: str, message: str
) -> None:
    monkeypatch.setattr("pipeline.neighbours.fitted.predict_ease_bytes", lambda *_: 65 << 20)
    monkeypatch.setattr("pipeline.neighbours.fitted.predict_slim_bytes", lambda *_: 65 << 20)
    monkeypatch.setattr("pipeline.neighbours.chunks.fit_rows", lambda *_: pytest.fail("it began"))
    with pytest.raises(ValueError, match=message):
        make(tiny_world, compute=ComputeSettings(threads=1, memory_mib=64), weights=model, scope=scope)


def test_the_memory_of_ease_is_that_of_half_a_matrix_and_the_rows() -> None:
    assert predict_ease_bytes(20_000, 500, 2) == pytest.approx(4 * 20_000**2 / 2 + 16 * 20_000 * 500, rel=0.3)
    assert predict_ease_bytes(0, 500, 2) == 0


@pytest.mark.parametrize("model", ["walks", *MODELS])
def test_only_what_the_chosen_weights_read_enters_the_key(model: str) -> None:
    plain = NeighboursSettings(weights=model)
    assert NeighboursSettings(weights=model, **OTHER_PARAMETERS[model]).keyed() == plain.keyed()
    changed = {"walks": {"power": 2.0}, "cosine": {"shrink": 9.0}}.get(model, {model: {"beta": 0.1}})
    if model in {"ease", "slim"}:
        changed = {model: {"l2": 9.0}}
    assert NeighboursSettings(weights=model, **changed).keyed() != plain.keyed()


def test_walks_have_the_keys_that_they_always_had() -> None:
    assert NeighboursSettings().keyed() == {
        "alpha": 0.2, "beta": 0.5, "shrink": 5.0, "power": 1.4, "top": 500, "scope": "union", "method": "auto",
        "exact_multiply_adds": 100_000_000_000, "walks": 300_000, "seed": 2022, "compared_items": 200,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"ease": {"l2": 0.0}}, {"slim": {"l1": -1.0}}, {"slim": {"l2": -1.0}}, {"rp3beta": {"beta": -0.1}}]
)
def test_parameters_have_limits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NeighboursSettings(**wrong)


def test_the_tensors_of_a_fit_are_its_rows(tiny_world: Tiny) -> None:
    from safetensors.numpy import load_file

    artifact = make(tiny_world, weights="slim")
    rows = artifact.read().to_pylist()
    tensors = load_file(artifact.path / neighbours_file(""))
    assert tensors["neighbours"].tolist() == [item for row in rows for item in row["neighbours"]]


def test_settings_with_tables_can_be_pickled() -> None:
    asked = NeighboursSettings(weights="slim", slim={"l1": 2.0})
    assert pickle.loads(pickle.dumps(asked)) == asked
