from functools import partial

import numpy as np
import pytest
import torch
from tiny_world import Tiny, build

from data_contracts.store.store import Store
from model.compute import threads as threading
from model.data.dataset import MultiDomainData, load_dataset
from model.edda import alignment
from model.edda.alignment import AlignmentBatch, alignment_step, draw_alignment, load_alignment, map_health
from model.edda.model import Edda, TableShapes
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))


def aligned(tiny: Tiny) -> tuple[MultiDomainData, Edda]:
    world = load_dataset(tiny.parents["nodes"], tiny.parents["graph"])
    return world, Edda(TableShapes("both", 6, world.nodes, {d.name: d.nodes for d in world.domains}, aligned=True), 3)


def dense_gradients(model: Edda, gradients: list[alignment.RowGradient]) -> dict[torch.Tensor, torch.Tensor]:
    """The gradient of every table and map, zeros where a step has none."""
    dense = {parameter: torch.zeros_like(parameter) for parameter in (*model.intra.values(), *model.maps.values())}
    for parameter, rows, values in gradients:
        dense[parameter][rows] = values
    return dense


def test_alignment_loss_is_the_mean_distance_of_mapped_vectors(tiny_world: Tiny) -> None:
    world, model = aligned(tiny_world)
    for pairs in load_alignment(tiny_world.parents["pairs"], world):
        names = {"source_domain": world.domains[pairs.source].name, "target_domain": world.domains[pairs.target].name}
        rows = tiny_world.parents["pairs"].read(["source_node", "target_node"], **names).to_pylist()
        lengths = []
        for row in rows:
            source = model.maps[pairs.source] @ model.intra[pairs.source][row["source_node"]]
            target = model.maps[pairs.target] @ model.intra[pairs.target][row["target_node"]]
            lengths.append((source - target).norm())
        expected = torch.stack(lengths).mean()
        loss, row_gradients = alignment_step(model, pairs, 0.3, MULTIPLY)
        assert loss == pytest.approx(expected.item(), abs=1e-6)
        gradients = dense_gradients(model, row_gradients)
        parameters = [*model.intra.values(), *model.maps.values()]
        theirs = torch.autograd.grad(0.3 * expected, parameters, materialize_grads=True)
        torch.testing.assert_close([gradients[parameter] for parameter in parameters], list(theirs))


def test_a_step_by_products_is_that_of_the_compiled_loop(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """By products where the pairs are not on the CPU."""
    world, model = aligned(tiny_world)
    for pairs in load_alignment(tiny_world.parents["pairs"], world):
        loss, compiled = alignment_step(model, pairs, 0.3, MULTIPLY)
        with monkeypatch.context() as patch:
            by_products = partial(alignment._pull_by_products, multiply=MULTIPLY)
            patch.setattr(alignment, "_pull_rows", by_products)
            other_loss, products = alignment_step(model, pairs, 0.3, MULTIPLY)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        mine, theirs = (list(dense_gradients(model, each).values()) for each in (compiled, products))
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)


def test_a_distance_is_a_length_not_a_square_and_without_gradient_at_zero() -> None:
    pairs = AlignmentBatch(0, 1, np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32))
    mapped = [torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
    root = 13**0.5
    for pull in (alignment._pull_rows, partial(alignment._pull_by_products, multiply=MULTIPLY)):
        loss, (sources, targets) = pull(pairs, mapped, 2.0)
        assert loss == pytest.approx((5.0 + root + 0.0) / 3)
        torch.testing.assert_close(sources, torch.tensor([[1.2 + 4 / root, 1.6 + 6 / root], [0.0, 0.0]]))
        torch.testing.assert_close(targets, -torch.tensor([[1.2, 1.6], [4 / root, 6 / root]]))


def test_threads_change_no_bit_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(1)
    nodes = [draws.integers(0, 40, 300).astype(np.int32) for _ in range(2)]
    model = Edda(TableShapes("both", 33, 80, {"a": 40, "b": 40}, aligned=True), 3)
    steps = []
    for threads in (1, 3):
        monkeypatch.setattr(threading, "_WORTH_SHARING", 0)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        loss, gradients = alignment_step(model, AlignmentBatch(0, 1, *nodes), 1.0, MULTIPLY)
        steps.append((loss, [values.numpy().tobytes() for _, _, values in gradients]))
    assert steps[0] == steps[1]


def test_every_ordered_pair_of_domains_is_aligned(tiny_world: Tiny) -> None:
    world, _ = aligned(tiny_world)
    found = [(pairs.source, pairs.target) for pairs in load_alignment(tiny_world.parents["pairs"], world)]
    assert found == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]


def test_an_epoch_aligns_each_domain_with_as_many_others_as_set(tiny_world: Tiny) -> None:
    world, _ = aligned(tiny_world)
    pairs = list(load_alignment(tiny_world.parents["pairs"], world))
    assert list(draw_alignment(pairs, 2, seed=1, epoch=1)) == pairs
    epochs = [[(p.source, p.target) for p in draw_alignment(pairs, 1, seed=1, epoch=epoch)] for epoch in range(20)]
    assert all([source for source, _ in epoch] == [0, 1, 2] for epoch in epochs)
    assert {pair for epoch in epochs for pair in epoch} == {(p.source, p.target) for p in pairs}


def test_domains_without_aligned_pairs_are_left_out(store: Store) -> None:
    tiny = build(store, {"a": [("u", "i", "train")], "b": [("u", "j", "train")], "c": [("v", "k", "train")]})
    world, _ = aligned(tiny)
    assert [(p.source, p.target) for p in load_alignment(tiny.parents["pairs"], world)] == [(0, 1), (1, 0)]


def test_a_map_of_zeros_shows_as_collapsed(tiny_world: Tiny) -> None:
    _, model = aligned(tiny_world)
    model.maps[0].data.zero_()
    assert map_health(model, 0) == {"map_norm": 0.0, "map_spread": 0.0}


def test_the_identity_map_keeps_norm_and_spread(tiny_world: Tiny) -> None:
    _, model = aligned(tiny_world)
    model.maps[0].data.copy_(torch.eye(6))
    health = map_health(model, 0)
    assert (health["map_norm"], health["map_spread"]) == (pytest.approx(6**0.5), pytest.approx(1.0))


def test_loss_of_collapsed_maps_is_zero_with_a_finite_gradient(tiny_world: Tiny) -> None:
    world, model = aligned(tiny_world)
    for weights in model.maps.values():
        weights.data.zero_()
    loss, gradients = alignment_step(model, next(load_alignment(tiny_world.parents["pairs"], world)), 0.3, MULTIPLY)
    assert loss == 0.0
    assert [bool(values.any()) for _, _, values in gradients] == [False] * 4
