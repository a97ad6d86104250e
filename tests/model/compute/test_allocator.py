from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import build, random_log

from data_contracts.settings.train import TrainSettings
from data_contracts.store.store import Store
from model.compute.allocator import IN_MEMORY, Allocator, MappedAllocator
from model.data.dataset import load_dataset
from model.edda.final_vectors import build_graphs, final_vectors
from model.edda.model import Edda, TableShapes
from model.edda.propagation import build_backbone
from model.sparse.matrix import choose_engine
from model.sparse.rows import row_blocks

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
SIZES = {"a": (40, 30, 200), "b": (20, 35, 90), "c": (9, 12, 30)}


def test_arrays_in_files_hold_what_they_are_given_and_leave_no_file(tmp_path: Path) -> None:
    allocator = MappedAllocator(tmp_path)
    drawn, joined = allocator.empty((3, 2), np.float32), allocator.concatenate([np.arange(3), np.arange(2)], np.int32)
    drawn[:] = 0.5
    assert (drawn.tolist(), joined.tolist(), joined.dtype) == ([[0.5, 0.5]] * 3, [0, 1, 2, 0, 1], np.int32)
    assert (allocator.concatenate([], np.int32).shape, allocator.empty((0, 4), np.float32).shape) == ((0,), (0, 4))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space|large"):
        MappedAllocator(tmp_path).empty((1 << 55,), np.float32)


def test_blocks_of_rows_hold_so_many_entries_or_one_longer_row() -> None:
    assert list(row_blocks(np.array([0, 2, 4, 13, 14, 14, 14]), 4, 3)) == [(0, 2), (2, 3), (3, 6)]
    assert not list(row_blocks(np.array([0])))


@pytest.mark.parametrize("inter_graph", ["union", "by-domain"])
@pytest.mark.parametrize("backbone", ["grec", "lightgcn", "mf"])
def test_vectors_made_in_files_by_small_blocks_are_those_made_in_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, inter_graph: str
) -> None:
    parents = build(store, random_log(3, SIZES)).parents
    settings = TrainSettings(backbone=backbone, inter_graph=inter_graph, layers=2)

    def vectors(allocator: Allocator) -> list[bytes]:
        world = load_dataset(parents["nodes"], parents["graph"], allocator)
        domains = {domain.name: domain.nodes for domain in world.domains}
        model = Edda(TableShapes("both", 6, world.nodes, domains, aligned=False, intra_width=3), 7)
        network = build_graphs(world, build_backbone(settings), MULTIPLY, allocator)
        return [own.numpy().tobytes() for own in final_vectors(model, network, allocator)]

    expected = vectors(IN_MEMORY)
    monkeypatch.setattr("model.edda.graph_stack.row_blocks", lambda indptr, *_: row_blocks(indptr, 7, 3))
    monkeypatch.setattr("model.edda.final_vectors._BLOCK", 5)
    assert vectors(MappedAllocator(tmp_path)) == expected
