"""Lists of allowed items only: what is left of the whole list, in its order."""

from collections.abc import Callable

import numpy as np
import pytest
from tiny_world import TinyRun

from model.serving.ids import UnknownError
from model.serving.recommender import Recommender, ScoredItem
from model.serving.scorer import ItemMask

ALL = 1_000

Ask = Callable[[Recommender, int, ItemMask | None], list[ScoredItem]]

KNOWN_USER: Ask = lambda one, top, allowed: one.for_user("books", "u0001", top, allowed=allowed).items  # noqa: E731
SIMILAR: Ask = lambda one, top, allowed: one.similar("books", "i0001", top, allowed=allowed).items  # noqa: E731
NEW_USER: Ask = lambda one, top, allowed: one.for_new_user("books", ["i0001"], top, allowed=allowed).items  # noqa: E731
POPULAR: Ask = lambda one, top, allowed: one.popular("books", top, allowed=allowed).items  # noqa: E731


def elsewhere(one: Recommender, top: int, allowed: ItemMask | None) -> list[ScoredItem]:
    """For a user of films who is not in books."""
    books, films = (set(one.catalogue(name).user_ids.to_pylist()) for name in ("books", "films"))
    return one.for_user("books", min(films - books), top, allowed=allowed).items


@pytest.fixture(scope="module")
def recommender(tiny_run: TinyRun) -> Recommender:
    return Recommender(tiny_run.artifacts)


def mask(recommender: Recommender, allowed: set[str]) -> ItemMask:
    return np.array([item in allowed for item in recommender.catalogue("books").item_ids.to_pylist()])


@pytest.mark.parametrize("ask", [KNOWN_USER, SIMILAR, NEW_USER, POPULAR, elsewhere])
def test_a_list_of_allowed_items_is_the_whole_list_without_the_others(recommender: Recommender, ask: Ask) -> None:
    whole = ask(recommender, ALL, None)
    allowed = {row.item for row in whole[1::2]}
    listed = ask(recommender, 3, mask(recommender, allowed))
    assert [(row.item, row.score) for row in listed] == [(row.item, row.score) for row in whole[1::2][:3]]
    assert [row.rank for row in listed] == [1, 2, 3]


@pytest.mark.parametrize("ask", [KNOWN_USER, SIMILAR, NEW_USER, POPULAR, elsewhere])
def test_where_nothing_is_allowed_the_list_is_empty(recommender: Recommender, ask: Ask) -> None:
    assert ask(recommender, 3, mask(recommender, set())) == []


def test_popular_items_have_most_train_users(recommender: Recommender) -> None:
    books = recommender.catalogue("books")
    degrees = dict(zip(books.item_ids.to_pylist(), books.degrees.tolist(), strict=True))
    listed = recommender.popular("books", 5)
    assert (listed.by, [row.score for row in listed.items]) == ("popularity", sorted(degrees.values())[:-6:-1])
    assert all(degrees[row.item] == row.score for row in listed.items)


@pytest.mark.parametrize("items", [[], ["nothing"]])
def test_a_new_user_without_history_gets_popular_items_only_if_asked_for(
    recommender: Recommender, items: list[str]
) -> None:
    with pytest.raises(UnknownError):
        recommender.for_new_user("books", items, 3)
    ranking = recommender.for_new_user("books", items, 3, or_popular=True)
    assert (ranking.items, ranking.by) == (recommender.popular("books", 3).items, "popularity")
    assert (ranking.used, ranking.ignored) == ([], {item: [] for item in items})
