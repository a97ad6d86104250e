"""Kernels of the top-k join compared with dense products and sorting."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import pipeline.pairs.join
from data_contracts.settings.preparation import PairsSettings
from pipeline.compute.array_folder import DiskArrays
from pipeline.pairs.join import Join, TopK, count_products, join_chunk
from pipeline.pairs.join_kernels import (
    expand_groups,
    insert_candidate,
    join_candidates,
    join_dense,
    join_sparse,
    merge_top_k,
)


def _unit(seed: int, rows: int, columns: int, fill: float = 0.4) -> np.ndarray:
    """Few distinct weights, so that equal similarities occur; some rows are zero."""
    random = np.random.default_rng(seed)
    values = random.integers(1, 3, (rows, columns)) * (random.random((rows, columns)) < fill)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros(values.shape), where=norms > 0).astype(np.float32)


def _csr(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = sp.csr_array(dense)
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Summed column by column in float64, at most 1, rounded to float32."""
    sums = np.zeros((len(left), len(right)))
    for column in range(left.shape[1]):
        sums += np.outer(left[:, column].astype(float), right[:, column].astype(float))
    return np.minimum(sums, 1.0).astype(np.float32)


def _best(similarities: np.ndarray, k: int, first: int = 0) -> list[list[tuple[int, float]]]:
    """The k largest positive similarities of each row, equal ones by column."""
    return [
        [(first + int(j), float(row[j])) for j in np.argsort(-row, kind="stable")[:k] if row[j] > 0]
        for row in similarities
    ]


def _lists(best: tuple[np.ndarray, np.ndarray]) -> list[list[tuple[int, float]]]:
    return [
        [(int(i), float(s)) for i, s in zip(ids, similarities, strict=True) if s > 0]
        for ids, similarities in zip(*best, strict=True)
    ]


def test_a_candidate_goes_behind_all_that_are_as_similar():
    ids, similarities = np.array([4, 7, 9], np.int32), np.array([0.9, 0.5, 0.2], np.float32)
    insert_candidate(np.float32(0.5), 11, ids, similarities)
    assert (ids.tolist(), similarities.tolist()) == ([4, 7, 11], [np.float32(0.9), 0.5, 0.5])
    insert_candidate(np.float32(1.0), 3, ids, similarities)
    assert (ids.tolist(), similarities.tolist()) == ([3, 4, 7], [1.0, np.float32(0.9), 0.5])


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("way", ["sparse", "dense"])
def test_a_join_of_some_queries_is_the_sorting_of_all_products(way, k):
    left, right = _unit(1, 30, 9), _unit(2, 150, 9)
    first, count = 5, 20
    rows, columns = TopK.build_empty(count, k), TopK.build_empty(150, k)
    if way == "sparse":
        for start, stop in ((0, 70), (70, 150)):
            block = tuple(array[start:stop] for array in columns)
            sums = np.zeros(stop - start)
            join_sparse(_csr(left), _csr(right[start:stop].T), first, start, sums, tuple(rows), block)
            assert not sums.any()
    else:
        for part in (slice(0, 8), slice(8, count)):  # the lists of the right rows grow from call to call
            queries = left[first : first + count][part]
            error = np.random.default_rng(3).uniform(-1e-5, 1e-5, (len(queries), 150)).astype(np.float32)
            best = tuple(array[part] for array in rows)
            products = queries @ right.T + error
            join_dense(products, queries, _csr(right), 2e-5, first + part.start, best, tuple(columns))
    similarities = _products(left[first : first + count], right)
    assert _lists(rows) == _best(similarities, k)
    assert _lists(columns) == _best(similarities.T, k, first)


def test_similarities_are_at_most_1():
    row = np.full((1, 3), 0.5773503, np.float32)  # its square is a little more than 1
    rows, columns = TopK.build_empty(1, 1), TopK.build_empty(1, 1)
    assert (row.astype(float) ** 2).sum() > 1
    join_sparse(_csr(row), _csr(row.T), 0, 0, np.zeros(1), tuple(rows), tuple(columns))
    assert (rows.similarities.item(), columns.similarities.item()) == (1.0, 1.0)
    rows = TopK.build_empty(1, 1)
    scratch = np.zeros(1, np.int32), np.zeros(1, np.float32)
    join_candidates(_csr(row), _csr(row.T), _csr(row), 0, 100, (np.zeros(1), np.zeros(3)), scratch, tuple(rows))
    assert rows.similarities.item() == 1.0


