import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import brute_pairs, dense_reach, random_domain

from data_contracts.settings import ComputeSettings, PairsSettings
from pipeline.join import DenseJoin, Groups, SparseJoin, nearest_nodes
from pipeline.nodes import DomainNodes
from pipeline.pairs import Alignment, Side, shared_anchors, shared_rows, unit_rows

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)
NONE_SKIPPED = np.full(4, -1, np.int32)


def side(seed: int, users: int, items: int, edges: int) -> Side:
    graph, nodes = random_domain(seed, users, items, edges)
    return Side.of(nodes, sp.csr_array(dense_reach(graph, nodes.is_anchor, (3, 4)).astype(np.float32)))


def vectors(of: Side) -> np.ndarray:
    return of.rows[of.row_of].toarray()


def align(source: Side, target: Side, compute=ONE, **options):
    return Alignment(*shared_rows(source, target), PairsSettings(**options)).pairs(compute)


def nearest_rows(queries, targets, skip, k, compute):
    return nearest_nodes(Groups.of(queries), Groups.of(targets), skip, k, compute)


def rows_of(table) -> list[tuple]:
    columns = ("source_node", "target_node", "kind", "similarity", "rank")
    return [tuple(row[name] for name in columns) for row in table.to_pylist()]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 8), st.integers(1, 8), st.integers(0, 24), st.integers(1, 4))
def test_pairs_equal_the_comparison_of_every_two_nodes(seed, users, items, edges, k):
    source, target = side(seed, users, items, edges), side(seed + 1, items, users, edges)
    table, _ = align(source, target, k=k)
    expected = brute_pairs((source.nodes, vectors(source)), (target.nodes, vectors(target)), k)
    found = rows_of(table)
    assert [(s, r) for s, _, _, _, r in found] == [(s, r) for s, _, _, _, r in expected]
    np.testing.assert_allclose([row[3] for row in found], [row[3] for row in expected], atol=2e-6)
    clear = _without_near_ties(expected)
    assert [row[:3] for i, row in enumerate(found) if clear[i]] == [
        row[:3] for i, row in enumerate(expected) if clear[i]
    ]


def _without_near_ties(rows: list[tuple]) -> list[bool]:
    """Whether float rounding cannot have swapped or cut the row: nothing of the same source is as similar."""
    similar = np.array([row[3] for row in rows])
    last = {row[0]: i for i, row in enumerate(rows)}
    near = [
        any(j != i and rows[j][0] == rows[i][0] and abs(similar[i] - similar[j]) < 1e-5 for j in range(len(rows)))
        for i in range(len(rows))
    ]
    return [not tie and i != last[rows[i][0]] for i, tie in enumerate(near)]


def test_equal_similarity_is_decided_by_the_smaller_node():
    queries = sp.csr_array(np.array([[1, 0]], np.float32))
    targets = sp.csr_array(np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0], [1, 0]], np.float32))
    partners = nearest_rows(queries, targets, NONE_SKIPPED[:1], 3, ONE)
    assert partners.targets.tolist() == [[1, 3, 4]]


def test_ties_between_different_rows_interleave_by_node():
    queries = sp.csr_array(np.array([[1, 0, 0]], np.float32))
    tied = [[0.6, 0.8, 0], [0.6, 0, 0.8], [0.6, 0.8, 0], [0.6, 0, 0.8]]
    partners = nearest_rows(queries, sp.csr_array(np.array(tied, np.float32)), NONE_SKIPPED[:1], 3, ONE)
    assert partners.targets.tolist() == [[0, 1, 2]]


def test_the_skipped_row_is_left_out_and_the_next_takes_its_place():
    rows = sp.csr_array(np.array([[1, 0], [0.8, 0.6]], np.float32))
    partners = nearest_rows(rows, rows, np.array([0, 1], np.int32), 1, ONE)
    assert partners.targets.tolist() == [[1], [0]]


def test_rows_without_a_common_column_are_never_partners():
    queries = sp.csr_array(np.array([[1, 0], [0, 0]], np.float32))
    targets = sp.csr_array(np.array([[0, 1], [0, 0]], np.float32))
    assert nearest_rows(queries, targets, NONE_SKIPPED[:2], 3, ONE).sizes.tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.floats(0.05, 1.0))
def test_dense_and_sparse_joins_agree_to_the_bit(seed, n, m, columns, fill):
    draw = np.random.default_rng(seed)
    queries, targets = (_unit(draw, size, columns, fill) for size in (n, m))
    sparse, dense = (kind.of(queries, targets, 3)(range(n)) for kind in (SparseJoin, DenseJoin))
    for a, b in zip(sparse, dense, strict=True):
        np.testing.assert_array_equal(a, b)


def _unit(draw: np.random.Generator, rows: int, columns: int, fill: float) -> sp.csr_array:
    # Few distinct weights, so that equal rows and equal similarities occur.
    values = draw.integers(1, 3, (rows, columns)) * (draw.random((rows, columns)) < fill)
    return unit_rows(sp.csr_array(values.astype(np.float32)), np.arange(columns, dtype=np.int32))


def test_pairs_do_not_depend_on_threads_or_chunks(monkeypatch):
    source, target = side(3, 8, 9, 30), side(4, 9, 8, 30)
    expected, _ = align(source, target)
    monkeypatch.setattr("pipeline.join._SPARSE_ROWS", 2)
    monkeypatch.setattr("pipeline.join._DENSE_ROWS", 2)
    found, _ = align(source, target, TWO)
    assert found.equals(expected)


def test_equal_rows_share_a_group_and_zero_rows_have_none():
    rows = sp.csr_array(np.array([[0, 1], [0, 0], [1, 0], [0, 1]], np.float32))
    groups = Groups.of(rows)
    assert groups.group_of.tolist() == [0, -1, 1, 0]
    assert [part.tolist() for part in groups.members()] == [[0, 2, 3], [0, 3, 2]]
    np.testing.assert_array_equal(groups.rows.toarray(), [[0, 1], [1, 0]])


def test_shared_anchors_are_anchors_of_one_kind_and_entity_in_both_domains():
    left = DomainNodes("a", 2, np.array([3, 5, 3, 7], np.int32), np.array([True, True, True, True]))
    right = DomainNodes("b", 1, np.array([5, 3, 7], np.int32), np.array([True, False, True]))
    assert [nodes.tolist() for nodes in shared_anchors(left, right)] == [[1, 3], [0, 2]]


def test_unit_rows_have_length_one_over_the_chosen_anchors_only():
    reach = sp.csr_array(np.array([[3, 4, 9], [0, 0, 2], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(unit_rows(reach, np.array([0, 1], np.int32)).toarray(), [[0.6, 0.8], [0, 0], [0, 0]])


@pytest.mark.parametrize("identity", [True, False])
def test_identity_pairs_are_added_where_asked_and_counted(identity):
    source, target = side(3, 8, 9, 30), side(4, 9, 8, 30)
    table, report = align(source, target, identity=identity)
    assert (sum(row["identity_pairs"] for row in report) > 0) == identity
    assert table["identity"].to_pylist().count(True) == sum(row["identity_pairs"] for row in report)


def test_coverage_counts_nodes_that_reach_no_shared_anchor():
    source, target = side(3, 8, 9, 12), side(4, 9, 8, 12)
    _, report = align(source, target)
    anchors, _ = shared_anchors(source.nodes, target.nodes)
    for row in report:
        reach = vectors(source)[source.nodes.of_kind(row["kind"])][:, anchors]
        assert row["nodes_with_shared_reach"] == np.count_nonzero(reach.any(axis=1))
        assert row["nodes"] == reach.shape[0]
