import numpy as np
import pytest
import torch
from tiny_world import Tiny, build

from data_contracts.store.store import Store
from model.data.dataset import MultiDomainData, load_dataset
from model.edda.alignment import alignment_loss, draw_alignment, load_alignment, map_health
from model.edda.model import Edda, TableShapes
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))


def aligned(tiny: Tiny) -> tuple[MultiDomainData, Edda]:
    world = load_dataset(tiny.parents["nodes"], tiny.parents["graph"])
    return world, Edda(TableShapes("both", 6, world.nodes, {d.name: d.nodes for d in world.domains}, aligned=True), 3)


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
        found = alignment_loss(model, pairs, MULTIPLY)
        parameters = [*model.intra.values(), *model.maps.values()]
        gradients = [torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (found, expected)]
        assert found.item() == pytest.approx(expected.item(), abs=1e-6)
        for mine, theirs in zip(*gradients, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine.to_dense(), theirs)


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
    loss = alignment_loss(model, next(load_alignment(tiny_world.parents["pairs"], world)), MULTIPLY)
    loss.backward()
    gradient = model.intra[0].grad
    assert loss.item() == 0.0
    assert gradient is not None
    assert np.isfinite(gradient.to_dense().numpy()).all()
