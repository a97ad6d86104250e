import importlib.util
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_world import Tiny, build, random_log, seeded

from data_contracts.seeding import generator
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.settings.ranking import BlendSettings, EvaluateSettings, ExportSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.baselines.networks import NetworkBuilder, Star
from model.baselines.two_tower import Towers
from model.data.candidates import build_held_out
from model.data.dataset import DomainData, MultiDomainData, load_dataset, load_interactions
from model.edda.checkpoint import load_checkpoint
from model.edda.graph_stack import union_stack
from model.evaluation.blend_stage import fit_blend
from model.evaluation.stage import evaluate
from model.serving.catalogue import open_catalogue
from model.serving.exact import top_items_for_users
from model.serving.export import export_embeddings, export_recommendations
from model.serving.scorer import DomainScorer
from model.training.stage import train
from pipeline.neighbours.stage import build_neighbours

ONE = ComputeSettings(threads=1, state_seconds=0)
CLEAN = EvaluateSettings(candidates=5)
MACRO_VALID_AUC = ("macro", "valid", "auc")
NETWORKS = ["shared-bottom", "mmoe", "ple", "star"]
BASELINES = ["popularity", "walks", "ials", *NETWORKS]
SMALL = TrainSettings(width=6, hidden=5, experts=2, epochs=3, batch_size=64, learning_rate=0.01)


def small(model: str, **keys: object) -> TrainSettings:
    return SMALL.model_copy(update={"model": model, **keys})


def fitted(world: Tiny, settings: TrainSettings, compute: ComputeSettings = ONE) -> Artifact:
    return train(world.store, seeded(settings, 7, CLEAN), world.without_pairs(), compute)


def tensors(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.path / "model.safetensors")


def kept_auc(checkpoint: Artifact) -> tuple[int, str, str]:
    return checkpoint.statistics["epoch"], "macro", "auc"


def content(checkpoint: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in checkpoint.manifest.files}


def scores(checkpoint: Artifact) -> list[float]:
    rows = checkpoint.read().to_pylist()
    return [row["value"] for row in rows if (row["domain"], row["metric"]) == ("macro", "score")]


HAND = {
    "a": [("u", "i", "train"), ("v", "i", "train"), ("v", "j", "train"), ("u", "k", "valid"), ("w", "k", "train")],
    "b": [("u", "j", "train"), ("x", "j", "train"), ("x", "i", "train"), ("y", "k", "train")],
}


def test_popularity_scores_items_by_how_often_they_are_trained_on(store: Store) -> None:
    found = tensors(fitted(build(store, HAND), small("popularity")))
    assert found["vectors/a"].ravel().tolist() == [1.0, 1.0, 1.0, 2.0, 1.0, 1.0]
    assert found["vectors/b"].ravel().tolist() == [1.0, 1.0, 1.0, 1.0, 2.0, 1.0]


def test_popularity_by_the_released_rules_counts_repeated_rows(store: Store) -> None:
    world = build(store, {"a": [("u", "i", "train", 5), ("v", "j", "train"), ("v", "k", "train")]})
    parents = world.without_pairs()
    found = train(
        store,
        seeded(small("popularity"), 7, EvaluateSettings(protocol="released")),
        parents,
        ONE,
    )
    assert tensors(found)["vectors/a"].ravel().tolist() == [1.0, 1.0, 5.0, 1.0, 1.0]


def test_popularity_needs_one_epoch_whatever_is_set(tiny_world: Tiny) -> None:
    assert fitted(tiny_world, small("popularity", epochs=50)).statistics["epochs"] == 1


def swept(
    weights: np.ndarray, users: np.ndarray, items: np.ndarray, l2: float, confidence: float, exponent: float
) -> tuple[np.ndarray, np.ndarray]:
    """One sweep of alternating least squares, every system solved exactly."""

    def solved(weights: np.ndarray, of: np.ndarray) -> np.ndarray:
        rows = []
        for weight in weights:
            total = np.where(weight > 0, weight, 1.0)
            penalty = l2 * (np.count_nonzero(weight) + len(of) / confidence) ** exponent
            rows.append(np.linalg.solve((of.T * total) @ of + penalty * np.eye(of.shape[1]), of.T @ weight))
        return np.array(rows)

    users = solved(weights, items)
    return users, solved(weights.T, users)


