"""Lists of vectors and evidence against brute force; users without vectors, without histories, without either."""

import pytest
from oracle_serving import Served
from tiny_world import TinyRun

from model.serving.recommender import Ranking, Recommender


@pytest.fixture(scope="module")
def served(tiny_run: TinyRun) -> Served:
    return Served(tiny_run.artifacts)


@pytest.fixture(scope="module")
def recommender(tiny_run: TinyRun) -> Recommender:
    return Recommender(tiny_run.artifacts)


def assert_same(found: Ranking, expected: list[tuple[str, float]]) -> None:
    """The same items in the same order but where scores are equal to seven digits, and the same scores."""
    assert [row.rank for row in found.items] == list(range(1, len(expected) + 1))
    scores = dict(expected)
    assert [row.score for row in found.items] == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-6)
    assert [scores[row.item] for row in found.items] == pytest.approx(
        [row.score for row in found.items], rel=1e-5, abs=1e-6
    )
    assert len({row.item for row in found.items}) == len(found.items)


@pytest.mark.parametrize("domain", ["books", "films", "games"])
def test_every_users_list_is_that_of_the_formula(served: Served, recommender: Recommender, domain: str) -> None:
    for user in served.users(domain):
        found = recommender.for_user(domain, user, 99)
        assert_same(found, served.for_user(domain, user))
        has_evidence = bool(served.history(user)) and domain != "games"
        assert found.by == ("blend" if has_evidence else "vectors")
