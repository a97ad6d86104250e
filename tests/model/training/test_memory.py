"""A training that cannot fit is refused with its size before it begins."""

from __future__ import annotations

import re

import pytest
from tiny_world import seeded

from data_contracts.resources import MemoryLimitError, free_memory, require_memory
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from model.training.memory import predict_bytes
from model.training.stage import train


@pytest.mark.parametrize(
    ("settings", "floats"),
    [
        # 4 copies of 100 x 3 inter and (30 + 20) x 2 intra values, vectors (60 + 50) x 3, triples 7 x 8
        ({"width": 3, "intra_width": 2}, 4 * (300 + 100) + 330 + 56),
        ({"width": 3, "intra_width": 2, "alignment": 0.1}, 4 * (300 + 100 + 2 * 4) + 330 + 56),
        ({"width": 3, "tables": "inter"}, 4 * 300 + 330 + 56),
        ({"model": "ials", "width": 3}, 330 + 9),
        ({"model": "mmoe", "width": 3, "hidden": 5}, 330 + 25 + 56),
        ({"model": "popularity", "width": 3}, 0),
    ],
)
def test_bytes_are_those_of_tables_vectors_and_triples(settings, floats):
    intra = [] if settings.get("tables") == "inter" else [30, 20]
    assert predict_bytes(TrainSettings(**settings), 100, [60, 50], intra, 7) == 4 * floats


@pytest.fixture
def refused(tiny_world, monkeypatch):
    """The message that a training of the tiny world is refused with on a machine where a GiB is free."""
    monkeypatch.setattr("data_contracts.resources.free_memory", lambda: 1 << 30)

    def message(candidates: int, **changes) -> str:
        settings = TrainSettings(**{"width": 8, "epochs": 1, "alignment": 0.1, **changes})
        checkpoint = seeded(settings, 1, EvaluateSettings(candidates=candidates))
        with pytest.raises(MemoryLimitError) as error:
            train(tiny_world.store, checkpoint, tiny_world.parents, ComputeSettings(threads=1))
        assert not list(tiny_world.store.root.glob("checkpoint/*"))
        return str(error.value)

    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 10_000_000}, "train: edda of .* nodes in 3 domains with train.width 10,000,000 "),
        ({"intra_width": 100_000_000}, "train: edda .* and train.intra_width 100,000,000, "),
        ({"negatives": 1_000_000_000}, "train: edda .* train.negatives 1,000,000,000: "),
        ({"model": "mmoe", "hidden": 10_000_000}, "train: mmoe of "),
    ],
)
def test_a_training_that_cannot_fit_is_refused_with_its_size(refused, changes, words):
    size = "takes at least [0-9,]+ MiB of memory, 1,024 are free; lower these"
    assert re.match(f"{words}.*{size}", refused(5, **changes))


def test_candidates_that_cannot_fit_are_refused_with_their_size(refused):
    rows = "valid rows of books with evaluate.candidates 100,000,000 each: takes at least "
    assert rows in refused(100_000_000)


def test_what_fits_is_not_refused():
    assert free_memory() > 1 << 20
    require_memory(1 << 20, "a MiB", "")
    text = re.escape("all: takes at least 1,099,511,627,776 MiB")
    with pytest.raises(MemoryLimitError, match=text):
        require_memory(1 << 60, "all", "nothing")
