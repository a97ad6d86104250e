from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import dense_reach, pruned_reach, random_domain

import pipeline.reach.vectors
from data_contracts.settings import ComputeSettings, ReachSettings
from data_contracts.store.store import Store
from pipeline.compute.rows import keep_largest_weights
from pipeline.graph import DomainGraph
from pipeline.reach.expected import visits_cost
from pipeline.reach.stage import describe_reach
from pipeline.reach.vectors import Description, against_exact, chosen_method
from pipeline.reach.walk_graph import Terrain

ONE, TWO = ComputeSettings(threads=1), ComputeSettings(threads=2)


def terrain(seed: int = 1, steps=(3, 4)) -> Terrain:
    graph, nodes = random_domain(seed, users=8, items=6, edges=20)
    return Terrain(graph, nodes.is_anchor, steps)


def reach_of(terrain: Terrain, compute=ONE, nodes=None, **options) -> np.ndarray:
    """Reach vectors of all nodes (or some), dense."""
    settings = ReachSettings(**{"method": "exact", "steps": terrain.steps, **options})
    with TemporaryDirectory() as folder:
        description = Description.of(terrain, settings.method, settings, Path(folder), compute)
        return description.rows(np.arange(terrain.graph.nodes) if nodes is None else nodes).toarray()


def path_of_three() -> DomainGraph:
    """User 0 and user 1 share item 2; user 1 also has item 3."""
    return DomainGraph("path", 2, np.array([0, 1, 3, 5, 6]), np.array([2, 2, 3, 0, 1, 1], np.int32))


@pytest.mark.parametrize("steps", [(3, 4), (1,), (4,), (2, 3, 5)])
def test_exact_reach_equals_powers_of_the_transition_matrix(steps):
    place = terrain(steps=steps)
    np.testing.assert_allclose(reach_of(place), dense_reach(place.graph, place.is_anchor, steps), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(0, 25))
def test_exact_reach_equals_the_oracle_on_any_graph(seed, users, items, edges):
    graph, nodes = random_domain(seed, users, items, edges)
    rows = reach_of(Terrain(graph, nodes.is_anchor, (3, 4)))
    np.testing.assert_allclose(rows, dense_reach(graph, nodes.is_anchor, (3, 4)), atol=1e-6)


