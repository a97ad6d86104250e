import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import Tiny, build, random_log, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.data.dataset import load_dataset
from model.edda.checkpoint import load_checkpoint
from model.evaluation.stage import evaluate
from model.training import stage as train_module
from model.training.stage import _describe_epoch, _log_end, train
from model.training.state import Training

ONE = ComputeSettings(threads=1, state_seconds=0)
CLEAN = EvaluateSettings(candidates=5)
SMALL = TrainSettings(width=8, epochs=3, batch_size=64, learning_rate=0.01, edge_dropout=0.3, alignment=0.3)

COSINES = SMALL.model_copy(update={"objective": "softmax", "negatives": 24, "l2": 1e-4})
TOP_K = COSINES.model_copy(update={"objective": "sl@k"})
SQUARED = COSINES.model_copy(update={"objective": "squared"})
CONTRAST = SMALL.model_copy(update={"backbone": "lightgcn", "contrast": 0.2})
OBJECTIVES = [pytest.param(settings, id=settings.objective) for settings in (SMALL, SQUARED, COSINES, TOP_K)]
PAIRS = SMALL.model_copy(update={"alignment_loss": "contrast", "pair_edges": 0.5, "intra_shared_at_most": 1.0})
LOSSES = [*OBJECTIVES, pytest.param(CONTRAST, id="contrast"), pytest.param(PAIRS, id="pairs")]


def fitted(world: Tiny, settings: TrainSettings = SMALL, compute: ComputeSettings = ONE) -> Artifact:
    parents = world.parents if settings.alignment and settings.tables != "inter" else world.without_pairs()
    return train(world.store, seeded(settings, 7, CLEAN), parents, compute)


def content(checkpoint: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in checkpoint.manifest.files}


def history(checkpoint: Artifact) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for row in checkpoint.read().to_pylist():
        found.setdefault((row["domain"], row["metric"]), []).append(row["value"])
    return found


def test_training_learns_what_users_prefer(tiny_world: Tiny) -> None:
    settings = SMALL.model_copy(update={"epochs": 30, "learning_rate": 0.03})
    found = history(fitted(tiny_world, settings))
    assert max(found["books", "auc"]) > 0.65
    assert found["books", "loss"][-1] < found["books", "loss"][0]


@pytest.mark.parametrize("settings", OBJECTIVES[1:])
def test_cosine_objectives_learn_what_users_prefer(tiny_world: Tiny, settings: TrainSettings) -> None:
    checkpoint = fitted(tiny_world, settings.model_copy(update={"epochs": 15, "select_by": "auc", "alignment": 0.0}))
    assert checkpoint.statistics["score"] > 0.62


@pytest.mark.parametrize("settings", [*OBJECTIVES, LOSSES[-1]])
def test_a_loaded_checkpoint_scores_as_the_epoch_that_was_kept(tiny_world: Tiny, settings: TrainSettings) -> None:
    """With cosines all vectors have length 1, and model.json says so; else it says nothing about it."""
    checkpoint = fitted(tiny_world, settings)
    parents = {**tiny_world.without_pairs(), "checkpoint-7": checkpoint}
    metrics = evaluate(tiny_world.store, CLEAN, parents, ONE)["metrics"].read().to_pylist()
    (auc,) = [
        row["value"] for row in metrics if (row["domain"], row["split"], row["metric"]) == ("macro", "valid", "auc")
    ]
    assert auc == pytest.approx(history(checkpoint)["macro", "auc"][checkpoint.statistics["epoch"] - 1], abs=1e-12)
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    lengths = [vectors.norm(dim=1) for vectors in load_checkpoint(checkpoint, world).vectors(world)]
    is_cosine = settings.objective in {"softmax", "sl@k"}
    assert all(torch.allclose(each, torch.ones(())) for each in lengths) == is_cosine
    metadata = json.loads((checkpoint.path / "model.json").read_text())
    assert metadata.get("normalised") == (True if is_cosine else None)
    assert metadata.get("joins_pairs") == (True if settings.pair_edges else None)


def test_history_holds_losses_alignment_and_validation_of_every_domain(tiny_world: Tiny) -> None:
    found = history(fitted(tiny_world, SMALL.model_copy(update={"intra_shared_at_most": 1.0})))
    of_books = {metric for domain, metric in found if domain == "books"}
    assert of_books == {
        "loss", "alignment to films", "alignment to games", "map_norm", "map_spread", "auc", "recall@1", "recall@3",
        "full_ndcg@20",
    }  # fmt: skip
    of_macro = {metric for domain, metric in found if domain == "macro"}
    assert of_macro == {"auc", "recall@1", "recall@3", "full_ndcg@20", "score"}
    assert all(len(values) == 3 for values in found.values())


