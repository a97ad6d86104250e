from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import build, random_log

from data_contracts.store.store import Store
from data_contracts.train_settings import TrainSettings
from model.compute.allocator import MEMORY, FileRoom, Room
from model.data.dataset import load_world
from model.edda.final_vectors import final_vectors, network_of
from model.edda.model import Edda, Shape
from model.edda.propagation import backbone_of
from model.sparse.matrix import choose_engine
from model.sparse.rows import row_blocks

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
SIZES = {"a": (40, 30, 200), "b": (20, 35, 90), "c": (9, 12, 30)}


def test_arrays_in_files_hold_what_they_are_given_and_leave_no_file(tmp_path: Path) -> None:
    room = FileRoom(tmp_path)
    drawn, joined = room.empty((3, 2), np.float32), room.joined([np.arange(3), np.arange(2)], np.int32)
    drawn[:] = 0.5
    assert (drawn.tolist(), joined.tolist(), joined.dtype) == ([[0.5, 0.5]] * 3, [0, 1, 2, 0, 1], np.int32)
    assert (room.joined([], np.int32).shape, room.empty((0, 4), np.float32).shape) == ((0,), (0, 4))
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"space|large"):
        FileRoom(tmp_path).empty((1 << 55,), np.float32)


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

    def vectors(room: Room) -> list[bytes]:
        world = load_world(parents["nodes"], parents["graph"], room)
        domains = {domain.name: domain.nodes for domain in world.domains}
        model = Edda(Shape("both", 6, world.nodes, domains, aligned=False, intra_width=3), 7)
        network = network_of(world, backbone_of(settings), MULTIPLY, room)
        return [own.numpy().tobytes() for own in final_vectors(model, network, room)]

    expected = vectors(MEMORY)
    monkeypatch.setattr("model.edda.graph_stack.row_blocks", lambda indptr, *_: row_blocks(indptr, 7, 3))
    monkeypatch.setattr("model.edda.final_vectors._BLOCK", 5)
    assert vectors(FileRoom(tmp_path)) == expected