def _leading_columns(row: np.ndarray, lengths: np.ndarray, most_products: int) -> list[int]:
    """Columns by squared weight over the root of their length, until their products reach the most."""
    columns = np.flatnonzero(row)
    order = sorted(columns, key=lambda column: -(float(row[column]) ** 2) / np.sqrt(lengths[column] + 1))
    taken: list[int] = []
    while order and lengths[taken].sum() < most_products:
        taken.append(order.pop(0))
    return taken


@pytest.mark.parametrize("candidates", [1, 3, 60])
@pytest.mark.parametrize("most_products", [0, 1, 25, 60, 10_000])
def test_candidates_have_the_largest_products_over_the_leading_columns(most_products, candidates):
    left, right = _unit(4, 20, 12, 0.5), _unit(5, 50, 12, 0.5)
    first, count, k = 3, 15, 4
    sums, query = np.zeros(50), np.zeros(12)
    rows = TopK.build_empty(count, k)
    scratch = np.zeros(candidates, np.int32), np.zeros(candidates, np.float32)
    join_candidates(_csr(left), _csr(right.T), _csr(right), first, most_products, (sums, query), scratch, tuple(rows))
    assert not sums.any()
    assert not query.any()
    exact, lengths = _products(left, right), (right > 0).sum(axis=0)
    for i in range(count):
        row = left[first + i]
        columns = _leading_columns(row, lengths, most_products)
        rough = np.zeros(50)
        touched: list[int] = []
        for column in columns:
            touched += [target for target in np.flatnonzero(right[:, column]) if target not in touched]
            rough += float(row[column]) * right[:, column].astype(float)
        rough = rough.astype(np.float32)
        chosen = np.array(sorted(touched, key=lambda target: -rough[target])[:candidates], int)
        similarities = np.zeros(50, np.float32)
        similarities[chosen] = exact[first + i][chosen]
        assert _lists((rows.ids[i : i + 1], rows.similarities[i : i + 1])) == _best(similarities[None], k)


def test_merged_lists_prefer_the_earlier_of_equal_similarities():
    best = np.array([[1, 2], [0, 0]], np.int32), np.array([[0.5, 0.25], [0.0, 0.0]], np.float32)
    further = np.array([[8, 9], [7, 0]], np.int32), np.array([[0.5, 0.25], [0.125, 0.0]], np.float32)
    merge_top_k(further, best)
    assert _lists(best) == [[(1, 0.5), (8, 0.5)], [(7, 0.125)]]


def test_groups_become_their_nodes_without_the_skipped_one_and_ties_in_ascending_order():
    """Groups 0, 1 and 2 hold nodes 0 3 6, 1 4 and 2 5; the lists have k + 1 groups."""
    indptr, nodes = np.array([0, 3, 5, 7]), np.array([0, 3, 6, 1, 4, 2, 5], np.int32)
    best = (
        np.array([[1, 2, 0], [0, 0, 0], [2, 0, 1]], np.int32),
        np.array([[0.5, 0.5, 0.25], [0.75, 0.0, 0.0], [1.0, 0.5, 0.25]], np.float32),
    )
    out = TopK.build_empty(6, 2)
    group_of, skip = np.array([0, -1, 1, 0, 2, 2], np.int32), np.array([1, -1, 0, -1, 2, -1], np.int32)
    expand_groups(group_of, best, (indptr, nodes), skip, tuple(out))
    assert _lists(out) == [
        [(2, 0.5), (4, 0.5)], [], [(3, 0.75), (6, 0.75)], [(1, 0.5), (2, 0.5)], [(5, 1.0), (0, 0.5)],
        [(2, 1.0), (5, 1.0)],
    ]  # fmt: skip


SETTINGS = PairsSettings(k=3, most_products=10**12, candidates=5, products_per_row=20)


def _joined(folder: Path, left: np.ndarray, right: np.ndarray, settings: PairsSettings) -> Join:
    join = Join.build(DiskArrays(folder), sp.csr_array(left), sp.csr_array(right), settings)
    for chunk in join.chunks():
        join_chunk(chunk)
    return join


