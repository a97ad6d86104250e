import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import random_domain, transitions

from pipeline.graph import DomainGraph
from pipeline.reach.walk_kernels import walk_counts

WALKS = 500


def random_graph(seed: int = 1) -> DomainGraph:
    return random_domain(seed, users=8, items=6, edges=20)[0]


def walkable(graph: DomainGraph) -> np.ndarray:
    return np.flatnonzero(graph.degrees > 0).astype(np.int32)


def ends(graph: DomainGraph, sources: np.ndarray, **options) -> np.ndarray:
    """Counts as a dense matrix [sources, nodes]."""
    is_anchor = options.get("is_anchor", np.ones(graph.nodes, bool))
    counts_step = np.array(options.get("counts_step", [False, False, False, True, True]))
    walks, seed = options.get("walks", WALKS), np.uint64(options.get("seed", 7))
    rows = np.zeros(sources.size + 1, np.int64)
    anchors, counts = np.empty((2, sources.size * walks * counts_step.size), np.int32)
    graph_and_rules = graph.indptr, graph.indices, is_anchor, counts_step
    walk_counts(*graph_and_rules, sources, walks, seed, rows, anchors, counts)
    dense = np.zeros((sources.size, graph.nodes), np.int64)
    for row in range(sources.size):
        own = slice(rows[row], rows[row + 1])
        assert (np.diff(anchors[own]) > 0).all()
        dense[row, anchors[own]] = counts[own]
    return dense


def chances(graph: DomainGraph, steps: int) -> np.ndarray:
    return np.linalg.matrix_power(transitions(graph).toarray().astype(np.float64), steps)


def chi_square_per_cell(found: np.ndarray, chance: np.ndarray, draws: int) -> float:
    """Mean over cells of squared deviation over binomial variance; 1 is expected."""
    cells = (chance * draws > 5) & (chance < 1)
    assert cells.sum() > 30
    return float(np.mean((found - draws * chance)[cells] ** 2 / (draws * chance * (1 - chance))[cells]))


@pytest.mark.parametrize("seed", [0, 1, 2**63])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_end_points_follow_the_powers_of_the_transition_matrix(seed, steps):
    graph = random_graph()
    sources, counts_step = walkable(graph), np.arange(steps + 1) == steps
    found = ends(graph, sources, walks=20_000, counts_step=counts_step, seed=seed)
    chance = chances(graph, steps)[sources]
    assert not found[chance == 0].any()
    assert 0.6 < chi_square_per_cell(found, chance, 20_000) < 1.5


def test_walks_of_different_seeds_are_independent():
    graph, seeds = random_graph(), 200
    sources, counts_step = walkable(graph), np.arange(5) == 4
    found = sum(ends(graph, sources, walks=50, counts_step=counts_step, seed=seed) for seed in range(seeds))
    assert 0.6 < chi_square_per_cell(found, chances(graph, 4)[sources], 50 * seeds) < 1.5


def test_walks_of_different_sources_are_independent():
    # 3,000 users of the same two items: each is a source of its own, all have the same chances.
    users = 3_000
    indices = np.concatenate([np.tile([users, users + 1], users), np.arange(users), np.arange(users)])
    indptr = np.concatenate([np.arange(users + 1) * 2, [3 * users, 4 * users]])
    graph = DomainGraph("twins", users, indptr, indices.astype(np.int32))
    first = ends(graph, np.arange(users, dtype=np.int32), walks=25, counts_step=[False, True])[:, users]
    assert abs(first.mean() - 12.5) < 0.2
    assert abs(first.var() - 25 / 4) < 0.6
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.08


