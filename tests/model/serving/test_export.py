from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_world import Tiny, TinyRun, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings, ExportSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.compute.allocator import Allocator
from model.data.dataset import load_dataset
from model.edda.checkpoint import load_checkpoint
from model.edda.final_vectors import build_graphs, final_vectors
from model.serving.catalogue import Catalogue, open_catalogue
from model.serving.export import export_embeddings, export_recommendations
from model.serving.recommender import Recommender
from model.serving.scorer import served_artifacts
from model.sparse.matrix import choose_engine
from model.training.stage import train

ONE = ComputeSettings(threads=1)
TOP = ExportSettings(top=6)


@pytest.fixture
def parents(tiny_world: Tiny) -> dict[str, Artifact]:
    settings = TrainSettings(width=8, epochs=2, batch_size=64, learning_rate=0.01, alignment=0.3)
    trained = train(
        tiny_world.store,
        seeded(settings, 1, EvaluateSettings(candidates=5)),
        tiny_world.parents,
        ONE,
    )
    return {**tiny_world.without_pairs(), "checkpoint": trained}


def test_embeddings_are_the_final_vectors_under_the_logs_ids(tiny_world: Tiny, parents: dict[str, Artifact]) -> None:
    embeddings = export_embeddings(tiny_world.store, TOP, parents, ONE)
    world = load_dataset(parents["nodes"], parents["graph"])
    checkpoint = load_checkpoint(parents["checkpoint"], world)
    network = build_graphs(world, checkpoint.backbone, choose_engine("native", torch.device("cpu"))[1])
    for domain, vectors in zip(world.domains, final_vectors(checkpoint.model, network), strict=True):
        table = embeddings.read(domain=domain.name)
        assert table.select(["kind", "id"]).equals(parents["nodes"].read(["kind", "id"], domain=domain.name))
        np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors.numpy())


def exported(tiny_world: Tiny, parents: dict[str, Artifact]) -> dict[str, Artifact]:
    return {"graph": parents["graph"], "embeddings": export_embeddings(tiny_world.store, TOP, parents, ONE)}


def recommended(tiny_world: Tiny, parents: dict[str, Artifact], domain: str) -> dict[str, list[tuple[str, float]]]:
    table = export_recommendations(tiny_world.store, TOP, exported(tiny_world, parents), ONE).read(domain=domain)
    found: dict[str, list[tuple[str, float]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
        assert row["rank"] == len(found[row["user_id"]])
    return found


def test_every_user_gets_the_best_items_without_those_of_training(
    tiny_world: Tiny, parents: dict[str, Artifact]
) -> None:
    found = recommended(tiny_world, parents, "books")
    rows = parents["interactions"].read(["user_id", "item_id", "split"], domain="books").to_pylist()
    seen = {(row["user_id"], row["item_id"]) for row in rows if row["split"] == "train"}
    assert set(found) == {row["user_id"] for row in rows}
    for user, items in found.items():
        assert not seen & {(user, item) for item, _ in items}
        assert [score for _, score in items] == sorted((score for _, score in items), reverse=True)


def test_recommending_from_the_vectors_agrees_with_the_table(tiny_world: Tiny, parents: dict[str, Artifact]) -> None:
    recommender = Recommender(exported(tiny_world, parents))
    for user, items in recommended(tiny_world, parents, "games").items():
        one = recommender.for_user("games", user, 6).items
        assert [row.item for row in one] == [item for item, _ in items]
        assert [row.score for row in one] == pytest.approx([score for _, score in items], rel=1e-5)


def test_tensors_hold_the_vectors_in_the_order_of_the_rows(tiny_world: Tiny, parents: dict[str, Artifact]) -> None:
    embeddings = export_embeddings(tiny_world.store, TOP, parents, ONE)
    tensors = load_file(embeddings.path / "vectors" / "books.safetensors")
    table = embeddings.read(domain="books").to_pylist()
    for kind in ("user", "item"):
        expected = [row["vector"] for row in table if row["kind"] == kind]
        np.testing.assert_array_equal(tensors[f"{kind}s"], np.array(expected, np.float32))


def test_role_of_the_checkpoint_may_name_its_seed(tiny_world: Tiny, parents: dict[str, Artifact]) -> None:
    renamed = {role: artifact for role, artifact in parents.items() if role != "checkpoint"}
    renamed["checkpoint-1"] = parents["checkpoint"]
    first, second = (export_embeddings(tiny_world.store, TOP, given, ONE) for given in (parents, renamed))
    assert first.read().equals(second.read())


def test_ids_that_an_update_appended_are_exported_in_their_order(
    tiny_run: TinyRun, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of users and items then follow the run's history, not the order of ids."""

    def turned(artifacts: Mapping[str, Artifact], domain: str, allocator: Allocator) -> Catalogue:
        found = open_catalogue(artifacts, domain, allocator)
        return replace(found, user_ids=found.user_ids[::-1], item_ids=found.item_ids[::-1])

    parents = served_artifacts(tiny_run.artifacts)
    plain = export_recommendations(store, TOP, parents, ONE).read(domain="books")
    monkeypatch.setattr("model.serving.export.open_catalogue", turned)
    other = export_recommendations(store, ExportSettings(top=7), parents, ONE).read(domain="books")
    users = other["user_id"].to_pylist()
    assert users == sorted(users)
    assert set(users) == set(plain["user_id"].to_pylist())


def test_a_domain_whose_users_know_all_items_has_no_recommendations(
    tiny_run: TinyRun, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(artifacts: Mapping[str, Artifact], domain: str, allocator: Allocator) -> Catalogue:
        found = open_catalogue(artifacts, domain, allocator)
        users, items = len(found.users), len(found.items)
        every = np.arange(users + 1) * items, np.tile(np.arange(items, dtype=np.int32), users)
        return replace(found, indptr=every[0], known=every[1]) if domain == "books" else found

    monkeypatch.setattr("model.serving.export.open_catalogue", known)
    made = export_recommendations(store, ExportSettings(top=7), served_artifacts(tiny_run.artifacts), ONE)
    assert {partition["domain"] for partition in made.partitions()} == {"films", "games"}
