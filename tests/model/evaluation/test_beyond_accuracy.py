import numpy as np
import pytest

from model.data.dataset import DomainData
from model.evaluation.beyond_accuracy import catalogue_measures, list_measures


def domain(users: int, popularity: list[int]) -> DomainData:
    """A domain whose items have so many train users, the first ones."""
    by_user = [[users + item for item, count in enumerate(popularity) if user < count] for user in range(users)]
    rows = [*by_user, *[list(range(count)) for count in popularity]]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    nodes = np.arange(users + len(popularity), dtype=np.int32)
    return DomainData(
        "books", users, len(popularity), nodes, indptr, np.concatenate([np.array(row, np.int32) for row in rows])
    )


def lists(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def test_coverage_and_gini_are_of_all_lists_together() -> None:
    # Items are listed 2, 1, 1, 0 times: sorted 0 1 1 2, Gini = (-3·0 - 1·1 + 1·1 + 3·2) / (4·4)
    assert catalogue_measures(lists([0, 1], [0, 2]), 4) == {"coverage@20": 0.75, "gini@20": 6 / 16}


def test_equally_often_recommended_items_have_a_gini_of_zero_and_one_item_alone_the_highest() -> None:
    assert catalogue_measures(lists([0, 1], [2, 3]), 4) == {"coverage@20": 1.0, "gini@20": 0.0}
    assert catalogue_measures(lists([2, -1], [2, -1]), 4) == {"coverage@20": 0.25, "gini@20": 0.75}


def test_novelty_popularity_and_tail_are_means_over_each_list() -> None:
    # 8 users; 16 train rows, of which the head must have 12.8: items 0 and 1 have 12, so item 2 belongs to it.
    books = domain(8, [8, 4, 2, 1, 1, 0])
    found = list_measures(lists([0, 1, 2], [3, -1, -1], [4, 5, 1]), books)
    assert {metric: values.tolist() for metric, values in found.items()} == {
        "novelty@20": [(0 + 1 + 2) / 3, 3.0, pytest.approx((3 + 3 + 1) / 3)],  # nobody's item counts as one user's
        "popularity@20": [pytest.approx(14 / 3), 1.0, pytest.approx(5 / 3)],
        "tail_share@20": [0.0, 1.0, pytest.approx(2 / 3)],
    }


def test_equally_popular_items_enter_the_head_by_number() -> None:
    assert list_measures(lists(*[[item] for item in range(5)]), domain(3, [2] * 5))["tail_share@20"].tolist() == [
        0.0, 0.0, 0.0, 0.0, 1.0,
    ]  # fmt: skip


def test_an_empty_list_has_no_measures_and_counts_for_nobody() -> None:
    books = domain(2, [2, 1])
    assert list_measures(lists([-1, -1], [1, -1]), books)["popularity@20"].tolist() == [1.0]
    for nothing in (lists([-1, -1]), np.empty((0, 20), np.int32)):
        assert catalogue_measures(nothing, 2) == {}
        assert list_measures(nothing, books) == {}