def test_consecutive_steps_of_a_walk_are_independent():
    # A complete bipartite graph of 2 and 2: where step 1 went says nothing about where step 2 goes.
    graph = DomainGraph("square", 2, np.arange(5) * 2, np.array([2, 3, 2, 3, 0, 1, 0, 1], np.int32))
    counts = [ends(graph, np.array([0], np.int32), walks=w, counts_step=[False, True, True])[0] for w in range(400)]
    went = np.diff(np.array(counts), axis=0)  # walk w alone: one item and one user
    assert (went.sum(axis=1) == 2).all()
    assert abs(np.corrcoef(went[:, 1], went[:, 3])[0, 1]) < 0.15


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_a_source_has_the_same_ends_in_any_company_and_order(seed, data):
    graph = random_graph(seed)
    sources = walkable(graph)
    together = ends(graph, sources, walks=37)
    order = data.draw(st.permutations(range(sources.size)))
    cut = data.draw(st.integers(0, sources.size))
    for part in (order[:cut], order[cut:]):
        np.testing.assert_array_equal(ends(graph, sources[part], walks=37), together[part])


def test_the_first_walks_are_the_same_however_many_follow():
    graph = random_graph()
    few, many = (ends(graph, walkable(graph), walks=walks) for walks in (40, 300))
    assert (few <= many).all()


def test_integer_width_of_the_row_starts_changes_nothing():
    graph = random_graph()
    narrow = DomainGraph(graph.domain, graph.users, graph.indptr.astype(np.int32), graph.indices)
    np.testing.assert_array_equal(ends(narrow, walkable(graph)), ends(graph, walkable(graph)))


def test_counts_of_two_lengths_are_the_sum_of_each_alone():
    graph = random_graph()
    third, fourth = (ends(graph, walkable(graph), counts_step=np.arange(5) == step) for step in (3, 4))
    np.testing.assert_array_equal(ends(graph, walkable(graph)), third + fourth)


def test_no_step_is_taken_after_the_last_that_counts():
    # Node 1's neighbours would lie a tebibyte beyond the array: a second step could not be read.
    cliff = DomainGraph("d", 1, np.array([0, 1, 2**40]), np.array([1], np.int32))
    found = ends(cliff, np.array([0], np.int32), counts_step=[False, True, False, False])
    assert found.tolist() == [[0, WALKS]]


def test_nothing_counts_where_no_step_does():
    assert not ends(random_graph(), walkable(random_graph()), counts_step=[False, False, False]).any()


def test_only_anchors_count():
    graph = random_graph()
    is_anchor = np.arange(graph.nodes) % 3 == 0
    every = ends(graph, walkable(graph))
    np.testing.assert_array_equal(ends(graph, walkable(graph), is_anchor=is_anchor), every * is_anchor)


def test_every_walk_of_a_path_ends_where_it_must():
    path = DomainGraph("path", 1, np.array([0, 1, 2]), np.array([1, 0], np.int32))
    assert ends(path, np.array([0, 1], np.int32)).tolist() == [[WALKS, WALKS], [WALKS, WALKS]]


def test_anchors_beyond_65536_nodes_come_in_ascending_order():
    items = 200_000  # one user has them all, so a walk of one step ends anywhere
    indices = np.concatenate([np.arange(1, items + 1), np.zeros(items, np.int64)]).astype(np.int32)
    star = DomainGraph("star", 1, np.concatenate([[0], items + np.arange(items + 1)]), indices)
    found = ends(star, np.zeros(1, np.int32), counts_step=[False, True])  # asserts the order
    assert found.sum() == WALKS
    assert np.count_nonzero(found[0, 65_536:]) > WALKS / 2


def test_the_promised_room_is_enough_and_nothing_beyond_it_is_touched():
    graph = random_graph()
    sources, everyone = walkable(graph), np.ones(graph.nodes, bool)
    for walks in (3, WALKS):  # fewer positions than anchors; fewer anchors than positions
        room = sources.size * min(2 * walks, graph.nodes)
        rows, (anchors, counts) = np.zeros(sources.size + 1, np.int64), np.full((2, room + 10), -1, np.int32)
        rules = everyone, np.arange(5) >= 3
        walk_counts(graph.indptr, graph.indices, *rules, sources, walks, np.uint64(7), rows, anchors, counts)
        assert counts[: rows[-1]].sum() == 2 * walks * sources.size
        assert (anchors[room:] == -1).all()
        assert (counts[room:] == -1).all()
