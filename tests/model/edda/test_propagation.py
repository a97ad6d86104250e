import numpy as np
import oracle_model
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.seeding import draw_key
from data_contracts.settings.train import TrainSettings
from model.data.dataset import DomainData, MultiDomainData
from model.edda.graph_stack import GraphStack, inter_stack, intra_stack
from model.edda.propagation import (
    Backbone,
    Dropout,
    SampledSubgraph,
    build_backbone,
    propagate,
    propagate_subgraph,
    sample_subgraph,
)
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
BACKBONES = [("grec", 1), ("grec", 2), ("grec", 3), ("lightgcn", 1), ("lightgcn", 2), ("lightgcn", 4), ("mf", 2)]
BACKBONES += [("jgcf", degree) for degree in (1, 2, 3, 4)]


def domain_of(name: str, dense: np.ndarray, users: list[int], items: list[int], world_users: int) -> DomainData:
    """A domain from a dense (users, items) matrix and global numbers."""
    size = dense.shape[0]
    square = np.block([[np.zeros((size, size)), dense], [dense.T, np.zeros((dense.shape[1],) * 2)]])
    indptr = np.concatenate([[0], np.cumsum(square.sum(axis=1))]).astype(np.int64)
    union = np.array([*users, *(item + world_users for item in items)], np.int32)
    return DomainData(name, *dense.shape, union, indptr, np.nonzero(square)[1].astype(np.int32))


@pytest.mark.parametrize("dense", [[[1, 1], [1, 0]], [[1, 0], [1, 0]]], ids=["all have edges", "one has none"])
def test_columns_by_table_row_take_no_memory_where_the_graph_has_all_rows(dense: list[list[int]]) -> None:
    stack = intra_stack(domain_of("a", np.array(dense), [0, 1], [0, 1], 2))
    assert stack.table_columns.tolist() == stack.nodes[stack.indices].tolist()
    assert (stack.table_columns is stack.indices) == all(map(any, zip(*dense, strict=True)))


def two_domains(seed: int, share: float = 0.3) -> MultiDomainData:
    """Users 0-5 and 4-9, items 0-3 and 2-6; items 2 and 3 are shared, some nodes have no edge."""
    random = np.random.default_rng(seed)
    first, second = ((random.random(shape) < share).astype(float) for shape in ((6, 4), (6, 5)))
    domains = (
        domain_of("a", first, list(range(6)), list(range(4)), 10),
        domain_of("b", second, list(range(4, 10)), list(range(2, 7)), 10),
    )
    return MultiDomainData(domains, 10, 7)


def undropped(layers: int) -> Dropout:
    return Dropout(0.0, (np.uint64(0),) * layers)


def table_of(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def backbone_for(name: str, layers: int) -> Backbone:
    return build_backbone(TrainSettings(backbone=name, layers=layers))


@pytest.mark.parametrize(("name", "layers"), BACKBONES)
def test_full_propagation_equals_dense_matrices(name: str, layers: int) -> None:
    domain = two_domains(1).domains[1]
    table = table_of(domain.nodes)
    found = propagate(table.detach(), intra_stack(domain), backbone_for(name, layers), MULTIPLY)
    expected = oracle_model.propagated(table, oracle_model.adjacency(domain), name, layers, 0.1)
    torch.testing.assert_close(found, expected.float())


def test_jgcf_weighs_layers_by_jacobi_polynomials() -> None:
    """The mean of P0 = 1, P1 = 2x and P2 = (15x² - 3) / 4 (Guo et al., KDD 2023, with a = b = 1)."""
    assert backbone_for("jgcf", 2).weights == pytest.approx((1 / 12, 2 / 3, 5 / 4))
    assert backbone_for("jgcf", 0).weights == (1.0,)


def test_lightgcn_is_that_of_its_paper() -> None:
    """He et al. (SIGIR 2020), equations 3 and 4 by hand: no self loops, 1/sqrt(|N_u||N_i|), the mean with layer 0.

    u has i and j, v has j, w has nothing.
    """
    domain = domain_of("a", np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), [0, 1, 2], [0, 1], 3)
    u, v, w, i, j = 1.0, 10.0, 100.0, 1000.0, 10000.0
    first = {
        "u": i / 2**0.5 / 1**0.5 + j / 2**0.5 / 2**0.5, "v": j / 1**0.5 / 2**0.5, "w": 0.0,
        "i": u / 1**0.5 / 2**0.5, "j": u / 2**0.5 / 2**0.5 + v / 2**0.5 / 1**0.5,
    }  # fmt: skip
    second = {
        "u": first["i"] / 2**0.5 + first["j"] / 2, "v": first["j"] / 2**0.5, "w": 0.0,
        "i": first["u"] / 2**0.5, "j": first["u"] / 2 + first["v"] / 2**0.5,
    }  # fmt: skip
    expected = [(e + a + b) / 3 for e, a, b in zip((u, v, w, i, j), first.values(), second.values(), strict=True)]
    table = torch.tensor([[u], [v], [w], [i], [j]])
    found = propagate(table, intra_stack(domain), backbone_for("lightgcn", 2), MULTIPLY)
    assert found.ravel().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "layers"), BACKBONES)