@pytest.mark.parametrize("costs", [(0.0, 1.0), (1.0, 0.0)])
def test_a_stored_join_in_many_chunks_and_blocks_is_the_sorting_of_all_products(tmp_path, monkeypatch, costs):
    for name, value in {"_ROWS_PER_CHUNK": 7, "_ROWS_PER_BLOCK": 3, "_TARGETS_AT_ONCE": 40}.items():
        monkeypatch.setattr(pipeline.pairs.join, name, value)
    monkeypatch.setattr(pipeline.pairs.join, "_SCATTER_COST", costs[0])
    monkeypatch.setattr(pipeline.pairs.join, "_MULTIPLY_COST", costs[1])
    left, right = _unit(6, 30, 9), _unit(7, 90, 9)
    join = _joined(tmp_path / "join", left, right, SETTINGS)
    assert len(join.chunks()) == 5
    rows, columns = join.best()
    assert _lists(rows) == _best(_products(left, right), 4)
    assert _lists(columns) == _best(_products(right, left), 4)


def test_the_cheaper_method_is_chosen_by_its_cost_and_the_dense_one_only_where_it_fits(tmp_path, monkeypatch):
    chosen: list[str] = []
    for name in ("_join_blocks", "_join_postings"):
        monkeypatch.setattr(pipeline.pairs.join, name, lambda *_, name=name: chosen.append(name))
    left = np.eye(4, dtype=np.float32)  # 4 rows, 4 columns, 4 scattered additions; 64 multiplied ones
    for name, multiply, largest in (("a", 0.99, 64), ("b", 1.01, 64), ("c", 0.99, 63)):
        monkeypatch.setattr(pipeline.pairs.join, "_MULTIPLY_COST", multiply)
        monkeypatch.setattr(pipeline.pairs.join, "_SCATTER_COST", 16.0)
        monkeypatch.setattr(pipeline.pairs.join, "_DENSE_BYTES", largest)
        _joined(tmp_path / name, left, left, SETTINGS)
    assert chosen == ["_join_blocks", "_join_postings", "_join_postings"]


def test_candidates_are_joined_once_for_each_side_where_exact_products_would_be_too_many(tmp_path):
    left, right = _unit(8, 20, 6), _unit(9, 30, 6)
    products = int(((left > 0).sum(axis=0) * (right > 0).sum(axis=0)).sum())
    assert count_products(sp.csr_array(left), sp.csr_array(right)) == products
    exact = _joined(tmp_path / "exact", left, right, _settings(most_products=products))
    rough = _joined(tmp_path / "rough", left, right, _settings(most_products=products - 1))
    assert (exact.candidates, rough.candidates) == (0, 5)
    assert ([chunk.side for chunk in exact.chunks()], [chunk.side for chunk in rough.chunks()]) == ([0], [0, 1])
    complete = _settings(most_products=0, candidates=50, products_per_row=10**6)
    complete_join = _joined(tmp_path / "complete", left, right, complete)
    for best, expected in zip(complete_join.best(), exact.best(), strict=True):
        assert _lists(best) == _lists(expected)


def _settings(**changes: int) -> PairsSettings:
    return PairsSettings(**(SETTINGS.model_dump() | changes))


def test_largest_products_are_those_of_each_row_with_the_other_side(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.pairs.join, "_CHECKED_AT_ONCE", 2)
    left, right = _unit(10, 12, 6), _unit(11, 9, 6)
    join = _joined(tmp_path / "join", left, right, SETTINGS)
    rows = np.array([7, 1, 3, 0, 8])
    assert join.largest_products(0, rows) == pytest.approx((left[rows] @ right.T).max(axis=1), abs=1e-6)
    assert join.largest_products(1, rows) == pytest.approx((right[rows] @ left.T).max(axis=1), abs=1e-6)
    assert join.largest_products(0, rows[:0]).tolist() == []


def test_a_chunk_that_is_finished_is_not_joined_again(tmp_path, monkeypatch):
    left, right = _unit(6, 10, 9), _unit(7, 10, 9)
    join = _joined(tmp_path / "join", left, right, SETTINGS)
    monkeypatch.setattr(pipeline.pairs.join, "_join_exactly", lambda chunk: pytest.fail("joined again"))
    for chunk in join.chunks():
        join_chunk(chunk)
