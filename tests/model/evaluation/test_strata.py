import numpy as np
import pytest
from tiny_world import build

from data_contracts.contracts import HISTORY_STRATA, ITEM_STRATA, STRATA, USER_STRATA
from data_contracts.store.store import Store
from model.data.dataset import Interactions, MultiDomainData, load_dataset, load_interactions
from model.evaluation.strata import Strata

BOOKS = [
    *[("eleven", f"b{number}", "train") for number in range(10)],
    ("one", "b0", "train"), ("two", "b0", "train"), ("three", "b1", "train"), ("three", "b2", "train"),
    ("one", "b1", "test"), ("two", "b2", "test"), ("three", "both", "test"), ("eleven", "both", "test"),
    ("stranger", "b3", "test"),
]  # fmt: skip
FILMS = [
    ("two", "both", "train"), ("three", "f1", "train"), ("eleven", "f1", "train"), ("stranger", "f1", "valid"),
    ("two", "f1", "test"),
]  # fmt: skip


def loaded(store: Store, log: dict[str, list[tuple[str, str, str]]]) -> tuple[MultiDomainData, list[Interactions]]:
    world = build(store, log)
    dataset = load_dataset(world.parents["nodes"], world.parents["graph"])
    rows = [load_interactions(world.parents["interactions"], domain, dataset) for domain in dataset.domains]
    return dataset, [of_domain.for_split("test") for of_domain in rows]


def held_out(strata: Strata, rows: Interactions, ids: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    return {name: [ids[row] for row in np.flatnonzero(inside)] for name, inside in strata.split(rows)}


def test_rows_are_divided_by_train_rows_in_all_domains_and_by_the_domains_of_user_and_item(store: Store) -> None:
    dataset, (books, films) = loaded(store, {"books": BOOKS, "films": FILMS})
    ids = sorted((user, item) for user, item, split in BOOKS if split == "test")  # in the order of their numbers
    assert held_out(Strata.build(dataset), books, ids) == {
        "history 0": [("stranger", "b3")],
        "history 1-2": [("one", "b1"), ("two", "b2")],  # one: 1 row of books; two: 1 of books and 1 of films
        "history 3-5": [("three", "both")],  # 2 of books and 1 of films
        "history 11+": [("eleven", "both")],  # 10 of books and 1 of films
        "user in one domain": [("one", "b1")],
        "user in several domains": [("eleven", "both"), ("stranger", "b3"), ("three", "both"), ("two", "b2")],
        "item in one domain": [("one", "b1"), ("stranger", "b3"), ("two", "b2")],
        "item in several domains": [("eleven", "both"), ("three", "both")],
    }
    assert held_out(Strata.build(dataset), films, [("two", "f1")]) == {
        "history 1-2": [("two", "f1")], "user in several domains": [("two", "f1")],
        "item in one domain": [("two", "f1")],
    }  # fmt: skip


def test_an_item_that_a_user_has_in_two_domains_counts_twice(store: Store) -> None:
    rows = [("u", "i", "train"), ("u", "j", "train"), ("u", "k", "test"), ("v", "k", "train")]
    dataset, (books, _) = loaded(store, {"books": rows, "films": rows[:2]})
    assert next(Strata.build(dataset).split(books))[0] == "history 3-5"


@pytest.mark.parametrize(
    ("length", "stratum"),
    [(0, "0"), (1, "1-2"), (2, "1-2"), (3, "3-5"), (5, "3-5"), (6, "6-10"), (10, "6-10"), (11, "11+"), (99, "11+")],
)
def test_histories_are_divided_where_the_names_say(length: int, stratum: str) -> None:
    strata = Strata(np.array([length]), np.ones(2, np.int64))
    zero = np.zeros(1, np.int32)
    names = [name for name, _ in strata.split(Interactions(*[zero] * 4, zero.astype(np.int8), zero))]
    assert names == [f"history {stratum}", "user in one domain", "item in one domain"]


def test_in_one_domain_nobody_lives_in_several_and_without_test_rows_there_is_no_stratum(store: Store) -> None:
    dataset, (books,) = loaded(store, {"books": BOOKS})
    names = [name for name, _ in Strata.build(dataset).split(books)]
    assert set(names) == {"history 0", "history 1-2", "history 6-10", "user in one domain", "item in one domain"}
    nothing = books.take(np.zeros(books.users.size, np.bool_))
    assert list(Strata.build(dataset).split(nothing)) == []


def test_every_row_is_in_one_stratum_of_each_kind(store: Store) -> None:
    dataset, (books, _) = loaded(store, {"books": BOOKS, "films": FILMS})
    inside = dict(Strata.build(dataset).split(books))
    assert [name for name in STRATA if name in inside] == list(inside)
    for names in (HISTORY_STRATA, USER_STRATA, ITEM_STRATA):
        assert np.sum([inside[name] for name in names if name in inside], axis=0).tolist() == [1] * books.users.size
