import numpy as np
import pytest
import torch
from tiny_world import Tiny, build
from torch.nn.functional import normalize

from data_contracts.store.store import Store
from model.data.dataset import MultiDomainData, load_dataset
from model.edda import alignment
from model.edda.alignment import alignment_loss, draw_alignment, draw_contrast, load_alignment, map_health
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


def test_info_nce_is_the_softmax_of_a_pairs_cosine_among_the_others(tiny_world: Tiny) -> None:
    """All of the small world's pairs are in one group; those with a common node are no negatives of each other."""
    world, model = aligned(tiny_world)
    for batch in load_alignment(tiny_world.parents["pairs"], world):
        names = {"source_domain": world.domains[batch.source].name, "target_domain": world.domains[batch.target].name}
        rows = tiny_world.parents["pairs"].read(["source_node", "target_node"], **names).to_pylist()
        ends = [(row["source_node"], row["target_node"]) for row in rows]
        sources = model.intra[batch.source][[source for source, _ in ends]] @ model.maps[batch.source].T
        targets = model.intra[batch.target][[target for _, target in ends]] @ model.maps[batch.target].T
        cosines = normalize(sources) @ normalize(targets).T / 0.2
        losses = []
        for number, pair in enumerate(ends):
            others = [n for n, other in enumerate(ends) if other[0] != pair[0] and other[1] != pair[1]]
            losses.append(-cosines[number, [number, *others]].log_softmax(0)[0])
        expected = torch.stack(losses).mean()
        found = alignment_loss(model, batch, MULTIPLY, draw_contrast(batch, seed=5, epoch=2))
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        parameters = [model.intra[batch.source], model.maps[batch.target]]
        for ours, oracle in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
            torch.testing.assert_close(ours.to_dense(), oracle, atol=1e-6, rtol=1e-4)


def test_pairs_are_dealt_into_other_groups_in_each_epoch(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_GROUP", 4)
    world, _ = aligned(tiny_world)
    batch = next(load_alignment(tiny_world.parents["pairs"], world))
    first, again, second = (draw_contrast(batch, seed=5, epoch=epoch) for epoch in (1, 1, 2))
    assert first.known.shape[1] == 4
    assert torch.equal(first.anchors, again.anchors)
    assert not torch.equal(first.anchors, second.anchors)
    pairs = {tuple(pair) for pair in batch.difference.forward.indices.view(-1, 2).tolist()}
    assert {tuple(pair) for pair in first.anchors.T.tolist()} == pairs
    monkeypatch.setattr(alignment, "_CONTRASTED", 6)
    few = draw_contrast(batch, seed=5, epoch=1)
    assert torch.equal(few.anchors, first.anchors[:, :6])
    assert alignment_loss(aligned(tiny_world)[1], batch, MULTIPLY, few).isfinite()


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