@pytest.mark.parametrize(("select_by", "metric"), [("auc", "auc"), ("full_ndcg@20", "full_ndcg@20")])
def test_the_score_weighs_a_domain_less_the_fewer_rows_it_has(tiny_world: Tiny, select_by: str, metric: str) -> None:
    found = history(fitted(tiny_world, SMALL.model_copy(update={"select_by": select_by})))
    rows = {
        domain: sum(
            split == "valid"
            for split in tiny_world.parents["interactions"].read(["split"], domain=domain)["split"].to_pylist()
        )
        for domain in ("books", "films", "games")
    }
    weights = [count / (count + 1000) for count in rows.values()]
    expected = np.average([found[domain, metric][0] for domain in rows], weights=weights)
    assert found["macro", "score"][0] == pytest.approx(expected)


def test_the_epoch_with_the_best_validation_score_is_kept(tiny_world: Tiny) -> None:
    settings = SMALL.model_copy(update={"epochs": 8, "learning_rate": 0.1})
    checkpoint = fitted(tiny_world, settings)
    scores = history(checkpoint)["macro", "score"]
    assert checkpoint.statistics["epoch"] == 1 + scores.index(max(scores))
    short = fitted(tiny_world, settings.model_copy(update={"epochs": checkpoint.statistics["epoch"]}))
    assert content(short)["model.safetensors"] == content(checkpoint)["model.safetensors"]


