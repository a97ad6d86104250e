"""A stage that goes on after a kill makes the same bytes, whichever piece of the attempt before is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from damage import DAMAGES
from raw_logs import ALL_TRAIN
from tiny_world import Tiny, build, random_log, seeded

from data_contracts.contracts import CHECKPOINT, INTERACTIONS, NEIGHBOURS, PAIRS, REACH
from data_contracts.schema import Contract
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import Columns, LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings, PairsSettings, ReachSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store
from model.training.stage import train
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs
from pipeline.neighbours.stage import build_neighbours
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach

SIZES = {"books": (30, 20, 260), "films": (16, 14, 120), "games": (8, 10, 50)}
COMPUTE = ComputeSettings(threads=1, state_seconds=0)
OTHER_COMPUTE = ComputeSettings(threads=2, memory_mib=64, state_seconds=0)
MOST = 24
"""Pieces that are damaged of each stage, evenly spaced among all."""

Make = Callable[[Store, ComputeSettings], Artifact]


class Killed(BaseException):
    """In place of a kill."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Its store has no domain that is small enough to be held in memory only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.compute.array_folder._SMALL", 0)
        world = build(Store(tmp_path_factory.mktemp("world") / "store"), random_log(1, SIZES))
        world.parents["reach"] = compute_reach(world.store, ReachSettings(), world.parents, COMPUTE)
        return world


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    for number, (domain, rows) in enumerate(random_log(1, SIZES).items()):
        text = "".join(f"{user},{item},{domain}\n" for user, item, _ in rows)
        (folder / f"{number}.csv").write_text(f"user_id,item_id,m\n{text}broken\n")
    return folder


def _makes(world: Tiny, logs: Path) -> dict[str, tuple[Contract, Make]]:
    def parents(*names: str) -> dict[str, Artifact]:
        return {name: world.parents[name] for name in names}

    def log(store: Store, compute: ComputeSettings) -> Artifact:
        settings = IngestSettings(split=ALL_TRAIN, rejected_share_at_most=1.0)
        files = find_logs([LogSource(path="*.csv", columns=Columns(domain="m"))], logs)
        return ingest(store, settings, files, compute)["interactions"]

    model = seeded(TrainSettings(width=8, epochs=2, batch_size=64), 1, EvaluateSettings(candidates=5))
    inputs = parents("interactions", "nodes", "graph")
    exact = PairsSettings()
    rough = PairsSettings(most_products=1, products_per_row=50, candidates=5)
    return {
        "ingest": (INTERACTIONS, log),
        "neighbours": (NEIGHBOURS, lambda store, compute: build_neighbours(
            store, NeighboursSettings(), parents("nodes", "graph"), compute)),
        "fitted neighbours": (NEIGHBOURS, lambda store, compute: build_neighbours(
            store, NeighboursSettings(weights="ease"), parents("nodes", "graph"), compute)),
        "reach": (REACH, lambda store, compute: compute_reach(
            store, ReachSettings(), parents("nodes", "graph"), compute)),
        "pairs": (PAIRS, lambda store, compute: pair_domains(store, exact, parents("nodes", "reach"), compute)),
        "rough pairs": (PAIRS, lambda store, compute: pair_domains(store, rough, parents("nodes", "reach"), compute)),
        "train": (CHECKPOINT, lambda store, compute: train(store, model, inputs, compute)),
    }  # fmt: skip


def _digests(artifact: Artifact) -> dict[str, Any]:
    return {entry.path: entry.sha256 for entry in artifact.manifest.files}


def _kill(make: Callable[[], object], contract: Contract, before: str) -> None:
    """Run a stage until it has everything but the artifact, or until it calls a function."""
    with pytest.MonkeyPatch.context() as patch:
        manifest = Draft.manifest

        def die(draft: Any, *arguments: Any) -> Any:
            if isinstance(draft, Draft) and draft.contract is not contract:
                return manifest(draft, *arguments)
            raise Killed

        patch.setattr(before, die)
        with pytest.raises(Killed):
            make()


