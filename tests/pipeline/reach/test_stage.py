from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import dense_reach, pruned_reach, random_domain

import pipeline.reach.vectors
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import ReachSettings
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays
from pipeline.compute.rows import keep_largest_weights
from pipeline.graph import DomainGraph
from pipeline.reach.expected import bound_cost
from pipeline.reach.stage import compute_reach
from pipeline.reach.vectors import ReachComputation, choose_method, compare_with_exact
from pipeline.reach.walk_graph import WalkGraph

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)


def random_walk_graph(seed: int = 1, steps=(3, 4)) -> WalkGraph:
    graph, nodes = random_domain(seed, users=8, items=6, edges=20)
    return WalkGraph(graph, nodes.is_anchor, steps)


def reach_of(walk_graph: WalkGraph, compute=ONE, nodes=None, **options) -> np.ndarray:
    """Reach vectors of all nodes (or some), dense."""
    settings = ReachSettings(**{"method": "exact", "steps": walk_graph.steps, **options})
    with TemporaryDirectory() as folder:
        computation = ReachComputation.build(walk_graph, settings.method, settings, DiskArrays(Path(folder)), compute)
        return computation.rows(np.arange(walk_graph.graph.nodes) if nodes is None else nodes).toarray()


def path_of_three() -> DomainGraph:
    """User 0 and user 1 share item 2; user 1 also has item 3."""
    return DomainGraph("path", 2, np.array([0, 1, 3, 5, 6]), np.array([2, 2, 3, 0, 1, 1], np.int32))


@pytest.mark.parametrize("steps", [(3, 4), (1,), (4,), (2, 3, 5)])
def test_exact_reach_equals_powers_of_the_transition_matrix(steps):
    walk_graph = random_walk_graph(steps=steps)
    np.testing.assert_allclose(
        reach_of(walk_graph), dense_reach(walk_graph.graph, walk_graph.is_anchor, steps), atol=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(0, 25))
def test_exact_reach_equals_the_oracle_on_any_graph(seed, users, items, edges):
    graph, nodes = random_domain(seed, users, items, edges)
    rows = reach_of(WalkGraph(graph, nodes.is_anchor, (3, 4)))
    np.testing.assert_allclose(rows, dense_reach(graph, nodes.is_anchor, (3, 4)), atol=1e-6)


def test_two_steps_on_a_path_are_the_chances_worked_by_hand():
    walk_graph = WalkGraph(path_of_three(), np.array([True, True, False, False]), (2,))
    # From user 0: item 2, then either user. From user 1: item 2 (½) then either user, or item 3 (½) and back.
    by_hand = [[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(reach_of(walk_graph), by_hand)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["exact", "pruned"]))
def test_only_the_largest_weights_are_kept_after_the_last_step_or_after_every_step(seed, kept, method):
    graph, nodes = random_domain(seed, users=9, items=8, edges=30)
    walk_graph = WalkGraph(graph, nodes.is_anchor, (3, 4))
    expected, clear = pruned_reach(walk_graph, kept, every_step=method == "pruned")
    found = reach_of(walk_graph, method=method, anchors_kept=kept)
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-6)
    assert (np.count_nonzero(found, axis=1) <= kept).all()


def test_equal_weights_are_kept_for_the_smaller_anchors():
    # One user with five items: every weight of two steps is a fifth or a half, exactly.
    star = DomainGraph("star", 1, np.array([0, 5, 6, 7, 8, 9, 10]), np.array([1, 2, 3, 4, 5, 0, 0, 0, 0, 0], np.int32))
    rows = reach_of(WalkGraph(star, np.array([False] + [True] * 5), (2,)), anchors_kept=2)
    np.testing.assert_allclose(rows[1:], [[0, 0.2, 0.2, 0, 0, 0]] * 5)


