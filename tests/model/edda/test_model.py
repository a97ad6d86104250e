import numpy as np
import oracle_model
import pytest
import torch
from tiny_world import Tiny, build

from data_contracts.settings.train import TrainSettings
from data_contracts.store.store import Store
from model.data.batches import Batching, build_batches, build_positives
from model.data.dataset import load_dataset, load_interactions
from model.edda.final_vectors import build_graphs, final_vectors
from model.edda.model import Edda, RankingStep, TableShapes
from model.edda.propagation import Dropout, build_backbone, sample_subgraph
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
PENALTIES = (0.01, 0.07)
CASES = [
    ("grec", 2, "both", "by-domain"),
    ("grec", 2, "both", "union"),
    ("grec", 2, "inter", "by-domain"),
    ("grec", 1, "intra", "union"),
    ("lightgcn", 3, "both", "by-domain"),
    ("lightgcn", 3, "both", "union"),
    ("jgcf", 3, "both", "by-domain"),
    ("jgcf", 2, "both", "union"),
    ("mf", 2, "both", "union"),
]


def model_of(world, tables: str) -> Edda:
    domains = {domain.name: domain.nodes for domain in world.domains}
    return Edda(TableShapes(tables, 6, world.nodes, domains, aligned=tables != "inter", intra_width=4), 3)


@pytest.mark.parametrize(("backbone", "layers", "tables", "inter_graph"), CASES)
def test_loss_and_gradients_of_a_pruned_step_equal_the_dense_formula(
    tiny_world: Tiny, backbone: str, layers: int, tables: str, inter_graph: str
) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    number, domain = 1, world.domains[1]
    blocks = build_backbone(TrainSettings(backbone=backbone, layers=layers, inter_graph=inter_graph))
    network = build_graphs(world, blocks, MULTIPLY)
    positives = build_positives(load_interactions(tiny_world.parents["interactions"], domain, world), domain, "clean")
    batch = next(build_batches(positives, 1, 1, Batching(32, 3)))
    nothing = Dropout(0.0, (np.uint64(0),) * layers)
    inter = (
        sample_subgraph(network.inter, domain.union_nodes[batch.nodes], blocks, nothing) if tables != "intra" else None
    )
    intra = sample_subgraph(network.intra[number], batch.nodes, blocks, nothing) if tables != "inter" else None
    pruned, dense = model_of(world, tables), model_of(world, tables)
    found = pruned.loss(RankingStep(number, inter, intra, batch.pattern, batch.counts), PENALTIES, MULTIPLY)
    vectors = oracle_model.final_vectors(dense, world, number, backbone, layers, 0.1, union=inter_graph == "union")
    expected = oracle_model.bpr_loss(dense, world, number, batch, vectors, PENALTIES)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    oracle_model.assert_gradients_are_close(pruned, dense, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("backbone", "layers", "tables", "inter_graph"), CASES)
def test_final_vectors_equal_dense_matrices(
    tiny_world: Tiny, backbone: str, layers: int, tables: str, inter_graph: str
) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    model = model_of(world, tables)
    network = build_graphs(
        world, build_backbone(TrainSettings(backbone=backbone, layers=layers, inter_graph=inter_graph)), MULTIPLY
    )
    for number, found in enumerate(final_vectors(model, network)):
        expected = oracle_model.final_vectors(model, world, number, backbone, layers, 0.1, union=inter_graph == "union")
        torch.testing.assert_close(found, expected.detach().float())


def test_one_domains_step_leaves_other_domains_private_tables_alone(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    network = build_graphs(world, build_backbone(TrainSettings()), MULTIPLY)
    model, domain = model_of(world, "both"), world.domains[0]
    positives = build_positives(load_interactions(tiny_world.parents["interactions"], domain, world), domain, "clean")
    batch = next(build_batches(positives, 1, 1, Batching(32, 3)))
    nothing = Dropout(0.0, (np.uint64(0),) * 2)
    inter = sample_subgraph(network.inter, domain.union_nodes[batch.nodes], network.backbone, nothing)
    intra = sample_subgraph(network.intra[0], batch.nodes, network.backbone, nothing)
    model.loss(RankingStep(0, inter, intra, batch.pattern, batch.counts), (0.0, 0.0), MULTIPLY).backward()
    assert [table.grad is None for table in model.intra.values()] == [False, True, True]


def test_intra_vectors_pay_for_what_a_domain_shares(store: Store) -> None:
    tiny = build(store, {"a": [("u", "i", "train"), ("v", "j", "train")], "b": [("u", "k", "train")], "c": []})
    world = load_dataset(tiny.parents["nodes"], tiny.parents["graph"])
    assert dict(zip((domain.name for domain in world.domains), world.shared_interaction_shares, strict=True)) == {
        "a": 0.5,
        "b": 1.0,
        "c": 0.0,
    }
    assert TrainSettings(l2=0.01, intra_penalty=9.0).penalties(0.5) == pytest.approx((0.01, 0.03))
    assert TrainSettings(l2=0.01, intra_penalty=9.0, tables="intra").penalties(0.5) == (0.01, 0.01)


def test_tables_begin_normal_with_a_tenth_of_deviation() -> None:
    model = Edda(TableShapes("both", 64, 2000, {"a": 1000}, aligned=True), 1)
    assert model.inter[0].std().item() == pytest.approx(0.1, rel=0.02)
    assert model.intra[0].mean().item() == pytest.approx(0.0, abs=0.002)
    assert model.maps[0].abs().max().item() <= 1 / 8


def test_a_domains_first_vectors_do_not_depend_on_the_other_domains() -> None:
    alone = Edda(TableShapes("intra", 4, 9, {"b": 5}, aligned=False), 1).tensors()
    among = Edda(TableShapes("both", 4, 20, {"a": 7, "b": 5}, aligned=False), 1).tensors()
    assert torch.equal(alone["intra/b"], among["intra/b"])


def test_tensors_are_named_by_table_and_domain() -> None:
    model = Edda(TableShapes("both", 4, 9, {"a.b": 5, "c/d": 4}, aligned=True), 1)
    assert list(model.tensors()) == ["inter", "intra/a.b", "intra/c/d", "map/a.b", "map/c/d"]


def test_tensors_of_another_shape_are_refused() -> None:
    model = Edda(TableShapes("inter", 4, 9, {"a": 9}, aligned=False), 1)
    with pytest.raises(ValueError, match="train again"):
        model.load({"inter": torch.zeros(8, 4)})