def _damaged_stagings(root: Path) -> Iterator[Path]:
    """Damage one file after the other in the staging folder as it is now; each time all others are whole."""
    shutil.copytree(root / ".staging", root / "left")
    left = sorted(path for path in (root / "left").rglob("scratch/**/*") if path.is_file() and path.stat().st_size)
    for path, damage in zip(left[:: -(-len(left) // MOST)], cycle(DAMAGES)):
        shutil.rmtree(root / ".staging")
        shutil.copytree(root / "left", root / ".staging")
        file = root / ".staging" / path.relative_to(root / "left")
        content = file.read_bytes()
        file.unlink()  # the copy in the draft may be the same file
        if damage(content) != content:
            file.write_bytes(damage(content))
            yield file
    shutil.rmtree(root / "left")


CASES = [
    *((stage, "data_contracts.store.draft.Draft.manifest")
      for stage in ("ingest", "neighbours", "fitted neighbours", "reach", "pairs", "rough pairs", "train")),
    ("ingest", "pipeline.ingest.stage.deduplicate_bucket"),
    ("pairs", "pipeline.pairs.stage.finish_pair"),
    ("rough pairs", "pipeline.pairs.stage.finish_pair"),
    ("neighbours", "pipeline.neighbours.stage.write_chunk"),
    ("reach", "pipeline.reach.stage.compute_chunk"),
]  # fmt: skip


@pytest.mark.parametrize("again", [COMPUTE, OTHER_COMPUTE], ids=["same settings", "other memory"])
@pytest.mark.parametrize(("stage", "before"), CASES)
def test_a_damaged_piece_is_told_once_and_made_again(
    world: Tiny, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, stage, before, again
) -> None:
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    contract, make = _makes(world, logs)[stage]
    right = _digests(make(Store(tmp_path / "whole"), COMPUTE))
    store = Store(tmp_path / "store")
    _kill(lambda: make(store, COMPUTE), contract, before)
    tried = 0
    for file in _damaged_stagings(store.root):
        caplog.clear()
        made = make(store, again)
        assert _digests(made) == right, file
        told = [message for message in caplog.messages if "left by an earlier attempt, is damaged" in message]
        assert len(told) == 1, (file, told)
        assert "\n" not in told[0]
        shutil.rmtree(made.folder)
        tried += 1
    assert tried >= 2


def test_a_damaged_partition_is_made_again_in_other_blocks_and_so_is_what_came_of_it(
    world: Tiny, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract, make = _makes(world, logs)["ingest"]
    right = _digests(make(Store(tmp_path / "whole"), COMPUTE))
    store = Store(tmp_path / "store")
    monkeypatch.setattr("pipeline.ingest.stage._BLOCK_BYTES", (1 << 10, 1 << 10))
    _kill(lambda: make(store, COMPUTE), contract, "pipeline.ingest.stage.deduplicate_bucket")
    monkeypatch.setattr("pipeline.ingest.stage._BLOCK_BYTES", (1 << 9, 1 << 9))
    tried = 0
    for file in _damaged_stagings(store.root):
        made = make(store, COMPUTE)
        assert _digests(made) == right, file
        shutil.rmtree(made.folder)
        tried += "partitions" in file.parts
    assert tried >= 2


def test_an_attempt_without_damage_is_gone_on_with_in_silence(world, logs, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    for stage, (contract, make) in _makes(world, logs).items():
        store = Store(tmp_path / stage)
        _kill(lambda: make(store, COMPUTE), contract, "data_contracts.store.draft.Draft.manifest")  # noqa: B023
        pieces = {path: path.stat().st_ino for path in store.root.rglob("scratch/**/*") if path.is_file()}
        assert pieces
        _kill(lambda: make(store, COMPUTE), contract, "data_contracts.store.draft.Draft.manifest")  # noqa: B023
        assert {path: path.stat().st_ino for path in pieces if path.exists()} == pieces, stage
        make(store, COMPUTE)
    assert not [message for message in caplog.messages if "damaged" in message]