def test_inter_propagation_averages_the_graphs_that_touch_each_domains_items(name: str, layers: int) -> None:
    world = two_domains(2)
    table = table_of(world.nodes)
    found = propagate(table.detach(), inter_stack(world), backbone_for(name, layers), MULTIPLY)
    graphs = oracle_model.inter_adjacencies(world)
    expected = sum(oracle_model.propagated(table, dense, name, layers, 0.1) for dense in graphs) / len(graphs)
    torch.testing.assert_close(found, expected.float())


@pytest.mark.parametrize(("name", "layers"), BACKBONES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.15, 0.5, 1.0]))
def test_pruned_propagation_equals_dense_matrices_in_values_and_gradients(
    name: str, layers: int, seed: int, share: float
) -> None:
    world = two_domains(seed, share)
    random = np.random.default_rng(seed)
    wanted = random.permutation(world.nodes)[: random.integers(0, world.nodes + 1)].astype(np.int32)
    table, dense_table = table_of(world.nodes), table_of(world.nodes)
    weights = torch.randn(wanted.size, 5, generator=torch.Generator().manual_seed(seed))
    found, layer0 = propagate_subgraph(
        sample_subgraph(inter_stack(world), wanted, backbone_for(name, layers), undropped(layers)), table, MULTIPLY
    )
    (found * weights).sum().backward()
    graphs = oracle_model.inter_adjacencies(world)
    outputs = sum(oracle_model.propagated(dense_table, dense, name, layers, 0.1) for dense in graphs) / len(graphs)
    expected = outputs[torch.from_numpy(wanted).long()]
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected.float())
    torch.testing.assert_close(table.grad.to_dense(), dense_table.grad)
    assert torch.equal(layer0, table[torch.from_numpy(wanted).long()])


def test_a_node_without_edges_is_scaled_by_the_residual_of_each_layer() -> None:
    domain = domain_of("a", np.array([[1.0], [0.0]]), [0, 1], [0], 2)
    found = propagate(torch.ones(3, 1), intra_stack(domain), Backbone(2, 0.1, 0.9, averaged=False), MULTIPLY)
    assert found[1].item() == pytest.approx(0.01)


def test_an_edge_of_another_domain_on_a_shared_item_belongs_to_the_inter_graph() -> None:
    """Item 0 is in both domains, item 1 only in b: b's graph has user 0's edge, a's has none of item 1."""
    a = domain_of("a", np.array([[1.0]]), [0], [0], 2)
    b = domain_of("b", np.array([[1.0, 1.0]]), [1], [0, 1], 2)
    stack = inter_stack(MultiDomainData((a, b), 2, 2))
    assert [stack.table_rows_of_graph(number).tolist() for number in (0, 1)] == [[0, 1, 2], [0, 1, 2, 3]]


def edges_of(subgraph: SampledSubgraph, layer: int) -> dict[tuple[int, int], float]:
    """Entries of a one-layer fan by (wanted place, table row), a row's own entry left out."""
    matrix = subgraph.layers[layer].forward
    rows = np.repeat(np.arange(matrix.rows), np.diff(matrix.indptr.numpy()))
    return dict(zip(zip(rows.tolist(), matrix.indices.tolist(), strict=True), matrix.values.tolist(), strict=True))


def big_stack() -> GraphStack:
    random = np.random.default_rng(5)
    return intra_stack(domain_of("a", (random.random((120, 80)) < 0.5).astype(float), [*range(120)], [*range(80)], 120))


ONE_LAYER = Backbone(1, 0.0, 1.0, averaged=False)


