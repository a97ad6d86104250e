import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import dense_reach, random_domain

from data_contracts.settings import ComputeSettings, ReachSettings
from pipeline.graph import DomainGraph
from pipeline.ragged import coalesced, keep_largest_weights
from pipeline.reach import Walker

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)


def walker(seed: int = 1, **options) -> Walker:
    graph, nodes = random_domain(seed, users=8, items=6, edges=20)
    return Walker(graph, nodes.is_anchor, ReachSettings(**options))


def path_of_three() -> DomainGraph:
    """User 0 and user 1 share item 2; user 1 also has item 3."""
    return DomainGraph("path", 2, np.array([0, 1, 3, 5, 6]), np.array([2, 2, 3, 0, 1, 1], np.int32))


def whole(rows) -> np.ndarray:
    return sp.csr_array(sp.vstack(list(rows))).toarray()


@pytest.mark.parametrize("steps", [(3, 4), (1,), (4,), (2, 3, 5)])
def test_exact_reach_equals_powers_of_the_transition_matrix(steps):
    exact = walker(steps=steps)
    expected = dense_reach(exact.graph, exact.is_anchor, steps)
    np.testing.assert_allclose(whole(exact.rows(ONE)), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(0, 25))
def test_exact_reach_equals_the_oracle_on_any_graph(seed, users, items, edges):
    graph, nodes = random_domain(seed, users, items, edges)
    rows = whole(Walker(graph, nodes.is_anchor, ReachSettings()).rows(ONE))
    np.testing.assert_allclose(rows, dense_reach(graph, nodes.is_anchor, (3, 4)), atol=1e-6)


def test_two_steps_on_a_path_are_the_chances_worked_by_hand():
    exact = Walker(path_of_three(), np.array([True, True, False, False]), ReachSettings(steps=(2,)))
    # From user 0: item 2, then either user. From user 1: item 2 (½) then either user, or item 3 (½) and back.
    by_hand = [[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(whole(exact.rows(ONE)), by_hand)


def test_walks_end_where_the_expectation_says():
    walks = 20_000
    sampled, exact = walker(method="walk", walks=walks), walker()
    found, expected = whole(sampled.rows(ONE)) * walks, whole(exact.rows(ONE)) * walks
    assert not found[expected == 0].any()
    # The share of walks that end on each anchor is binomial; one chi-square term per (node, anchor).
    cells = (expected > 5) & (expected < walks)
    terms = (found - expected)[cells] ** 2 / (expected * (1 - expected / walks))[cells]
    assert cells.sum() > 30
    assert 0.6 < terms.mean() < 1.5


def test_the_walks_of_a_node_differ_from_each_other():
    graph, _ = random_domain(1, users=8, items=6, edges=40)
    ends = Walker(graph, np.ones(14, bool), ReachSettings(method="walk", walks=400)).walk(np.array([0])).toarray()
    assert np.count_nonzero(ends) > 6


@pytest.mark.parametrize("method", ["exact", "walk"])
def test_reach_does_not_depend_on_threads_or_chunks(method, monkeypatch):
    one = walker(method=method)
    expected = whole(one.rows(ONE))
    monkeypatch.setattr("pipeline.reach._ROWS_PER_CHUNK", (3, 3))
    np.testing.assert_array_equal(whole(one.rows(TWO)), expected)


def test_walks_do_not_depend_on_which_other_nodes_are_walked():
    sampled = walker(method="walk")
    together = sampled.walk(np.arange(sampled.graph.nodes)).toarray()
    np.testing.assert_array_equal(sampled.walk(np.array([5])).toarray()[0], together[5])


def test_another_seed_or_domain_draws_other_walks():
    first = walker(method="walk")
    other_seed = Walker(first.graph, first.is_anchor, ReachSettings(method="walk", seed=1))
    other_name = DomainGraph("other", first.graph.users, first.graph.indptr, first.graph.indices)
    nodes = np.arange(first.graph.nodes)
    assert (first.walk(nodes) != other_seed.walk(nodes)).nnz
    assert (first.walk(nodes) != Walker(other_name, first.is_anchor, first.settings).walk(nodes)).nnz


@pytest.mark.parametrize("method", ["exact", "walk"])
def test_isolated_nodes_reach_nothing(method):
    graph = DomainGraph("d", 2, np.array([0, 1, 1, 2, 2]), np.array([2, 0], np.int32))
    rows = whole(Walker(graph, np.ones(4, bool), ReachSettings(method=method)).rows(ONE))
    assert not rows[[1, 3]].any()
    assert rows[0].any()


@pytest.mark.parametrize("method", ["exact", "walk"])
def test_a_domain_without_anchors_or_edges_has_empty_vectors(method):
    graph = DomainGraph("d", 2, np.zeros(4, np.int64), np.empty(0, np.int32))
    rows = whole(Walker(graph, np.zeros(3, bool), ReachSettings(method=method)).rows(ONE))
    assert rows.shape == (3, 3)
    assert not rows.any()


def test_comparison_approaches_one_with_more_walks():
    few = walker(walks=10).compare()["mean_cosine"]
    many = walker(walks=10_000).compare()["mean_cosine"]
    assert few < many
    assert many > 0.999


def test_only_the_largest_weights_are_kept_and_ties_go_to_the_smaller_anchor():
    rows = sp.csr_array(np.array([[0.1, 0.4, 0.2, 0.2], [0.3, 0, 0, 0]], np.float32))
    kept = keep_largest_weights(rows, 2).toarray()
    np.testing.assert_allclose(kept, [[0, 0.4, 0.2, 0], [0.3, 0, 0, 0]])


def test_coalescing_keeps_every_row_in_order():
    chunks = [sp.csr_array(np.full((2, 3), float(i), np.float32)) for i in range(1, 6)]
    blocks = list(coalesced(iter(chunks), entries=10))
    assert [block.shape[0] for block in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(whole(blocks), whole(chunks))
