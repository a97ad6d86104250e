import numpy as np
import pyarrow as pa
import pytest
from oracle_pipeline import transitions

from data_contracts.contracts import INTERACTIONS
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import build_graph, number_nodes, read_graph, read_nodes

COMPUTE = ComputeSettings()
LOGS = {
    "books": [("ann", "x", "train"), ("bob", "x", "train"), ("bob", "y", "train"), ("bob", "x", "test")],
    "films": [("bob", "x", "train"), ("cat", "z", "train"), ("ann", "z", "valid")],
}


@pytest.fixture
def interactions(tmp_path) -> Artifact:
    """Users ann, bob, cat = 0, 1, 2; items x, y, z = 0, 1, 2."""
    return made_interactions(Store(tmp_path), rows_per_file=10)


def made_interactions(store: Store, rows_per_file: int) -> Artifact:
    users, items = ["ann", "bob", "cat"], ["x", "y", "z"]

    def write(draft):
        for domain, rows in LOGS.items():
            table = pa.table(
                {
                    "user_id": [u for u, _, _ in rows],
                    "item_id": [i for _, i, _ in rows],
                    "user": pa.array([users.index(u) for u, _, _ in rows], pa.int32()),
                    "item": pa.array([items.index(i) for _, i, _ in rows], pa.int32()),
                    "split": [s for _, _, s in rows],
                    "timestamp": pa.nulls(len(rows), pa.int64()),
                    "count": pa.array([1] * len(rows), pa.int32()),
                }
            )
            table = table.sort_by([(c, "ascending") for c in ("user", "item", "split")])
            for start in range(0, len(rows), rows_per_file):
                draft.write(table.slice(start, rows_per_file), domain=domain)

    return store.make(INTERACTIONS, {}, {}, write)


def made(tmp_path, interactions, **settings):
    nodes = number_nodes(Store(tmp_path), GraphSettings(**settings), {"interactions": interactions}, COMPUTE)
    return nodes, build_graph(Store(tmp_path), GraphSettings(), {"interactions": interactions, "nodes": nodes}, COMPUTE)


def test_an_update_counts_whom_of_each_domain_it_knew(tmp_path, interactions, monkeypatch):
    before, _ = made(tmp_path, interactions)
    assert "known" not in before.statistics["domains"]["books"]
    monkeypatch.setitem(LOGS, "games", [("ann", "x", "train")])
    monkeypatch.setitem(LOGS, "films", [*LOGS["films"], ("cat", "y", "train")])
    grown = made_interactions(Store(tmp_path / "grown"), rows_per_file=1)
    nodes = number_nodes(
        Store(tmp_path / "grown"), GraphSettings(), {"interactions": grown}, COMPUTE, previous={"nodes": before}
    )
    assert nodes.statistics["domains"] == {
        "books": {"users": 2, "items": 2, "anchors": 4, "known": {"users": 2, "items": 2}},
        "films": {"users": 3, "items": 3, "anchors": 3, "known": {"users": 3, "items": 2}},
        "games": {"users": 1, "items": 1, "anchors": 2, "known": {"users": 0, "items": 0}},
    }


def test_users_come_before_items_in_the_order_of_their_numbers(tmp_path, interactions):
    nodes, _ = made(tmp_path, interactions)
    rows = nodes.read(["node", "kind", "id", "entity", "train_degree"], domain="films").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (0, "user", "ann", 0, 0),
        (1, "user", "bob", 1, 1),
        (2, "user", "cat", 2, 1),
        (3, "item", "x", 0, 1),
        (4, "item", "z", 2, 1),
    ]


def test_anchors_have_train_rows_in_two_domains(tmp_path, interactions):
    nodes, _ = made(tmp_path, interactions)
    table = nodes.read()
    anchors = {(r["domain"], r["id"]) for r in table.to_pylist() if r["is_anchor"]}
    # ann is in both domains, but in films only to be held out.
    assert anchors == {("books", "bob"), ("books", "x"), ("films", "bob"), ("films", "x")}


def test_anchor_kinds_can_be_limited(tmp_path, interactions):
    nodes, _ = made(tmp_path, interactions, anchor_kinds=("user",))
    assert {row["id"] for row in nodes.read().to_pylist() if row["is_anchor"]} == {"bob"}


def test_graph_holds_each_train_edge_once_in_both_directions(tmp_path, interactions):
    nodes, graph = made(tmp_path, interactions)
    books = read_graph(graph, read_nodes(nodes, "books"))
    # Nodes: ann 0, bob 1, x 2, y 3. The held-out repetition of bob-x adds nothing.
    assert books.indptr.tolist() == [0, 1, 3, 5, 6]
    assert books.indices.tolist() == [2, 2, 3, 0, 1, 1]


@pytest.mark.parametrize("rows_per_file", [1, 2, 3])
def test_nodes_and_graph_do_not_depend_on_how_many_rows_fill_a_file(tmp_path, interactions, rows_per_file):
    in_files = made_interactions(Store(tmp_path / "files"), rows_per_file)
    for expected, found in zip(made(tmp_path, interactions), made(tmp_path / "files", in_files), strict=True):
        assert found.read().equals(expected.read())


def test_held_out_rows_are_no_edges(tmp_path, interactions):
    nodes, graph = made(tmp_path, interactions)
    films = read_graph(graph, read_nodes(nodes, "films"))
    assert films.degrees.tolist() == [0, 1, 1, 1, 1]


def test_transitions_are_uniform_over_neighbours(tmp_path, interactions):
    nodes, graph = made(tmp_path, interactions)
    chances = transitions(read_graph(graph, read_nodes(nodes, "books"))).toarray()
    np.testing.assert_allclose(chances, [[0, 0, 1, 0], [0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0], [0, 1, 0, 0]])


def test_artifacts_refer_to_nodes_that_exist(tmp_path, interactions):
    nodes, graph = made(tmp_path, interactions)
    assert graph.verify([nodes]) == []
