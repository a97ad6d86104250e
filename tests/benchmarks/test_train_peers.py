"""The peers that `benchmarks/train.py` measures compute the same losses as EDDA."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import Tiny

from data_contracts.settings.train import TrainSettings
from model.compute.threads import torch_threads
from model.edda.alignment import alignment_step, load_alignment
from model.sparse.matrix import choose_engine

SMALL = TrainSettings(
    width=8,
    intra_width=8,
    batch_size=32,
    initial_spread=0.1,
    negatives=1,
    order="sequential",
    inter_graph="by-domain",
    l2=1e-4,
    intra_penalty=1.0,
    intra_shared_at_most=1.0,
    alignment=0.3,
    engine="native",
    device="cpu",
)


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from peers import contenders

    return contenders


@pytest.fixture
def contest(contenders: ModuleType, tiny_world: Tiny) -> Iterator[Any]:
    with torch_threads(1), torch.random.fork_rng():
        yield contenders.build_contest(tiny_world.parents, SMALL)


@pytest.fixture(params=["torch", "dgl"])
def peer(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return request.param


def test_plain_losses_equal_ours_without_dropout(contenders: ModuleType, contest: Any, peer: str) -> None:
    parity = contenders.parity_with(contest, peer, 7, 2)
    assert parity["losses"] < 1e-5
    assert parity["gradients"] < 1e-4


def test_plain_losses_equal_ours_on_average_with_dropout(contenders: ModuleType, contest: Any, peer: str) -> None:
    assert abs(contenders.parity_with(contest, peer, 6, 20)["standard_errors"]) < 3


def test_another_dropout_changes_the_mean_loss(contenders: ModuleType, contest: Any) -> None:
    contests = {"edda": contest.changed(initial_spread=1.0)}
    contests["torch"] = contests["edda"].changed(edge_dropout=0.4)
    means = [
        contenders.mean_losses(contenders.build_learner(variant, name), variant, 3, 20)
        for name, variant in contests.items()
    ]
    assert abs(contenders.apart(*means)) > 3


def test_plain_alignment_losses_equal_ours(contenders: ModuleType, contest: Any) -> None:
    edda, plain = contest.start(), contenders.build_learner(contest, "torch").model
    _, multiply = choose_engine("native", torch.device("cpu"))
    pairs_of_all = load_alignment(contest.artifacts["pairs"], contest.world)
    ours = [alignment_step(edda, pairs, 1.0, multiply)[0] for pairs in pairs_of_all]
    theirs = [float(plain.alignment_loss(pairs).detach()) for pairs in contest.pairs()]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    assert len(ours) == 6


def test_costs_cover_both_parts_of_an_epoch(contenders: ModuleType, contest: Any) -> None:
    ours, plain = contenders.edda_cost(contest, "edda"), contenders.plain_cost(contest, "torch", 1)
    assert {name for name in ours if name != "floor"} == set(plain)
    assert min(plain["bpr_cpu"], plain["alignment_cpu"], ours["floor"]["touched_seconds"]["bpr"]) > 0
