import numpy as np
import oracle_model
import pytest
import torch
from tiny_world import Tiny

from data_contracts.settings.train import TrainSettings
from model.data.batches import Batching, build_batches, build_positives
from model.data.dataset import DomainData, MultiDomainData, load_dataset, load_interactions
from model.edda.contrast import Contrast, build_contrast
from model.edda.final_vectors import PropagationGraphs, build_graphs
from model.edda.model import Edda, RankingStep, TableShapes
from model.edda.propagation import Dropout, LayerNoise, build_backbone, noisy_output, sample_subgraph
from model.sparse.group_scores import group_windows
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
NUMBER = 1


def loaded(world: Tiny) -> MultiDomainData:
    return load_dataset(world.parents["nodes"], world.parents["graph"])


def network_of(dataset: MultiDomainData, backbone: str, layers: int) -> PropagationGraphs:
    return build_graphs(dataset, build_backbone(TrainSettings(backbone=backbone, layers=layers)), MULTIPLY)


def nothing(layers: int) -> Dropout:
    return Dropout(0.0, (np.uint64(0),) * layers)


def dense_noisy(table: torch.Tensor, domain: DomainData, backbone: str, layers: int, noise: LayerNoise) -> torch.Tensor:
    """Every layer with noise of its length in each vector's own orthant; nodes are drawn for in their order."""
    matrix, layer = oracle_model.normalised(oracle_model.adjacency(domain)), table.double()
    has_edges = matrix.abs().sum(dim=1) > 0
    draws, total = torch.Generator().manual_seed(noise.seed), layer
    for _ in range(layers):
        layer = matrix @ layer if backbone == "lightgcn" else 0.9 * matrix @ layer + 0.1 * layer
        drawn = torch.zeros_like(layer)
        drawn[has_edges] = torch.rand(int(has_edges.sum()), table.shape[1], generator=draws).double()
        layer = layer + noise.length * torch.nn.functional.normalize(drawn, dim=1) * layer.sign()
        total = total + layer
    return total / (layers + 1) if backbone == "lightgcn" else layer


@pytest.mark.parametrize(("backbone", "layers"), [("lightgcn", 1), ("lightgcn", 3), ("grec", 2), ("mf", 0)])
def test_noise_is_added_in_every_layer_and_passed_on(tiny_world: Tiny, backbone: str, layers: int) -> None:
    dataset = loaded(tiny_world)
    network, domain = network_of(dataset, backbone, layers), dataset.domains[NUMBER]
    table = torch.randn(domain.nodes, 5, generator=torch.Generator().manual_seed(1))
    with_edges = np.flatnonzero(np.diff(domain.indptr)).astype(np.int32)
    subgraph = sample_subgraph(network.intra[NUMBER], with_edges, network.backbone, nothing(layers))
    last_layer = 1 / (layers + 1) if backbone == "lightgcn" else 1.0
    noise = LayerNoise(0.3, last_layer, 7, 5, slice(0, 5))
    found = noisy_output(subgraph, table, MULTIPLY, noise)
    expected = dense_noisy(table, domain, backbone, layers, noise)[torch.from_numpy(with_edges).long()]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_the_columns_of_each_process_have_the_noise_of_the_whole_table(tiny_world: Tiny) -> None:
    dataset = loaded(tiny_world)
    network, domain = network_of(dataset, "lightgcn", 2), dataset.domains[NUMBER]
    table = torch.randn(domain.nodes, 5, generator=torch.Generator().manual_seed(1))
    rows = np.arange(0, domain.nodes, 2, dtype=np.int32)
    subgraph = sample_subgraph(network.intra[NUMBER], rows, network.backbone, nothing(2))
    whole, *shares = (
        noisy_output(subgraph, table[:, columns], MULTIPLY, LayerNoise(0.3, 1 / 3, 7, 5, columns))
        for columns in (slice(0, 5), slice(0, 2), slice(2, 5))
    )
    torch.testing.assert_close(torch.cat(shares, dim=1), whole)