def test_training_stops_when_patience_is_exhausted(tiny_world: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = fitted(tiny_world, SMALL.model_copy(update={"epochs": 200, "patience": 2, "learning_rate": 0.3}))
    assert found.statistics["epochs"] == found.statistics["epoch"] + 2 < 200
    best = found.statistics["epoch"]
    assert f"stopped after epoch {best + 2} of at most 200: no better one since epoch {best}" in caplog.text


def test_a_best_epoch_that_is_the_last_one_is_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _log_end(Training(epoch=7, best_epoch=7, best_score=0.5), 7)
    _log_end(Training(epoch=7, best_epoch=7), 7)
    _log_end(Training(epoch=7, best_epoch=6, best_score=0.5), 7)
    _log_end(Training(epoch=1, best_epoch=1, best_score=0.5), 1)
    assert caplog.messages == ["epoch 7, the last one, is the best: more epochs (train.epochs) might be better"]


def test_an_epoch_is_one_line_with_the_time_that_is_left_by_this_attempts_epochs() -> None:
    resumed = Training(epoch=29, best_epoch=28, best_score=0.5)
    assert _describe_epoch(2023, resumed, 40, [207.0]) == "seed 2023, epoch 29 of 40: nothing to learn from, 207 s"
    resumed.epoch = 31  # 9 epochs of 5 s are left; the first one of the attempt compiled kernels
    line = "seed 2023, epoch 31 of 40: nothing to learn from, 6.25 s, 45 s left"
    assert _describe_epoch(2023, resumed, 40, [207.0, 4.0, 5.0, 6.25]) == line
    resumed.epoch = 40
    assert _describe_epoch(2023, resumed, 40, [5.0, 5.0]).endswith("from, 5 s")


@pytest.mark.parametrize("backbone", ["grec", "lightgcn", "jgcf", "mf"])
@pytest.mark.parametrize("tables", ["both", "inter", "intra"])
def test_every_backbone_trains_with_every_choice_of_tables(tiny_world: Tiny, backbone: str, tables: str) -> None:
    checkpoint = fitted(tiny_world, SMALL.model_copy(update={"backbone": backbone, "tables": tables, "epochs": 1}))
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    assert load_checkpoint(checkpoint, world).model.shape.tables == tables


@pytest.mark.parametrize("settings", LOSSES)
def test_one_and_two_threads_end_with_the_same_bytes(tiny_world: Tiny, tmp_path: Path, settings: TrainSettings) -> None:
    other = Tiny(Store(tmp_path / "other"), tiny_world.parents)
    assert content(fitted(tiny_world, settings)) == content(fitted(other, settings, ComputeSettings(threads=2)))


def test_another_seed_ends_with_other_tensors(tiny_world: Tiny) -> None:
    other = train(tiny_world.store, seeded(SMALL, 8, CLEAN), tiny_world.parents, ONE)
    assert content(fitted(tiny_world))["model.safetensors"] != content(other)["model.safetensors"]


def test_threads_are_restored_after_training(tiny_world: Tiny) -> None:
    before = torch.get_num_threads()
    fitted(tiny_world, SMALL.model_copy(update={"epochs": 1}), ComputeSettings(threads=before + 1))
    assert torch.get_num_threads() == before


def test_the_global_generators_are_left_alone(tiny_world: Tiny) -> None:
    before = torch.get_rng_state()
    fitted(tiny_world, SMALL.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_again_does_nothing(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(tiny_world)
    monkeypatch.setattr(train_module, "_write", None)
    assert fitted(tiny_world).key == first.key


@pytest.mark.parametrize("settings", LOSSES)
def test_an_interrupted_training_continues_to_the_same_bytes(
    tiny_world: Tiny, tmp_path: Path, settings: TrainSettings
) -> None:
    whole = fitted(tiny_world, settings)
    other = Tiny(Store(tmp_path / "other"), tiny_world.parents)

    def stop(done: int, total: int, unit: str, note: str = "") -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(other.store, seeded(settings, 7, CLEAN), other.parents, ONE, stop)
    again = fitted(other, settings)
    assert len(again.statistics["epoch_seconds"]) == 0
    assert content(again) == content(whole)


KILLED = """
import json, sys
from pathlib import Path
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import CheckpointSettings, TrainSettings
from data_contracts.store.store import Store, open_artifact
from model.training.stage import train
store, settings, paths = Store(sys.argv[1]), TrainSettings(**json.loads(sys.argv[2])), json.loads(sys.argv[3])
parents = {role: open_artifact(Path(path)) for role, path in paths.items()}
chosen = CheckpointSettings(train=settings, seed=7, validation=EvaluateSettings(candidates=5))
train(store, chosen, parents, ComputeSettings(threads=1, state_seconds=0), lambda done, *_: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_training_killed_at_any_moment_continues_to_the_same_bytes(tiny_world: Tiny, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"epochs": 60, "patience": 60})
    store = Store(tmp_path / "killed")
    paths = {role: str(artifact.path) for role, artifact in tiny_world.parents.items()}
    arguments = [sys.executable, "-c", KILLED, str(store.root), settings.model_dump_json(), json.dumps(paths)]
    done = 0
    for wait in (0.0, 0.011):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == done + 1
        process.stdout.readline()
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        done += 2 + len(process.stdout.read().split())
        process.wait()
        process.stdout.close()
        done = int(torch.load(max(store.root.rglob("state-*.pt"), key=os.path.getmtime), weights_only=True)["epoch"])
    assert done < 60
    killed = Tiny(store, tiny_world.parents)
    assert content(fitted(killed, settings)) == content(fitted(tiny_world, settings))


def test_without_validation_rows_the_last_epoch_is_kept(store: Store) -> None:
    log = {"a": [row for row in random_log(1, {"a": (10, 8, 60)})["a"] if row[2] != "valid"]}
    assert fitted(build(store, log)).statistics["epoch"] == 3


def test_a_domain_without_validation_rows_does_not_enter_the_mean(store: Store) -> None:
    log = random_log(1, {"a": (10, 8, 60), "b": (8, 8, 40)})
    log["b"] = [row for row in log["b"] if row[2] != "valid"]
    found = history(fitted(build(store, log)))
    assert found["macro", "auc"] == found["a", "auc"]
    assert ("b", "auc") not in found


def test_a_domain_of_one_user_and_one_item_trains(store: Store) -> None:
    log = {**random_log(1, {"a": (10, 8, 60)}), "b": [("solo", "only", "train")]}
    found = history(fitted(build(store, log)))
    assert ("b", "loss") not in found
    assert ("a", "loss") in found


def test_a_domain_without_train_rows_trains_nothing(store: Store) -> None:
    log = {**random_log(1, {"a": (10, 8, 60)}), "b": [("u", "i", "test")]}
    assert ("b", "loss") not in history(fitted(build(store, log)))


def test_a_world_without_domains_is_an_error(store: Store) -> None:
    with pytest.raises(ValueError, match="there is no domain"):
        fitted(build(store, {}))


def test_a_checkpoint_of_another_world_is_refused(tiny_world: Tiny, tmp_path: Path) -> None:
    other = build(Store(tmp_path / "other"), {"a": [("u", "i", "train")]})
    world = load_dataset(other.parents["nodes"], other.parents["graph"])
    with pytest.raises(ValueError, match="train again on these nodes"):
        load_checkpoint(fitted(tiny_world), world)


def test_released_protocol_trains_on_repeated_rows(store: Store, tmp_path: Path) -> None:
    log = {"a": [("u", "i", "train", 5), ("v", "j", "train"), ("v", "k", "train"), ("u", "k", "valid")]}
    world = build(store, log)
    protocols = [
        train(
            world.store,
            seeded(SMALL, 7, EvaluateSettings(protocol=protocol)),
            world.parents,
            ONE,
        )
        for protocol in ("clean", "released")
    ]
    assert content(protocols[0])["model.safetensors"] != content(protocols[1])["model.safetensors"]


def test_digest_of_a_checkpoint_is_what_its_manifest_says(tiny_world: Tiny) -> None:
    checkpoint = fitted(tiny_world)
    bytes_ = (checkpoint.path / "model.safetensors").read_bytes()
    assert content(checkpoint)["model.safetensors"] == hashlib.sha256(bytes_).hexdigest()
