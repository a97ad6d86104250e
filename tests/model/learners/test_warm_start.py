"""Warm start: whose rows are kept, whose come from neighbours, and what training makes of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from tiny_world import Log, Tiny, build, random_log, seeded

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.data.dataset import load_dataset, load_interactions
from model.edda.checkpoint import load_checkpoint
from model.edda.model import Edda, TableShapes
from model.learners.warm_start import WarmStart, build_warm_start
from model.training import state
from model.training.stage import train

ONE = ComputeSettings(threads=1, state_seconds=0)
CLEAN = EvaluateSettings(candidates=5)
SMALL = TrainSettings(width=6, epochs=4, batch_size=64, learning_rate=0.03, edge_dropout=0.3, alignment=0.3)
SEED = 7
SIZES = {"books": (30, 20, 260), "films": (16, 14, 120)}
NEW = {
    "books": [("u0000", "newer", "train"), ("new", "newer", "train"), ("new", "i0000", "train"),
              ("new", "i0001", "train"), ("lone", "loner", "train")],
    "games": [("u0000", "dice", "train"), ("player", "i0000", "train"), ("player", "dice", "valid")],
}  # fmt: skip
"""`new` has the kept neighbours i0000 and i0001, `lone` none; games is a new domain that shares a user and an item."""


def added(log: Log, new: Mapping[str, Sequence[tuple[str, str, str]]]) -> Log:
    return {domain: [*log.get(domain, []), *new.get(domain, [])] for domain in [*log, *(new.keys() - log.keys())]}


def trained(world: Tiny, before: Mapping[str, Artifact] | None = None, settings: TrainSettings = SMALL) -> Artifact:
    return train(
        world.store,
        seeded(settings, SEED, CLEAN),
        {**world.parents, **(before or {})},
        ONE,
    )


def earlier(world: Tiny, checkpoint: Artifact) -> dict[str, Artifact]:
    roles = ("interactions", "nodes", "graph")
    return {f"checkpoint-{SEED}-before": checkpoint, **{f"{role}-before": world.parents[role] for role in roles}}


@pytest.fixture
def generations(store: Store) -> tuple[Tiny, Artifact, Tiny]:
    """A world, its checkpoint, and the world with what is new."""
    log = random_log(1, SIZES)
    world = build(store, log, every_pair=True)
    return world, trained(world), build(store, added(log, NEW), every_pair=True)


def start_of(generations: tuple[Tiny, Artifact, Tiny], seed: int = SEED) -> WarmStart | None:
    before, checkpoint, now = generations
    world = load_dataset(now.parents["nodes"], now.parents["graph"])
    rows = [load_interactions(now.parents["interactions"], domain, world) for domain in world.domains]
    return build_warm_start({**now.parents, **earlier(before, checkpoint)}, seed, world, rows)


def filled(start: WarmStart, now: Tiny, columns: ColumnParallel = SINGLE_PROCESS) -> tuple[Edda, Edda]:
    """The model as it is drawn, and as it starts."""
    world = load_dataset(now.parents["nodes"], now.parents["graph"])
    shape = TableShapes(
        "both", SMALL.width, world.nodes, {d.name: d.nodes for d in world.domains}, True, SMALL.intra_width
    )
    drawn, model = (Edda(shape, SEED, SMALL.initial_spread, columns) for _ in range(2))
    start.initialise(model)
    return drawn, model


def vectors(tiny: Tiny, model: Edda, domain: str) -> dict[tuple[str, str], np.ndarray]:
    """Kind, id → intra row beside inter row."""
    world = load_dataset(tiny.parents["nodes"], tiny.parents["graph"])
    union = next(of.union_nodes for of in world.domains if of.name == domain)
    tensors = model.tensors()
    rows = torch.cat([tensors[f"intra/{domain}"], tensors["inter"][torch.from_numpy(union).long()]], dim=1).numpy()
    named = tiny.parents["nodes"].read(["kind", "id"], domain=domain).to_pylist()
    return {tuple(node.values()): row for node, row in zip(named, rows, strict=True)}


def test_known_users_and_items_keep_their_rows_whatever_their_numbers(generations) -> None:
    before, checkpoint, now = generations
    model = load_checkpoint(checkpoint, load_dataset(before.parents["nodes"], before.parents["graph"])).model
    _, start = filled(start_of(generations), now)
    for domain in SIZES:
        had, has = vectors(before, model, domain), vectors(now, start, domain)
        assert all(np.array_equal(had[name], has[name]) for name in had)
    for domain in SIZES:
        assert torch.equal(model.tensors()[f"map/{domain}"], start.tensors()[f"map/{domain}"])


def test_new_ones_begin_as_the_mean_of_their_known_neighbours_or_as_usual(generations) -> None:
    *_, now = generations
    drawn, start = filled(start_of(generations), now)
    books, as_drawn = vectors(now, start, "books"), vectors(now, drawn, "books")
    np.testing.assert_allclose(
        books["user", "new"], (books["item", "i0000"] + books["item", "i0001"]) / 2, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(books["item", "newer"], books["user", "u0000"], rtol=1e-6)
    for name in (("user", "lone"), ("item", "loner")):
        np.testing.assert_array_equal(books[name], as_drawn[name])


def test_a_new_domain_has_new_tables_and_known_neighbours_in_the_common_one(generations) -> None:
    *_, now = generations
    drawn, start = filled(start_of(generations), now)
    games, books, width = vectors(now, start, "games"), vectors(now, start, "books"), SMALL.intra_width
    assert torch.equal(drawn.tensors()["intra/games"], start.tensors()["intra/games"])
    assert torch.equal(drawn.tensors()["map/games"], start.tensors()["map/games"])
    np.testing.assert_array_equal(games["user", "u0000"][width:], books["user", "u0000"][width:])
    np.testing.assert_allclose(games["user", "player"][width:], books["item", "i0000"][width:], rtol=1e-6)


def test_each_process_initialises_its_own_columns(generations) -> None:
    *_, now = generations
    start = start_of(generations)
    whole = filled(start, now)[1].tensors()
    parts = [filled(start, now, ColumnParallel(rank, 2))[1].tensors() for rank in range(2)]
    for name, tensor in whole.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts], dim=1), tensor, rtol=0, atol=1e-7)


def test_how_rows_begin_is_counted(generations) -> None:
    before, _, now = generations
    kept = {"inter", "intra/books", "intra/films"}
    found = start_of(generations).statistics(kept)["tables"]
    assert set(start_of(generations).statistics({"inter", "map/books"})["tables"]) == {"inter"}
    assert set(found) == {"inter", "intra/books", "intra/films"}
    assert found["intra/books"] == {
        "kept": before.parents["nodes"].read(["node"], domain="books").num_rows, "from_neighbours": 2, "as_usual": 2,
    }  # fmt: skip
    # In games dice has u0000 for a neighbour, player i0000.
    assert found["inter"]["from_neighbours"] == 4
    assert sum(found["inter"].values()) == load_dataset(now.parents["nodes"], now.parents["graph"]).nodes


def test_another_seed_starts_as_usual(generations) -> None:
    assert start_of(generations, seed=8) is None


def test_held_out_rows_that_were_learned_from_are_counted(store: Store) -> None:
    log = {"books": [("a", "x", "train"), ("a", "y", "train"), ("b", "x", "train"), ("b", "y", "test")]}
    moved = {"books": [("0", "x", "train"), ("a", "x", "valid"), ("a", "y", "train"), ("b", "x", "test"),
                       ("b", "y", "test"), ("b", "z", "train")]}  # fmt: skip
    world = build(store, log)
    assert start_of((world, trained(world), build(store, moved))).held_out_rows_seen == 2


def test_training_goes_on_where_it_ended_and_may_keep_the_start(generations) -> None:
    before, checkpoint, now = generations
    settings = SMALL.model_copy(update={"learning_rate": 1e-9, "epochs": 2})
    warm = trained(now, earlier(before, checkpoint), settings)
    scores = {row["epoch"]: row["value"] for row in warm.read().to_pylist() if row["metric"] == "score"}
    assert list(scores) == [0, 1, 2]
    assert warm.statistics["epoch"] == max(scores, key=lambda epoch: (scores[epoch], -epoch))
    assert warm.statistics["warm_start"]["from"] == checkpoint.key
    assert warm.key != trained(now, settings=settings).key
    model = load_checkpoint(warm, load_dataset(now.parents["nodes"], now.parents["graph"])).model
    _, start = filled(start_of(generations), now)
    torch.testing.assert_close(model.tensors()["inter"], start.tensors()["inter"], rtol=0, atol=1e-6)


def test_a_killed_warm_training_ends_with_the_same_bytes(generations, tmp_path, monkeypatch) -> None:
    before, checkpoint, now = generations
    whole = trained(now, earlier(before, checkpoint))
    saved = state.save_state

    def then_killed(folder, training, learner):
        written = saved(folder, training, learner)
        if training.epoch == 2:
            raise KeyboardInterrupt
        return written

    other = Tiny(Store(tmp_path / "other"), now.parents)
    monkeypatch.setattr(state, "save_state", then_killed)
    with pytest.raises(KeyboardInterrupt):
        trained(other, earlier(before, checkpoint))
    monkeypatch.setattr(state, "save_state", saved)
    again = trained(other, earlier(before, checkpoint))
    assert [(f.path, f.sha256) for f in again.manifest.files] == [(f.path, f.sha256) for f in whole.manifest.files]


def test_tables_of_another_width_are_refused(generations) -> None:
    before, checkpoint, now = generations
    with pytest.raises(ValueError, match="width of inter is 6, must be 4 to go on from it"):
        trained(now, earlier(before, checkpoint), SMALL.model_copy(update={"width": 4}))
