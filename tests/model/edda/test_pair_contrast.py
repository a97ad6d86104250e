import pytest
import torch
from tiny_world import Tiny
from torch.nn.functional import normalize

from model.data.dataset import MultiDomainData, load_dataset
from model.edda import pair_contrast
from model.edda.alignment import load_alignment
from model.edda.model import Edda, TableShapes
from model.edda.pair_contrast import draw_pair_contrast, pair_contrast_loss
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))


def aligned(tiny: Tiny) -> tuple[MultiDomainData, Edda]:
    world = load_dataset(tiny.parents["nodes"], tiny.parents["graph"])
    return world, Edda(TableShapes("both", 6, world.nodes, {d.name: d.nodes for d in world.domains}, aligned=True), 3)


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
        found = pair_contrast_loss(model, batch, draw_pair_contrast(batch, seed=5, epoch=2), MULTIPLY)
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        parameters = [model.intra[batch.source], model.maps[batch.target]]
        for ours, oracle in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
            torch.testing.assert_close(ours.to_dense(), oracle, atol=1e-6, rtol=1e-4)


def test_pairs_are_dealt_into_other_groups_in_each_epoch(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_contrast, "_GROUP", 4)
    world, _ = aligned(tiny_world)
    batch = next(load_alignment(tiny_world.parents["pairs"], world))
    first, again, second = (draw_pair_contrast(batch, seed=5, epoch=epoch) for epoch in (1, 1, 2))
    assert first.known.shape[1] == 4
    assert torch.equal(first.anchors, again.anchors)
    assert not torch.equal(first.anchors, second.anchors)
    pairs = {tuple(pair) for pair in batch.difference.forward.indices.view(-1, 2).tolist()}
    assert {tuple(pair) for pair in first.anchors.T.tolist()} == pairs
    monkeypatch.setattr(pair_contrast, "_CONTRASTED", 6)
    few = draw_pair_contrast(batch, seed=5, epoch=1)
    assert torch.equal(few.anchors, first.anchors[:, :6])
    assert pair_contrast_loss(aligned(tiny_world)[1], batch, few, MULTIPLY).isfinite()