def test_walks_end_where_the_expectation_says():
    walk_graph, walks = random_walk_graph(), 20_000
    found, expected = reach_of(walk_graph, method="walk", walks=walks) * walks, reach_of(walk_graph) * walks
    assert not found[expected == 0].any()
    # The share of walks that end on each anchor is binomial; one chi-square term per (node, anchor).
    cells = (expected > 5) & (expected < walks)
    terms = (found - expected)[cells] ** 2 / (expected * (1 - expected / walks))[cells]
    assert cells.sum() > 30
    assert 0.6 < terms.mean() < 1.5


def test_the_walks_of_a_node_differ_from_each_other():
    graph, _ = random_domain(1, users=8, items=6, edges=40)
    ends = reach_of(WalkGraph(graph, np.ones(14, bool), (3, 4)), method="walk", walks=400)[0]
    assert np.count_nonzero(ends) > 6


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_reach_does_not_depend_on_threads_chunks_or_files(method, tmp_path, monkeypatch, tiny_world):
    settings = ReachSettings(method=method, anchors_kept=5)
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    whole = compute_reach(Store(tmp_path / "whole"), settings, parents, ONE)
    monkeypatch.setattr("pipeline.reach.vectors._NODES_PER_CHUNK", (3, 3))
    monkeypatch.setattr("pipeline.reach.expected._BLOCKS_IN_MEMORY", 1 << 22)
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    parts = compute_reach(Store(tmp_path / "parts"), settings, parents, TWO)
    assert len(parts.files()) > len(whole.files())
    assert parts.read().equals(whole.read())
    assert parts.statistics == whole.statistics


@pytest.mark.parametrize("method", ["exact", "walk"])
def test_a_node_is_described_alike_whatever_other_nodes_are(method):
    walk_graph = random_walk_graph()
    together = reach_of(walk_graph, method=method)
    np.testing.assert_array_equal(reach_of(walk_graph, method=method, nodes=np.array([2, 5])), together[[2, 5]])


def test_another_seed_or_domain_draws_other_walks():
    first = random_walk_graph()
    graph = first.graph
    other_name = WalkGraph(DomainGraph("other", graph.users, graph.indptr, graph.indices), first.is_anchor, first.steps)
    walked = reach_of(first, method="walk")
    assert (walked != reach_of(first, method="walk", seed=1)).any()
    assert (walked != reach_of(other_name, method="walk")).any()


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_isolated_nodes_reach_nothing(method):
    graph = DomainGraph("d", 2, np.array([0, 1, 1, 2, 2]), np.array([2, 0], np.int32))
    rows = reach_of(WalkGraph(graph, np.ones(4, bool), (3, 4)), method=method)
    assert not rows[[1, 3]].any()
    assert rows[0].any()


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_a_domain_without_anchors_or_edges_has_empty_vectors(method):
    graph = DomainGraph("d", 2, np.zeros(4, np.int64), np.empty(0, np.int32))
    rows = reach_of(WalkGraph(graph, np.zeros(3, bool), (3, 4)), method=method)
    assert rows.shape == (3, 3)
    assert not rows.any()


def test_nodes_that_reach_an_anchor_are_those_with_an_exact_vector():
    for seed in range(5):
        graph, nodes = random_domain(seed, users=9, items=8, edges=14)
        walk_graph = WalkGraph(graph, nodes.is_anchor, (3, 4))
        np.testing.assert_array_equal(walk_graph.reaches_anchor(), reach_of(walk_graph).any(axis=1))


def test_walks_stop_after_the_last_step_that_can_end_on_an_anchor():
    users_only = WalkGraph(path_of_three(), np.array([True, True, False, False]), (3, 4))
    assert users_only.counted_steps("user").tolist() == [False, False, False, False, True]
    assert users_only.counted_steps("item").tolist() == [False, False, False, True]
    assert WalkGraph(path_of_three(), np.zeros(4, bool), (3, 4)).counted_steps("user").tolist() == [False]


