import numpy as np
import oracle_model
import pyarrow as pa
import torch
from tiny_world import Tiny, build

from data_contracts.store.store import Store
from model.data.candidates import known_items
from model.data.dataset import DomainData, Interactions, load_dataset, load_interactions
from model.evaluation.ranking import TOP, rank_held_out
from model.serving.catalogue import Catalogue
from model.serving.export import top_items_by_user


def loaded(world: Tiny, name: str) -> tuple[Interactions, DomainData, torch.Tensor]:
    numbers = load_dataset(world.parents["nodes"], world.parents["graph"])
    (domain,) = (domain for domain in numbers.domains if domain.name == name)
    coarse = torch.randint(-2, 3, (domain.nodes, 3), generator=torch.Generator().manual_seed(4)).float()
    return load_interactions(world.parents["interactions"], domain, numbers), domain, coarse


def full_ranks(
    vectors: torch.Tensor, domain: DomainData, rows: Interactions, split: str
) -> tuple[np.ndarray, np.ndarray]:
    candidates = np.empty((rows.for_split(split).users.size, 0), np.int32)
    ranking = rank_held_out(vectors, domain, rows, split, candidates)
    return ranking.users, ranking.ranks


def known(rows: Interactions, user: int, splits: tuple[int, ...]) -> set[int]:
    return set(rows.items[(rows.users == user) & np.isin(rows.split, splits)].tolist())


def test_full_ranks_equal_counting_with_train_items_masked(tiny_world: Tiny) -> None:
    rows, domain, vectors = loaded(tiny_world, "books")
    scores = (vectors[: domain.users] @ vectors[domain.users :].T).numpy()
    users, ranks = full_ranks(vectors, domain, rows, "valid")
    held = rows.for_split("valid")
    expected = [
        oracle_model.pessimistic_rank(scores[user], item, known(rows, user, (0,)))
        for user, item in zip(held.users, held.items, strict=True)
    ]
    assert users.tolist() == held.users.tolist()
    assert ranks.tolist() == expected


def test_full_ranks_of_test_rows_mask_validation_items_too(tiny_world: Tiny) -> None:
    rows, domain, vectors = loaded(tiny_world, "films")
    scores = (vectors[: domain.users] @ vectors[domain.users :].T).numpy()
    held = rows.for_split("test")
    expected = [
        oracle_model.pessimistic_rank(scores[user], item, known(rows, user, (0, 1)))
        for user, item in zip(held.users, held.items, strict=True)
    ]
    assert full_ranks(vectors, domain, rows, "test")[1].tolist() == expected


def test_a_held_out_row_that_repeats_a_train_row_is_not_ranked(store: Store) -> None:
    world = build(store, {"a": [("u", "i", "train"), ("u", "i", "test"), ("u", "j", "test")]})
    assert full_ranks(*reordered(world, "a"), "test")[0].tolist() == [0]


def reordered(world: Tiny, name: str) -> tuple[torch.Tensor, DomainData, Interactions]:
    rows, domain, vectors = loaded(world, name)
    return vectors, domain, rows


def test_ranks_do_not_depend_on_the_block(tiny_world: Tiny, monkeypatch) -> None:
    arguments = reordered(tiny_world, "books")
    whole = full_ranks(*arguments, "test")[1]
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * 20 * 3)
    assert full_ranks(*arguments, "test")[1].tolist() == whole.tolist()


def test_lists_leave_out_train_items_only_and_order_ties_by_number(tiny_world: Tiny, monkeypatch) -> None:
    vectors, domain, rows = reordered(tiny_world, "books")
    scores = (vectors[: domain.users] @ vectors[domain.users :].T).numpy()
    users = np.unique(rows.for_split("test").users)
    candidates = np.empty((rows.for_split("test").users.size, 0), np.int32)
    expected = []
    for user in users:
        shown = np.setdiff1d(np.arange(domain.items), list(known(rows, user, (0,))))
        best = shown[np.argsort(-scores[user, shown], kind="stable")][:TOP]
        expected.append([*best.tolist(), *[-1] * (TOP - best.size)])
    assert rank_held_out(vectors, domain, rows, "test", candidates).lists.tolist() == expected
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * 20 * 3)
    assert rank_held_out(vectors, domain, rows, "test", candidates).lists.tolist() == expected


def catalogue(rows: Interactions, domain: DomainData, vectors: torch.Tensor) -> Catalogue:
    """The domain as it is read when it is exported, users' ids in the order of their numbers."""
    users, items = vectors.numpy()[: domain.users], vectors.numpy()[domain.users :]
    indptr, known = known_items(rows, domain.users, (0,))
    ids = pa.array([f"{user:04d}" for user in range(domain.users)], pa.large_string())
    return Catalogue(domain.name, ids, None, users, items, indptr, known, np.zeros(domain.items, np.int64))


def test_best_items_leave_out_train_items_and_break_ties_by_number(tiny_world: Tiny, monkeypatch) -> None:
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * 20 * 7)
    rows, domain, vectors = loaded(tiny_world, "books")
    scores = (vectors[: domain.users] @ vectors[domain.users :].T).numpy()
    found: list[list[int]] = []
    for _, items, _ in top_items_by_user(catalogue(rows, domain, vectors), 8):
        found += [[item for item in row if item >= 0] for row in items.tolist()]
    for user in range(domain.users):
        assert found[user] == oracle_model.best_items(scores[user], known(rows, user, (0,)), 8)


def test_a_user_who_knows_all_items_gets_none(store: Store) -> None:
    ((users, items, _),) = top_items_by_user(catalogue(*loaded(build(store, {"a": [("u", "i", "train")]}), "a")), 3)
    assert (users.tolist(), items.tolist()) == ([0], [[-1, -1, -1]])
