import torch
from tiny_world import build

from data_contracts.settings.train import TrainSettings
from data_contracts.store.store import Store
from model.data.dataset import load_dataset
from model.edda.final_vectors import build_graphs, final_vectors
from model.edda.model import Edda, TableShapes
from model.edda.propagation import build_backbone
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
LOG = {"a": [("u", "i", "train"), ("v", "j", "train"), ("v", "k", "train")], "b": [("u", "j", "train")]}


def inter_vectors(store: Store, inter_graph: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    parents = build(store, LOG).parents
    world = load_dataset(parents["nodes"], parents["graph"])
    settings = TrainSettings(tables="inter", backbone="lightgcn", layers=1, inter_graph=inter_graph)
    model = Edda(TableShapes("inter", 6, world.nodes, {"a": 5, "b": 2}, aligned=False), 7)
    return model.inter[0].detach(), list(final_vectors(model, build_graphs(world, build_backbone(settings), MULTIPLY)))


def test_on_the_union_graph_every_domain_sees_all_interactions(store: Store) -> None:
    (u, v, i, j, _), (in_a, in_b) = inter_vectors(store, "union")
    torch.testing.assert_close(in_a[0], (u + i / 2**0.5 + j / 2) / 2)
    torch.testing.assert_close(in_b[0], in_a[0])
    torch.testing.assert_close(in_b[1], (j + u / 2 + v / 2) / 2)


def test_by_domain_outputs_are_averaged_over_the_domains_items(store: Store) -> None:
    (u, _, i, j, _), (_, in_b) = inter_vectors(store, "by-domain")
    torch.testing.assert_close(in_b[0], (u + (i / 2**0.5 + j / 2) / 2 + j / 2**0.5 / 2) / 2)