def test_dropout_keeps_the_right_share_of_edges_and_scales_them() -> None:
    stack, wanted = big_stack(), np.arange(200, dtype=np.int32)
    whole = edges_of(sample_subgraph(stack, wanted, ONE_LAYER, undropped(1)), 0)
    kept = edges_of(sample_subgraph(stack, wanted, ONE_LAYER, Dropout(0.7, (draw_key(1, "test"),))), 0)
    deviation = (0.3 * 0.7 / len(whole)) ** 0.5
    assert len(kept) / len(whole) == pytest.approx(0.3, abs=4 * deviation)
    assert all(value == pytest.approx(whole[edge] / 0.3, rel=1e-5) for edge, value in kept.items())


def test_both_directions_of_an_edge_are_dropped_independently() -> None:
    wanted = np.arange(200, dtype=np.int32)
    kept = edges_of(sample_subgraph(big_stack(), wanted, ONE_LAYER, Dropout(0.5, (draw_key(1, "test"),))), 0)
    both = sum((column, row) in kept for row, column in kept) / len(kept)
    assert both == pytest.approx(0.5, abs=0.04)


def test_the_mask_of_a_row_does_not_depend_on_the_other_rows_of_the_batch() -> None:
    dropout = Dropout(0.7, (draw_key(1, "test"),))
    stack = big_stack()
    together = edges_of(sample_subgraph(stack, np.arange(200, dtype=np.int32), ONE_LAYER, dropout), 0)
    alone: dict[tuple[int, int], float] = {}
    for row in range(200):
        own = edges_of(sample_subgraph(stack, np.array([row], np.int32), ONE_LAYER, dropout), 0)
        alone |= {(row, column): value for (_, column), value in own.items()}
    assert alone == together


def test_layers_have_masks_of_their_own() -> None:
    wanted, stack = np.arange(200, dtype=np.int32), big_stack()
    first, second = (
        edges_of(sample_subgraph(stack, wanted, ONE_LAYER, Dropout(0.5, (draw_key(1, "layer", layer),))), 0)
        for layer in (1, 2)
    )
    assert len(first.keys() & second.keys()) / len(first) == pytest.approx(0.5, abs=0.04)


def test_an_empty_batch_has_an_empty_subgraph() -> None:
    subgraph = sample_subgraph(big_stack(), np.zeros(0, np.int32), backbone_for("grec", 2), undropped(2))
    output, layer0 = propagate_subgraph(subgraph, torch.ones(200, 3), MULTIPLY)
    assert (tuple(output.shape), tuple(layer0.shape)) == ((0, 3), (0, 3))


def test_dropout_leaves_the_expectation_of_a_layer_unchanged() -> None:
    stack, wanted = big_stack(), np.array([3], np.int32)
    table = torch.ones(200, 1)
    whole = propagate_subgraph(sample_subgraph(stack, wanted, ONE_LAYER, undropped(1)), table, MULTIPLY)[0].item()
    drawn = [
        propagate_subgraph(
            sample_subgraph(stack, wanted, ONE_LAYER, Dropout(0.7, (draw_key(1, turn),))), table, MULTIPLY
        )[0].item()
        for turn in range(2000)
    ]
    assert np.mean(drawn) == pytest.approx(whole, abs=4 * np.std(drawn) / 2000**0.5)


def test_dropout_leaves_the_expectation_of_two_stacked_layers_unchanged() -> None:
    """Layers are dropped independently, so the mean over masks of a linear propagation is the undropped one."""
    world, backbone = two_domains(3, 0.6), backbone_for("grec", 2)
    stack, wanted, table = inter_stack(world), np.arange(world.nodes, dtype=np.int32), table_of(world.nodes).detach()
    whole = propagate_subgraph(sample_subgraph(stack, wanted, backbone, undropped(2)), table, MULTIPLY)[0].numpy()
    drops = [Dropout(0.5, (draw_key(1, turn, 1), draw_key(1, turn, 2))) for turn in range(1500)]
    drawn = np.stack(
        [
            propagate_subgraph(sample_subgraph(stack, wanted, backbone, drop), table, MULTIPLY)[0].numpy()
            for drop in drops
        ]
    )
    assert np.all(np.abs(drawn.mean(axis=0) - whole) <= 5 * drawn.std(axis=0) / 1500**0.5 + 1e-6)