def test_auto_takes_the_most_accurate_method_that_fits_and_says_why():
    graph, nodes = random_domain(1, users=400, items=300, edges=20_000, world=1000)
    walk_graph = WalkGraph(graph, nodes.is_anchor, (3, 4))
    exact, pruned = bound_cost(walk_graph, walk_graph.anchors.size), bound_cost(walk_graph, 200)
    assert exact.multiply_adds > pruned.multiply_adds
    assert exact.memory_mib > pruned.memory_mib
    for products, memory, method in (
        (exact.multiply_adds, exact.memory_mib, "exact"),
        (exact.multiply_adds - 1, exact.memory_mib, "pruned"),
        (exact.multiply_adds, pruned.memory_mib, "pruned"),
        (exact.multiply_adds, pruned.memory_mib - 1, "walk"),
    ):
        asked = ReachSettings(exact_multiply_adds=products, visits_memory_mib=memory, anchors_kept=200)
        choice = choose_method(walk_graph, asked)
        assert choice.method == method
        assert f"{products / 1e9:g} G" in choice.reason
        assert f"at most {exact.multiply_adds / 1e9:.3g} G" in choice.reason
    assert choose_method(walk_graph, ReachSettings(method="walk")).reason == "asked for"


def test_predicted_cost_is_never_below_the_true_one():
    for seed in range(5):
        graph, nodes = random_domain(seed, users=9, items=8, edges=30)
        walk_graph = WalkGraph(graph, nodes.is_anchor, (3, 4))
        chances = walk_graph.adjacency.toarray() / np.maximum(walk_graph.graph.degrees, 1)[:, None]
        visits, multiply_adds = np.diag(walk_graph.is_anchor).astype(float), 0
        for step in (3, 2, 1, 0):
            multiply_adds += np.count_nonzero(visits, axis=1)[walk_graph.graph.indices].sum()
            visits = chances @ visits + (np.diag(walk_graph.is_anchor) if step == 3 else 0)
        assert bound_cost(walk_graph, walk_graph.anchors.size).multiply_adds >= multiply_adds


@pytest.mark.parametrize("size", [3, 5])
def test_a_stage_that_is_killed_continues_whatever_the_size_of_its_chunks(tmp_path, monkeypatch, tiny_world, size):
    settings = ReachSettings(method="walk", compared_nodes=0)
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    monkeypatch.setattr("pipeline.reach.vectors._NODES_PER_CHUNK", (3, 3))
    whole = compute_reach(Store(tmp_path / "whole"), settings, parents, ONE)
    described, told = pipeline.reach.vectors.ReachComputation.rows, []

    def dies_at_the_eighth(self, nodes):
        told.append((self.domain, nodes[0]))
        if len(told) == 8:
            raise KeyboardInterrupt
        return described(self, nodes)

    monkeypatch.setattr("pipeline.reach.vectors.ReachComputation.rows", dies_at_the_eighth)
    store = Store(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        compute_reach(store, settings, parents, ONE)
    monkeypatch.setattr("pipeline.reach.vectors._NODES_PER_CHUNK", (size, size))
    again = compute_reach(store, settings, parents, ONE)
    assert again.read().equals(whole.read())
    if size == 3:  # the finished chunks are kept
        assert len(told) == len(set(told)) + 1 > 10


def test_the_manifest_says_how_far_vectors_and_walks_are_from_exact_ones():
    walk_graph = random_walk_graph()
    found = {}
    for walks in (10, 10_000):
        settings = ReachSettings(method="exact", walks=walks)
        with TemporaryDirectory() as folder:
            computation = ReachComputation.build(walk_graph, "exact", settings, DiskArrays(Path(folder)), ONE)
            found[walks] = compare_with_exact(computation, walk_graph)
    assert found[10]["mean_cosine"] == 1.0
    assert found[10]["mean_cosine_of_walks"] < found[10_000]["mean_cosine_of_walks"]
    assert found[10_000]["mean_cosine_of_walks"] > 0.999


def test_walked_rows_keep_their_largest_weights_and_ties_go_to_the_smaller_anchor():
    rows = sp.csr_array(np.array([[0.1, 0.4, 0.2, 0.2], [0.3, 0, 0, 0]], np.float32))
    kept = keep_largest_weights(rows, 2).toarray()
    np.testing.assert_allclose(kept, [[0, 0.4, 0.2, 0], [0.3, 0, 0, 0]])