def info_nce(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each row's own second view among all second views, by cosines over 0.2."""
    unit = [torch.nn.functional.normalize(each, dim=1) for each in (first, second)]
    return torch.nn.functional.cross_entropy(unit[0] @ unit[1].T / 0.2, torch.arange(len(first)))


@pytest.mark.parametrize("tables", ["both", "intra", "inter"])
def test_loss_and_gradients_equal_the_dense_formula(tiny_world: Tiny, tables: str) -> None:
    dataset = loaded(tiny_world)
    network, domain = network_of(dataset, "lightgcn", 2), dataset.domains[NUMBER]
    positives = build_positives(load_interactions(tiny_world.parents["interactions"], domain, dataset), domain, "clean")
    batch = next(build_batches(positives, 1, 1, Batching(32, 3)))
    union = domain.union_nodes[batch.nodes]
    inter = sample_subgraph(network.inter, union, network.backbone, nothing(2)) if tables != "intra" else None
    intra = (
        sample_subgraph(network.intra[NUMBER], batch.nodes, network.backbone, nothing(2)) if tables != "inter" else None
    )
    contrast = build_contrast(batch.pattern.anchors, batch.nodes.size, (0.7, 0.2), network.backbone, (1, "b", 1, 0))
    domains = {each.name: each.nodes for each in dataset.domains}
    pruned, dense = (Edda(TableShapes(tables, 6, dataset.nodes, domains, False, 4), 3) for _ in range(2))
    step = RankingStep(NUMBER, inter, intra, batch.pattern, batch.counts, contrast=contrast)
    found = pruned.loss(step, (0.0, 0.0), MULTIPLY)

    vectors = oracle_model.final_vectors(dense, dataset, NUMBER, "lightgcn", 2, 0.1, union=True)
    outputs = vectors[torch.from_numpy(batch.nodes).long()]
    noisy: list[list[torch.Tensor]] = [[], []]
    for kind, table, subgraph in dense.step_tables(step):
        for view, noise in enumerate(contrast.noises(kind, table.shape[1], slice(0, table.shape[1]))):
            noisy[view].append(noisy_output(subgraph, table, MULTIPLY, noise).double())
    views = [outputs + (torch.cat(each, dim=1) - outputs).detach() for each in noisy]
    rows = [torch.unique(kind.long()) for kind in batch.pattern.anchors]
    assert all(batch.nodes[kind].max() < domain.users for kind in rows[:1])
    assert all(batch.nodes[kind].min() >= domain.users for kind in rows[1:])
    expected = oracle_model.bpr_loss(dense, dataset, NUMBER, batch, vectors, (0.0, 0.0))
    expected = expected + 0.7 * sum(info_nce(views[0][kind], views[1][kind]) for kind in rows)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    oracle_model.assert_gradients_are_close(pruned, dense, atol=1e-5, rtol=1e-3)


def contrast_of(tiny_world: Tiny, number: int) -> Contrast:
    anchors = torch.tensor([[0, 1, 0, 2], [3, 3, 4, 5]])
    backbone = network_of(loaded(tiny_world), "lightgcn", 2).backbone
    return build_contrast(anchors, 7, (0.1, 0.1), backbone, (1, "a", 1, number))


def test_each_node_is_compared_once_and_not_with_itself_twice(
    tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.edda.contrast._GROUP", 2)
    for pattern, nodes in zip(contrast_of(tiny_world, 0).patterns, ([0, 1, 2], [3, 4, 5]), strict=True):
        first, second, others = pattern.picks.forward.indices.view(3, -1)
        assert sorted(first.tolist()) == nodes
        assert second.tolist() == others.tolist() == (first + 7).tolist()
        for rows, window in group_windows(3, 2):
            own = [[row == other for other in range(window.start, window.stop)] for row in range(rows.start, rows.stop)]
            assert pattern.known[rows].tolist() == own


def test_noise_differs_by_batch_table_and_view(tiny_world: Tiny) -> None:
    contrasts = [contrast_of(tiny_world, number) for number in range(2)]
    seeds = [noise.seed for each in contrasts for kind in range(2) for noise in each.noises(kind, 4, slice(0, 4))]
    assert len(set(seeds)) == 8