@pytest.mark.parametrize(("exponent", "call_pays_from"), [(0.0, 0.0), *product((0.5, 1.0), (0.0, 0.4, 9.0))])
def test_ials_sweeps_equal_exact_least_squares(
    store: Store, exponent: float, call_pays_from: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all frequencies, one (of two of three vectors) or none is solved by a call of its own."""
    monkeypatch.setattr("model.baselines.ials._BLOCK", 2)
    monkeypatch.setattr("model.baselines.ials._CALL_PAYS_FROM", call_pays_from)
    settings = small("ials", width=2, l2=0.5, confidence=4.0, epochs=2, frequency_exponent=exponent)
    found = tensors(fitted(build(store, {"a": HAND["a"][:3] + HAND["a"][4:]}), settings))["vectors/a"].numpy()
    start = generator(7, "ials", "a").random((6, 2), dtype=np.float32) * 0.01
    weights = 4.0 * np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], np.float64)
    users, items = start[:3].astype(np.float64), start[3:].astype(np.float64)
    for _ in range(2):
        users, items = swept(weights, users, items, 0.5, 4.0, exponent)
    assert np.allclose(found, np.concatenate([users, items]), rtol=1e-4, atol=1e-6)


def test_without_the_library_ials_says_what_to_install(tiny_world: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="implicit is not installed; run `pip install"):
        fitted(tiny_world, small("ials"))


def test_the_union_graph_has_every_domains_edges_once(store: Store) -> None:
    world = build(store, {"a": [("u", "i", "train"), ("v", "j", "train")], "b": [("u", "i", "train")]})
    stack = union_stack(load_dataset(world.parents["nodes"], world.parents["graph"]))
    assert (stack.graph_count, stack.nodes.tolist(), stack.indices.tolist()) == (1, [0, 1, 2, 3], [2, 3, 0, 1])


def two_domains() -> MultiDomainData:
    empty = np.zeros(0, np.int32)
    unions = {"a": np.array([0, 2], np.int32), "b": np.array([1, 3], np.int32)}
    domains = (DomainData(name, 1, 1, union, np.zeros(3, np.int64), empty) for name, union in unions.items())
    return MultiDomainData(tuple(domains), 2, 2)


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0)


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)


def mixed(gate: np.ndarray, x: np.ndarray, opinions: np.ndarray) -> np.ndarray:
    return np.einsum("ne,enh->nh", softmax(x @ gate), opinions)


def expected_of(model: str, w: dict[str, np.ndarray], x: np.ndarray, d: int) -> np.ndarray:
    def head(hidden: np.ndarray) -> np.ndarray:
        return hidden @ w["heads.weights"][d] + w["heads.biases"][d]

    def experts(level: str, x: np.ndarray, group: int) -> np.ndarray:
        return relu(np.einsum("ni,eih->enh", x, w[f"{level}.weights"][group]) + w[f"{level}.biases"][group])

    if model == "shared-bottom":
        return head(relu(x @ w["weights"] + w["biases"]))
    if model == "mmoe":
        return head(mixed(w["gates.weights"][d], x, experts("experts", x, 0)))
    if model == "star":
        for level in ("first", "second"):
            weights = w[f"{level}.weights"] * w[f"{level}.own_weights"][d]
            y = x @ weights + w[f"{level}.biases"] + w[f"{level}.own_biases"][d]
            x = relu(y) if level == "first" else y
        return x
    every = [experts("first", x, group) for group in range(3)]
    own = mixed(w["own.weights"][d], x, np.concatenate([every[d], every[2]]))
    common = mixed(w["all.weights"][0], x, np.concatenate(every))
    later = np.concatenate([experts("second", own, d), experts("second", common, 2)])
    return head(mixed(w["last.weights"][d], own, later))


@pytest.mark.parametrize("model", NETWORKS)
def test_networks_equal_their_formulas(model: str) -> None:
    towers = Towers(small(model), two_domains(), 3)
    random = np.random.default_rng(5)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.copy_(torch.from_numpy(random.normal(size=parameter.shape)))
    x = random.normal(size=(7, 6)).astype(np.float32)
    for domain in (0, 1):
        found = towers(torch.from_numpy(x), 4, domain).detach().numpy()
        for kind, rows in ((towers.users, slice(0, 4)), (towers.items, slice(4, 7))):
            weights = {name: value.numpy().astype(np.float64) for name, value in kind.state_dict().items()}
            assert np.allclose(found[rows], expected_of(model, weights, x[rows], domain), rtol=1e-4, atol=1e-4)


def test_star_starts_with_the_shared_weights_in_every_domain() -> None:
    star, x = Star(NetworkBuilder(SMALL, 2, 1, "user")), torch.ones(1, 6)
    assert torch.equal(star(x, 0), star(x, 1))


@pytest.mark.parametrize("model", ["ials", *NETWORKS])
def test_baselines_learn_what_users_prefer(store: Store, model: str) -> None:
    world = build(store, random_log(1, {"a": (60, 40, 900), "b": (40, 40, 500)}))
    l2 = 10.0 if model == "ials" else 1e-4
    found = fitted(world, small(model, width=16, hidden=16, epochs=30, l2=l2, select_by="auc"))
    assert found.statistics["score"] == max(scores(found)) > 0.62


@pytest.mark.parametrize("model", BASELINES)
def test_one_and_two_threads_end_with_the_same_bytes(tiny_world: Tiny, tmp_path: Path, model: str) -> None:
    other = Tiny(Store(tmp_path / "other"), tiny_world.parents)
    one, two = fitted(tiny_world, small(model)), fitted(other, small(model), ComputeSettings(threads=2))
    assert content(one) == content(two)


@pytest.mark.parametrize("model", ["ials", *NETWORKS])
def test_an_interrupted_baseline_continues_to_the_same_bytes(tiny_world: Tiny, tmp_path: Path, model: str) -> None:
    def stop(done: int, total: int, unit: str, note: str = "") -> None:
        raise KeyboardInterrupt

    other = Store(tmp_path / "other")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(
                other,
                seeded(small(model), 7, CLEAN),
                tiny_world.without_pairs(),
                ONE,
                stop,
            )
    again = fitted(Tiny(other, tiny_world.parents), small(model))
    assert len(again.statistics["epoch_seconds"]) == 1
    assert content(again) == content(fitted(tiny_world, small(model)))


@pytest.mark.parametrize("objective", ["softmax", "sl@k"])
def test_a_network_trained_on_cosines_keeps_vectors_of_length_one_and_continues_to_the_same_bytes(
    tiny_world: Tiny, tmp_path: Path, objective: str
) -> None:
    def stop(done: int, total: int, unit: str, note: str = "") -> None:
        raise KeyboardInterrupt

    settings, other = small("mmoe", objective=objective, negatives=20), Store(tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        train(other, seeded(settings, 7, CLEAN), tiny_world.without_pairs(), ONE, stop)
    again, whole = fitted(Tiny(other, tiny_world.parents), settings), fitted(tiny_world, settings)
    assert content(again) == content(whole) != content(fitted(tiny_world, small("mmoe", negatives=20)))
    for vectors in tensors(whole).values():
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


@pytest.mark.parametrize("model", BASELINES)
def test_a_domain_without_train_rows_is_no_error(store: Store, model: str) -> None:
    log = {**random_log(1, {"a": (10, 8, 60)}), "b": [("u", "i", "test")]}
    assert set(tensors(fitted(build(store, log), small(model)))) == {"vectors/a", "vectors/b"}


@pytest.mark.parametrize("model", BASELINES)
def test_the_global_generators_are_left_alone(tiny_world: Tiny, model: str) -> None:
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted(tiny_world, small(model, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002


@pytest.mark.parametrize("model", BASELINES)
def test_what_is_evaluated_and_exported_is_what_validated(tiny_world: Tiny, model: str) -> None:
    checkpoint = fitted(tiny_world, small(model))
    parents = {**tiny_world.without_pairs(), "checkpoint-7": checkpoint}
    metrics = evaluate(tiny_world.store, CLEAN, parents, ONE)["metrics"].read().to_pylist()
    (auc,) = [row["value"] for row in metrics if (row["domain"], row["split"], row["metric"]) == MACRO_VALID_AUC]
    measured = checkpoint.read().to_pylist()
    (best,) = [row["value"] for row in measured if (row["epoch"], row["domain"], row["metric"]) == kept_auc(checkpoint)]
    assert auc == pytest.approx(best, abs=1e-12)
    embeddings = export_embeddings(tiny_world.store, ExportSettings(), parents, ONE)
    vectors = embeddings.read(["vector"], domain="games")["vector"].to_pylist()
    assert np.array_equal(np.array(vectors, np.float32), tensors(checkpoint)["vectors/games"].numpy())
    catalogue = open_catalogue({"embeddings": embeddings, "graph": tiny_world.parents["graph"]}, "games")
    assert (top_items_for_users(DomainScorer(catalogue, None), np.arange(1), 3)[0] >= 0).sum() == 3


@pytest.mark.parametrize("model", ["edda", *BASELINES])
def test_every_model_may_have_evidence_beside_its_vectors(tiny_world: Tiny, model: str) -> None:
    store, prepared = tiny_world.store, tiny_world.without_pairs()
    prepared["neighbours"] = build_neighbours(store, NeighboursSettings(), prepared, ONE)
    parents = {
        **prepared,
        "checkpoint-7": train(store, seeded(small(model, alignment=0.0), 7, CLEAN), prepared, ONE),
    }
    alone = evaluate(store, CLEAN, parents, ONE)["metrics"]
    parents["blend-7"] = fit_blend(store, BlendSettings(), parents, ONE)
    measured = [validation_ndcg(metrics) for metrics in (alone, evaluate(store, CLEAN, parents, ONE)["metrics"])]
    embeddings = {"embeddings": export_embeddings(store, ExportSettings(), parents, ONE)}
    listed = export_recommendations(store, ExportSettings(), {**parents, **embeddings}, ONE)
    for row in parents["blend-7"].read().to_pylist():
        if row["chosen"]:
            assert row["full_ndcg@20"] == pytest.approx(measured[1][row["domain"]])
            assert row["full_ndcg@20"] >= measured[0][row["domain"]] - 1e-6
            assert row["share"] == 1.0 or model != "walks"
    assert {part["domain"] for part in listed.partitions()} == set(measured[0]) - {"macro"}


def validation_ndcg(metrics: Artifact) -> dict[str, float]:
    """Full NDCG@20 by domain."""
    wanted = "valid", "all", "full_ndcg@20"
    rows = metrics.read().to_pylist()
    return {row["domain"]: row["value"] for row in rows if (row["split"], row["stratum"], row["metric"]) == wanted}


def test_walks_alone_rank_by_what_users_of_the_same_items_have(store: Store) -> None:
    """u has i; v, who has i too, has j; nobody of them has k: u is shown j before k, whose score is 0."""
    world = build(store, {"a": [("u", "i", "train"), ("v", "i", "train"), ("v", "j", "train"), ("w", "k", "train")]})
    parents = world.without_pairs()
    parents["neighbours"] = build_neighbours(store, NeighboursSettings(), parents, ONE)
    parents["checkpoint-7"] = train(store, seeded(small("walks"), 7, CLEAN), parents, ONE)
    parents["blend-7"] = fit_blend(store, BlendSettings(), parents, ONE)
    parents["embeddings"] = export_embeddings(store, ExportSettings(), parents, ONE)
    listed = export_recommendations(store, ExportSettings(), parents, ONE).read().to_pylist()
    assert [(row["item_id"], row["score"] > 0) for row in listed if row["user_id"] == "u"] == [
        ("j", True),
        ("k", False),
    ]


def test_baselines_rank_the_candidates_that_edda_ranks(tiny_world: Tiny) -> None:
    world = load_dataset(tiny_world.parents["nodes"], tiny_world.parents["graph"])
    domain = world.domains[0]
    held = build_held_out(load_interactions(tiny_world.parents["interactions"], domain, world), domain, "valid", CLEAN)
    checkpoint = load_checkpoint(fitted(tiny_world, small("popularity")), world)
    own = next(iter(checkpoint.vectors(world))).ravel().numpy()[domain.users :]
    first = float(np.mean((own[held.candidates] < own[held.items][:, None]).all(axis=1)))
    measured = fitted(tiny_world, small("popularity")).read().to_pylist()
    assert [row["value"] for row in measured if (row["domain"], row["metric"]) == ("books", "recall@1")] == [first]


def test_a_baselines_checkpoint_of_another_world_is_refused(tiny_world: Tiny, tmp_path: Path) -> None:
    other = build(Store(tmp_path / "other"), {"a": [("u", "i", "train")]})
    world = load_dataset(other.parents["nodes"], other.parents["graph"])
    with pytest.raises(ValueError, match="train again on these nodes"):
        load_checkpoint(fitted(tiny_world, small("popularity")), world)


def test_a_key_that_a_model_does_not_look_at_makes_no_new_checkpoint() -> None:
    def inputs(**keys: object) -> str:
        return json.dumps(seeded(TrainSettings(**keys), 1, CLEAN).keyed())

    assert inputs(model="mmoe", alignment=0.5) == inputs(model="mmoe")
    assert inputs(experts=4) == inputs()
    assert inputs(model="mmoe", experts=4) != inputs(model="mmoe")
    assert inputs(model="popularity", learning_rate=1.0) == inputs(model="popularity")
    assert inputs(model="ials", objective="softmax") == inputs(model="ials")
    assert inputs(frequency_exponent=0.3, contrast_noise=0.3) == inputs() != inputs(contrast=0.3)
    assert inputs(contrast=0.3, contrast_noise=0.3) != inputs(contrast=0.3)
    assert inputs(model="ials", frequency_exponent=0.3) != inputs(model="ials")
    assert inputs(temperature=0.3, weight_temperature=0.3) == inputs()
    assert inputs(objective="softmax", weight_temperature=0.3) == inputs(objective="softmax") != inputs()
    assert inputs(objective="softmax", negative_weight=3.0) == inputs(objective="softmax")
    assert inputs(objective="squared", temperature=0.3) == inputs(objective="squared") != inputs()
    assert inputs(objective="squared", negative_weight=3.0) != inputs(objective="squared")
    assert inputs(objective="softmax", temperature=0.3) != inputs(objective="softmax")
    assert inputs(objective="sl@k", weight_temperature=0.3) != inputs(objective="sl@k")


def test_settings_that_are_newer_than_the_first_checkpoints_are_no_part_of_their_keys() -> None:
    for model in ("edda", *BASELINES):
        newer = {"objective", "temperature", "weight_temperature", "frequency_exponent", "contrast", "contrast_noise"}
        assert not newer & set(TrainSettings(model=model).keyed())


@pytest.mark.parametrize("model", BASELINES)
def test_keys_left_out_of_a_checkpoints_key_change_nothing(tiny_world: Tiny, tmp_path: Path, model: str) -> None:
    """Another value of every such key in turn, with the first key's store so that nothing is found by its key."""
    changed = {
        "confidence": 3.0, "hidden": 7, "experts": 4, "backbone": "mf", "tables": "intra", "residual": 0.3,
        "alignment": 0.9, "layers": 1, "edge_dropout": 0.1, "engine": "native", "initial_spread": 0.2,
        "batch_size": 32, "negatives": 3, "order": "sequential", "learning_rate": 0.2, "inter_graph": "by-domain",
        "width": 3, "l2": 0.3, "device": "cpu", "temperature": 0.3, "weight_temperature": 0.3,
        "contrast": 0.3, "contrast_noise": 0.3,
        **({} if model == "ials" else {"frequency_exponent": 0.5}),
    }  # fmt: skip
    settings = small(model)
    ignored = {key: value for key, value in changed.items() if key not in settings.keyed()}
    other = Tiny(Store(tmp_path / "other"), tiny_world.parents)
    assert content(fitted(other, small(model, **ignored))) == content(fitted(tiny_world, settings))
