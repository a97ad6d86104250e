"""Domains that share nearly all their interactions have no intra table."""

import json
import logging
from pathlib import Path

import numpy as np
import oracle_model
import pytest
import torch
from damage import rehash
from safetensors.torch import load_file
from tiny_world import Tiny, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings, ExportSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.data.dataset import MultiDomainData, load_dataset, load_interactions
from model.edda.checkpoint import load_checkpoint
from model.learners.warm_start import build_warm_start
from model.serving.catalogue import open_catalogue
from model.serving.export import export_embeddings
from model.training.stage import train

ONE = ComputeSettings(threads=1, state_seconds=0)
CLEAN = EvaluateSettings(candidates=5)
SMALL = TrainSettings(width=8, intra_width=3, epochs=2, batch_size=64, learning_rate=0.01, alignment=0.3)
"""Of the tiny world's domains games shares .85 of its interactions, the others less than .8."""


def fitted(world: Tiny, **keys: object) -> Artifact:
    return train(
        world.store,
        seeded(SMALL.model_copy(update=keys), 7, CLEAN),
        world.parents,
        ONE,
    )


def world_of(tiny: Tiny) -> MultiDomainData:
    return load_dataset(tiny.parents["nodes"], tiny.parents["graph"])


@pytest.mark.parametrize(
    ("most", "private"), [(0.8, {"books", "films"}), (1.0, {"books", "films", "games"}), (0.5, {"books"}), (0.1, set())]
)
def test_only_domains_that_share_little_have_an_intra_table_and_are_aligned(
    tiny_world: Tiny, most: float, private: set[str]
) -> None:
    checkpoint = fitted(tiny_world, intra_shared_at_most=most)
    tables = set(load_file(checkpoint.path / "model.safetensors"))
    maps = {f"map/{name}" for name in private} if len(private) > 1 else set()
    assert tables == {"inter", *(f"intra/{name}" for name in private), *maps}
    shared = dict(zip(("books", "films", "games"), world_of(tiny_world).shared_interaction_shares, strict=True))
    without = {name: round(share, 4) for name, share in shared.items() if name not in private}
    assert checkpoint.statistics.get("without_intra", {}) == without
    aligned = {row["domain"]: row["metric"] for row in checkpoint.read().to_pylist() if "alignment" in row["metric"]}
    assert set(aligned) == (private if len(private) > 1 else set())


def test_final_vectors_are_the_dense_formulas_with_and_without_an_intra_table(tiny_world: Tiny) -> None:
    world = world_of(tiny_world)
    checkpoint = load_checkpoint(fitted(tiny_world), world)
    for number, found in enumerate(checkpoint.vectors(world)):
        expected = oracle_model.final_vectors(checkpoint.model, world, number, "grec", 2, 0.1, union=True)
        assert found.shape[1] == (8 if world.domains[number].name == "games" else 11)
        torch.testing.assert_close(found, expected.detach().float(), atol=1e-5, rtol=1e-4)


def test_vectors_are_exported_as_wide_as_they_are(tiny_world: Tiny) -> None:
    parents = {**tiny_world.without_pairs(), "checkpoint-7": fitted(tiny_world)}
    embeddings = export_embeddings(tiny_world.store, ExportSettings(), parents, ONE)
    for domain, width in (("books", 11), ("games", 8)):
        vectors = np.array(embeddings.read(["vector"], domain=domain)["vector"].to_pylist())
        catalogue = open_catalogue({"embeddings": embeddings, "graph": tiny_world.parents["graph"]}, domain)
        assert vectors.shape[1] == catalogue.users.shape[1] == catalogue.items.shape[1] == width
    assert not embeddings.verify()


def test_tables_of_each_domain_alone_are_never_left_out(tiny_world: Tiny) -> None:
    checkpoint = fitted(tiny_world, tables="intra", intra_shared_at_most=0.0)
    assert {"intra/books", "intra/films", "intra/games"} <= set(load_file(checkpoint.path / "model.safetensors"))


def test_training_says_which_domains_have_none_and_why(tiny_world: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "model.training.stage")
    fitted(tiny_world)
    told = [record.getMessage() for record in caplog.records if "intra" in record.getMessage()]
    assert told == [
        "no intra table for games: more than 80 % of their interactions have a user or item that another domain has too"
    ]


def test_a_checkpoint_from_before_tables_were_left_out_is_read(tiny_world: Tiny) -> None:
    world, checkpoint = world_of(tiny_world), fitted(tiny_world, intra_shared_at_most=1.0)
    description = json.loads((checkpoint.path / "model.json").read_text())
    assert description["shape"].pop("inter_only") == []
    before = [vectors.clone() for vectors in load_checkpoint(checkpoint, world).vectors(world)]
    (checkpoint.path / "model.json").write_text(json.dumps(description))
    after = load_checkpoint(rehash(checkpoint), world).vectors(world)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, before, strict=True))


@pytest.mark.parametrize(("before", "now"), [(1.0, 0.8), (0.8, 1.0)])
def test_a_warm_start_takes_the_tables_that_there_were_and_are(tiny_world: Tiny, before: float, now: float) -> None:
    earlier = fitted(tiny_world, intra_shared_at_most=before)
    parents = {f"{role}-before": tiny_world.parents[role] for role in ("nodes", "graph", "interactions")}
    parents |= {**tiny_world.parents, "checkpoint-7-before": earlier}
    settings = SMALL.model_copy(update={"intra_shared_at_most": now})
    checkpoint = train(tiny_world.store, seeded(settings, 7, CLEAN), parents, ONE)
    tables = {"inter", "intra/books", "intra/films"}
    taken = checkpoint.statistics["warm_start"]["tables"]
    assert set(taken) - {"intra/games"} == tables
    assert ("intra/games" in taken) == (now == 1.0)
    world = world_of(tiny_world)
    rows = [load_interactions(tiny_world.parents["interactions"], domain, world) for domain in world.domains]
    assert build_warm_start(parents, 7, world, rows).checkpoint == earlier


def test_an_interrupted_training_ends_with_the_same_bytes(tiny_world: Tiny, tmp_path: Path) -> None:
    def stop(done: int, total: int, unit: str, note: str = "") -> None:
        raise KeyboardInterrupt

    other = Store(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        train(other, seeded(SMALL, 7, CLEAN), tiny_world.parents, ONE, stop)
    again, whole = (
        train(other, seeded(SMALL, 7, CLEAN), tiny_world.parents, ONE),
        fitted(tiny_world),
    )
    assert len(again.statistics["epoch_seconds"]) == 1
    assert [entry.sha256 for entry in again.manifest.files] == [entry.sha256 for entry in whole.manifest.files]