def test_two_steps_on_a_path_are_the_chances_worked_by_hand():
    place = Terrain(path_of_three(), np.array([True, True, False, False]), (2,))
    # From user 0: item 2, then either user. From user 1: item 2 (½) then either user, or item 3 (½) and back.
    by_hand = [[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(reach_of(place), by_hand)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from(["exact", "pruned"]))
def test_only_the_largest_weights_are_kept_after_the_last_step_or_after_every_step(seed, kept, method):
    graph, nodes = random_domain(seed, users=9, items=8, edges=30)
    place = Terrain(graph, nodes.is_anchor, (3, 4))
    expected, clear = pruned_reach(place, kept, every_step=method == "pruned")
    found = reach_of(place, method=method, anchors_kept=kept)
    np.testing.assert_allclose(found[clear], expected[clear], atol=1e-6)
    assert (np.count_nonzero(found, axis=1) <= kept).all()


def test_equal_weights_are_kept_for_the_smaller_anchors():
    # One user with five items: every weight of two steps is a fifth or a half, exactly.
    star = DomainGraph("star", 1, np.array([0, 5, 6, 7, 8, 9, 10]), np.array([1, 2, 3, 4, 5, 0, 0, 0, 0, 0], np.int32))
    rows = reach_of(Terrain(star, np.array([False] + [True] * 5), (2,)), anchors_kept=2)
    np.testing.assert_allclose(rows[1:], [[0, 0.2, 0.2, 0, 0, 0]] * 5)


def test_walks_end_where_the_expectation_says():
    place, walks = terrain(), 20_000
    found, expected = reach_of(place, method="walk", walks=walks) * walks, reach_of(place) * walks
    assert not found[expected == 0].any()
    # The share of walks that end on each anchor is binomial; one chi-square term per (node, anchor).
    cells = (expected > 5) & (expected < walks)
    terms = (found - expected)[cells] ** 2 / (expected * (1 - expected / walks))[cells]
    assert cells.sum() > 30
    assert 0.6 < terms.mean() < 1.5


def test_the_walks_of_a_node_differ_from_each_other():
    graph, _ = random_domain(1, users=8, items=6, edges=40)
    ends = reach_of(Terrain(graph, np.ones(14, bool), (3, 4)), method="walk", walks=400)[0]
    assert np.count_nonzero(ends) > 6


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_reach_does_not_depend_on_threads_chunks_or_files(method, tmp_path, monkeypatch, tiny_world):
    settings = ReachSettings(method=method, anchors_kept=5)
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    whole = describe_reach(Store(tmp_path / "whole"), settings, parents, ONE)
    monkeypatch.setattr("pipeline.reach.stage._NODES_PER_CHUNK", (3, 3))
    monkeypatch.setattr("pipeline.reach.expected._PARTS_IN_MEMORY", 1 << 22)
    monkeypatch.setattr("pipeline.compute.scratch._SMALL", 0)
    parts = describe_reach(Store(tmp_path / "parts"), settings, parents, TWO)
    assert len(parts.files()) > len(whole.files())
    assert parts.read().equals(whole.read())
    assert parts.statistics == whole.statistics


@pytest.mark.parametrize("method", ["exact", "walk"])
def test_a_node_is_described_alike_whatever_other_nodes_are(method):
    place = terrain()
    together = reach_of(place, method=method)
    np.testing.assert_array_equal(reach_of(place, method=method, nodes=np.array([2, 5])), together[[2, 5]])


def test_another_seed_or_domain_draws_other_walks():
    first = terrain()
    graph = first.graph
    other_name = Terrain(DomainGraph("other", graph.users, graph.indptr, graph.indices), first.is_anchor, first.steps)
    walked = reach_of(first, method="walk")
    assert (walked != reach_of(first, method="walk", seed=1)).any()
    assert (walked != reach_of(other_name, method="walk")).any()


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_isolated_nodes_reach_nothing(method):
    graph = DomainGraph("d", 2, np.array([0, 1, 1, 2, 2]), np.array([2, 0], np.int32))
    rows = reach_of(Terrain(graph, np.ones(4, bool), (3, 4)), method=method)
    assert not rows[[1, 3]].any()
    assert rows[0].any()


@pytest.mark.parametrize("method", ["exact", "pruned", "walk"])
def test_a_domain_without_anchors_or_edges_has_empty_vectors(method):
    graph = DomainGraph("d", 2, np.zeros(4, np.int64), np.empty(0, np.int32))
    rows = reach_of(Terrain(graph, np.zeros(3, bool), (3, 4)), method=method)
    assert rows.shape == (3, 3)
    assert not rows.any()


def test_nodes_that_reach_an_anchor_are_those_with_an_exact_vector():
    for seed in range(5):
        graph, nodes = random_domain(seed, users=9, items=8, edges=14)
        place = Terrain(graph, nodes.is_anchor, (3, 4))
        np.testing.assert_array_equal(place.reaching(), reach_of(place).any(axis=1))


def test_walks_stop_after_the_last_step_that_can_end_on_an_anchor():
    users_only = Terrain(path_of_three(), np.array([True, True, False, False]), (3, 4))
    assert users_only.counting_steps("user").tolist() == [False, False, False, False, True]
    assert users_only.counting_steps("item").tolist() == [False, False, False, True]
    assert Terrain(path_of_three(), np.zeros(4, bool), (3, 4)).counting_steps("user").tolist() == [False]


def test_auto_takes_the_most_accurate_method_that_fits_and_says_why():
    graph, nodes = random_domain(1, users=400, items=300, edges=20_000, world=1000)
    place = Terrain(graph, nodes.is_anchor, (3, 4))
    exact, pruned = visits_cost(place, place.anchors.size), visits_cost(place, 200)
    assert exact.multiply_adds > pruned.multiply_adds
    assert exact.memory_mib > pruned.memory_mib
    for products, memory, method in (
        (exact.multiply_adds, exact.memory_mib, "exact"),
        (exact.multiply_adds - 1, exact.memory_mib, "pruned"),
        (exact.multiply_adds, pruned.memory_mib, "pruned"),
        (exact.multiply_adds, pruned.memory_mib - 1, "walk"),
    ):
        asked = ReachSettings(exact_multiply_adds=products, visits_memory_mib=memory, anchors_kept=200)
        choice = chosen_method(place, asked)
        assert choice.method == method
        assert f"{products / 1e9:g} G" in choice.reason
        assert f"at most {exact.multiply_adds / 1e9:.3g} G" in choice.reason
    assert chosen_method(place, ReachSettings(method="walk")).reason == "asked for"


def test_predicted_cost_is_never_below_the_true_one():
    for seed in range(5):
        graph, nodes = random_domain(seed, users=9, items=8, edges=30)
        place = Terrain(graph, nodes.is_anchor, (3, 4))
        chances = place.adjacency.toarray() / np.maximum(place.graph.degrees, 1)[:, None]
        visits, multiply_adds = np.diag(place.is_anchor).astype(float), 0
        for step in (3, 2, 1, 0):
            multiply_adds += np.count_nonzero(visits, axis=1)[place.graph.indices].sum()
            visits = chances @ visits + (np.diag(place.is_anchor) if step == 3 else 0)
        assert visits_cost(place, place.anchors.size).multiply_adds >= multiply_adds


@pytest.mark.parametrize("size", [3, 5])
def test_a_stage_that_is_killed_continues_whatever_the_size_of_its_chunks(tmp_path, monkeypatch, tiny_world, size):
    settings = ReachSettings(method="walk", compared_nodes=0)
    parents = {name: tiny_world.parents[name] for name in ("nodes", "graph")}
    monkeypatch.setattr("pipeline.reach.stage._NODES_PER_CHUNK", (3, 3))
    whole = describe_reach(Store(tmp_path / "whole"), settings, parents, ONE)
    described, told = pipeline.reach.vectors.Description.rows, []

    def dies_at_the_eighth(self, nodes):
        told.append((self.domain, nodes[0]))
        if len(told) == 8:
            raise KeyboardInterrupt
        return described(self, nodes)

    monkeypatch.setattr("pipeline.reach.vectors.Description.rows", dies_at_the_eighth)
    store = Store(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        describe_reach(store, settings, parents, ONE)
    monkeypatch.setattr("pipeline.reach.stage._NODES_PER_CHUNK", (size, size))
    again = describe_reach(store, settings, parents, ONE)
    assert again.read().equals(whole.read())
    if size == 3:  # the finished chunks are kept
        assert len(told) == len(set(told)) + 1 > 10


def test_the_manifest_says_how_far_vectors_and_walks_are_from_exact_ones():
    place = terrain()
    found = {}
    for walks in (10, 10_000):
        settings = ReachSettings(method="exact", walks=walks)
        with TemporaryDirectory() as folder:
            description = Description.of(place, "exact", settings, Path(folder), ONE)
            found[walks] = against_exact(description, place)
    assert found[10]["mean_cosine"] == 1.0
    assert found[10]["mean_cosine_of_walks"] < found[10_000]["mean_cosine_of_walks"]
    assert found[10_000]["mean_cosine_of_walks"] > 0.999


def test_walked_rows_keep_their_largest_weights_and_ties_go_to_the_smaller_anchor():
    rows = sp.csr_array(np.array([[0.1, 0.4, 0.2, 0.2], [0.3, 0, 0, 0]], np.float32))
    kept = keep_largest_weights(rows, 2).toarray()
    np.testing.assert_allclose(kept, [[0, 0.4, 0.2, 0], [0.3, 0, 0, 0]])
