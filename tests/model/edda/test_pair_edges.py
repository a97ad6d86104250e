"""Edges of aligned pairs: which ones, and vectors propagated along them by dense matrices."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from oracle_model import propagated, union_adjacency
from safetensors.numpy import load_file
from tiny_world import Tiny, build

from data_contracts.contracts import COVERAGE_FILE, PAIRS
from data_contracts.settings.train import TrainSettings
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.data.dataset import load_dataset
from model.edda.graph_stack import union_stack
from model.edda.pair_edges import PairEdges
from model.edda.propagation import Dropout, build_backbone, propagate, propagate_subgraph, sample_subgraph
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
LOG = {
    "a": [("u", "i", "train"), ("v", "j", "train"), ("v", "k", "train"), ("x", "k", "test")],
    "b": [("u", "j", "train"), ("w", "l", "train")],
}


def test_similar_nodes_have_one_edge_and_a_shared_one_has_none(store: Store) -> None:
    parents = build(store, LOG, every_pair=True).parents
    world = load_dataset(parents["nodes"], parents["graph"])
    edges = PairEdges.from_pairs(parents["pairs"], world, 0.5)
    # v and w, i and l, paired from both sides; u and j live in both domains and have identity pairs
    assert edges.ends.T.tolist() == [[1, 2], [4, 7]]
    assert edges.weights.tolist() == [0.5, 0.5]


def test_of_several_pairs_of_two_nodes_the_most_similar_counts(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    books, films = (world.domains[number].union_nodes for number in (0, 1))
    apart = next(node for node in range(16) if books[20] != films[node])
    rows = {"source_node": [20], "target_node": [apart], "kind": ["user"], "rank": [1], "identity": [False]}

    def write(draft: Draft) -> None:
        for similarity, (source, target) in ((0.25, ("books", "films")), (0.75, ("films", "books"))):
            ends = rows if source == "books" else {**rows, "source_node": [apart], "target_node": [20]}
            table = pa.table({**ends, "target_domain": [target], "similarity": [similarity]})
            table = table.select(PAIRS.file_schema.names).cast(PAIRS.file_schema)
            draft.write(table, source_domain=source)
        (draft.folder / COVERAGE_FILE).write_text("{}")

    edges = PairEdges.from_pairs(tiny_world.store.make(PAIRS, {}, {}, write), world, 2.0)
    assert edges.ends.T.tolist() == [sorted((int(books[20]), int(films[apart])))]
    assert edges.weights.tolist() == [1.5]


@pytest.mark.parametrize(("backbone", "layers"), [("grec", 2), ("lightgcn", 1), ("lightgcn", 3), ("mf", 2)])
def test_vectors_are_those_of_the_dense_graph_with_weighted_edges(store: Store, backbone: str, layers: int) -> None:
    parents = build(store, LOG).parents
    world = load_dataset(parents["nodes"], parents["graph"])
    edges = PairEdges(np.array([[0, 1, 4], [2, 3, 7]], np.int32), np.array([0.5, 2.0, 0.25], np.float32))
    dense = union_adjacency(world)
    for (first, second), weight in zip(edges.ends.T, edges.weights, strict=True):
        dense[first, second] = dense[second, first] = weight
    table = torch.randn(world.nodes, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    settings = build_backbone(TrainSettings(backbone=backbone, layers=layers))
    stack = union_stack(world, pair_edges=edges)
    expected = propagated(table, _at_least_one(dense), backbone, layers, 0.1).float()
    torch.testing.assert_close(propagate(table.detach(), stack, settings, MULTIPLY), expected.detach())
    rows = np.array([6, 3, 0], np.int32)
    subgraph = sample_subgraph(stack, rows, settings, Dropout(0.0, (np.uint64(0),) * layers))
    output, _ = propagate_subgraph(subgraph, table, MULTIPLY)
    torch.testing.assert_close(output, expected[torch.from_numpy(rows).long()])


def _at_least_one(dense: np.ndarray) -> np.ndarray:
    """The same graph, scaled until the oracle's smallest degree is 1: normalisation takes the scale out again."""
    degrees = dense.sum(axis=1)
    return dense / degrees[degrees > 0].min()


def test_edges_are_kept_to_the_bit(tmp_path: Path) -> None:
    edges = PairEdges(np.array([[0, 1], [2, 3]], np.int32), np.array([0.1, 0.7], np.float32))
    edges.save(tmp_path)
    kept = load_file(tmp_path / "pair_edges.safetensors")
    assert (kept["ends"] == edges.ends).all()
    assert (kept["weights"] == edges.weights).all()


def test_without_pairs_the_graph_is_the_same_to_the_bit(store: Store) -> None:
    parents = build(store, LOG).parents
    world = load_dataset(parents["nodes"], parents["graph"])
    none = PairEdges(np.empty((2, 0), np.int32), np.empty(0, np.float32))
    plain, weighted = union_stack(world), union_stack(world, pair_edges=none)
    for name in ("bounds", "nodes", "indptr", "indices", "values", "member_indptr", "members"):
        first, second = getattr(plain, name), getattr(weighted, name)
        assert first.dtype == second.dtype, name
        assert (first == second).all(), name
