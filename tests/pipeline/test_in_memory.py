"""The plain functions on matrices: what the stages make of files, and the oracle of every two nodes."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_pipeline import brute_pairs, dense_reach
from tiny_world import build, random_log

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import PairsSettings, ReachSettings
from pipeline.graph import DomainGraph, build_edges
from pipeline.in_memory import PairTable, align_domains, number_alike, random_walks, reach_vectors, shared_places
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach

ONE = ComputeSettings(threads=1)
LOG = random_log(1, {"source": (30, 20, 260), "target": (16, 24, 120)})


def ids(domain: str, column: int) -> list[str]:
    return sorted({row[column] for row in LOG[domain]})


def matrix(domain: str) -> sp.csr_array:
    """Train interactions by ascending ids, as the pipeline numbers them."""
    ends = [row[:2] for row in LOG[domain] if row[2] == "train"]
    places = [[ids(domain, column).index(end[column]) for end in ends] for column in (0, 1)]
    return sp.csr_array((np.ones(len(ends)), places), shape=(len(ids(domain, 0)), len(ids(domain, 1))))


def shared(axis: int):
    return shared_places(ids("source", axis), ids("target", axis))


def rows(pairs: PairTable) -> list[tuple]:
    return list(zip(*(column.tolist() for column in pairs), strict=True))


@pytest.mark.parametrize(
    ("asked", "reach"),
    [
        (PairsSettings(), ReachSettings()),
        (PairsSettings(kinds="mixed", k=2), ReachSettings()),
        (PairsSettings(identity=False), ReachSettings(method="walk", walks=50)),
        (PairsSettings(most_products=0, candidates=4), ReachSettings(method="pruned", anchors_kept=6)),
    ],
    ids=["defaults", "mixed", "walks", "candidates"],
)
def test_pairs_of_matrices_are_the_pairs_of_files_in_both_directions(asked, reach, store):
    parents = build(store, LOG).parents
    parents = {"nodes": parents["nodes"], "reach": compute_reach(store, reach, parents, ONE)}
    filed = pair_domains(store, asked, parents, ONE)
    users, items, names = shared(0), shared(1), ("source", "target")
    for ends, places in ((names, (users, items)), (names[::-1], (users[::-1], items[::-1]))):
        if reach.method == "walk" and ends != names:
            continue  # walks are drawn by the domain's name
        pairs = align_domains(*map(matrix, ends), *places, asked, reach, ONE)
        table = filed.read(source_domain=ends[0], target_domain=ends[1])
        columns = ("source_node", "target_node", "similarity", "rank")
        assert rows(pairs) == list(zip(*(table[name].to_pylist() for name in columns), strict=True))
        assert len(pairs.source) > 40


def test_no_file_is_opened_for_writing(monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("a folder is made"))
    assert align_domains(matrix("source"), matrix("target"), shared(0), compute=ONE).source.size


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 7), st.integers(1, 7), st.integers(0, 6), st.integers(0, 6))
def test_pairs_equal_the_comparison_of_every_two_nodes_wherever_shared_ones_stand(seed, users, items, both, of_items):
    draw = np.random.default_rng(seed)
    sizes = (users, items), (items + 2, users)
    matrices = [sp.csr_matrix(draw.integers(0, 2, size) * draw.integers(-2, 3, size)) for size in sizes]
    places = [
        tuple(draw.permutation(size[axis])[: min(wanted, sizes[0][axis], sizes[1][axis])] for size in sizes)
        for axis, wanted in ((0, both), (1, of_items))
    ]
    edges = tuple(build_edges(each) for each in matrices)
    nodes = number_alike(edges, *places)
    reach = [
        dense_reach(DomainGraph.from_matrix("", each), side.is_anchor, (3, 4))
        for each, side in zip(edges, nodes, strict=True)
    ]
    expected = brute_pairs((nodes[0], reach[0]), (nodes[1], reach[1]), 2)
    found = align_domains(*matrices, *places, PairsSettings(k=2), compute=ONE)
    assert list(zip(found.source, found.rank, strict=True)) == [(row[0], row[4]) for row in expected]
    np.testing.assert_allclose(found.similarity, [row[3] for row in expected], atol=2e-6)
    same = [(row[0], row[1]) for row in expected if row[4] == 0]
    assert [(s, t) for s, t, _, rank in rows(found) if rank == 0] == same


def test_reach_of_a_path_is_worked_by_hand_and_ends_everywhere_by_default():
    # User 0 has item 0; user 1 has items 0 and 1.
    path = sp.csr_array(np.array([[2.0, 0], [1, -1]]))
    two = ReachSettings(steps=(2,))
    by_hand = [[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 0.75, 0.25], [0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(reach_vectors(path, settings=two, compute=ONE).toarray(), by_hand)
    only = reach_vectors(path, np.array([True, False, False, False]), two, ONE)
    np.testing.assert_allclose(only.toarray()[:, 0], [0.5, 0.25, 0, 0])
    assert only.nnz == 2


def test_walks_end_as_often_on_each_node_as_sampled_reach_says():
    source = matrix("source")
    nodes, asked = sum(source.shape), ReachSettings(method="walk", walks=200, steps=(3,))
    walks = random_walks(source, np.arange(nodes), 3, 200, asked.seed, "d")
    ends = np.stack([np.bincount(of_node[of_node >= 0], minlength=nodes) for of_node in walks[:, :, 3]]) / 200
    np.testing.assert_array_equal(reach_vectors(source, None, asked, ONE, "d").toarray(), ends.astype(np.float32))


def test_every_step_of_a_walk_goes_to_a_neighbour_and_isolated_nodes_have_none():
    walks = random_walks(sp.csr_array(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]])), [0, 1, 2, 5, 0], 5, 40, seed=3)
    joined = {(0, 3), (0, 4), (1, 4)}
    steps = {tuple(sorted(step)) for walk in walks[[0, 1, 4]].reshape(-1, 6) for step in pairwise(walk)}
    assert steps == joined
    assert (walks[[2, 3], :, 1:] == -1).all()
    assert (walks[:, :, 0] == np.array([0, 1, 2, 5, 0])[:, None]).all()
    np.testing.assert_array_equal(walks[0], walks[4])


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (([0, 1], [0]), "shared_users: 2 and 1 positions, must be as many of each side"),
        (([0], [99]), "shared_users: 99 of the target, must be ≥ 0 and < 16, the matrix's size"),
        (([0, 0], [1, 2]), "shared_users: a position of the source occurs twice"),
        (([0.5], [0]), "shared_users: float64, must be integers"),
        (
            ([True, False], [True, False]),
            "shared_users: bool, must be integers; numpy.flatnonzero makes them of a mask",
        ),
    ],
)
def test_wrong_positions_are_reported(places, message):
    with pytest.raises(ValueError, match=message):
        align_domains(matrix("source"), matrix("target"), places)


def test_other_wrong_arguments_are_reported():
    with pytest.raises(ValueError, match="source_ids: 'a' occurs twice, ids must be distinct"):
        shared_places(["a", "b", "a"], ["a"])
    with pytest.raises(ValueError, match="starts: found 4, must be ≥ 0 and < 4"):
        random_walks(sp.csr_array(np.eye(2)), [4], 2)
    with pytest.raises(ValueError, match=r"is_anchor: shape is \(3,\), must be \(4,\)"):
        reach_vectors(sp.csr_array(np.eye(2)), np.ones(3, bool))
    with pytest.raises(ValueError, match="is_anchor: int64, must be bool"):
        reach_vectors(sp.csr_array(np.eye(2)), np.arange(4))
    with pytest.raises(ValueError, match="starts: float64, must be integers"):
        random_walks(sp.csr_array(np.eye(2)), [0.5], 2)


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        (None, "a NoneType of 0 dimensions, must be a matrix of users × items"),
        (np.ones(3), "a ndarray of 1 dimensions, must be a matrix"),
        (np.array([[1, np.nan]]), "NaN, must be 0 where there is no interaction"),
    ],
)
def test_what_is_no_matrix_of_interactions_is_refused(interactions, message):
    with pytest.raises(ValueError, match=message):
        build_edges(interactions)


def test_nothing_shared_or_nothing_there_means_no_pairs(store):
    assert align_domains(matrix("source"), matrix("target"), compute=ONE).source.size == 0
    empty = sp.csr_array((3, 0))
    assert align_domains(empty, matrix("target"), ([0], [0]), settings=PairsSettings(identity=False)).source.size == 0
