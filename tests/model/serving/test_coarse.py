"""Coarse vectors are as far off as they say at most, and lists found with them are those found without."""

import numpy as np
import pytest
from tiny_world import TinyRun

from model.serving import exact
from model.serving.coarse import CoarseVectors
from model.serving.scorer import DomainScorer, DomainScorers, Query


@pytest.mark.parametrize("shape", [(0, 4), (3, 1), (50, 33), (20_000, 8)])
def test_dot_products_are_off_by_no_more_than_errors_say(shape: tuple[int, int]) -> None:
    draws = np.random.default_rng(1)
    vectors = draws.standard_normal(shape, dtype=np.float32) * 10 ** draws.uniform(-6, 6, (shape[0], 1))
    vectors = vectors.astype(np.float32)
    vectors[::7] = 0.0
    coarse = CoarseVectors.build(vectors)
    for vector in draws.standard_normal((5, shape[1]), dtype=np.float32):
        true = vectors.astype(np.float64) @ vector.astype(np.float64)
        bound = coarse.errors.astype(np.float64) * np.linalg.norm(vector)
        assert (np.abs(coarse.dots(vector) - true) <= bound).all()
    lengths = np.linalg.norm(vectors, axis=1)
    assert (coarse.errors <= 0.01 * lengths * np.sqrt(shape[1])).all()


def test_codes_are_the_nearest_multiples_of_a_127th_of_the_largest_entry() -> None:
    coarse = CoarseVectors.build(np.array([[127.0, -63.4, 0.6], [0.0, 0.0, 0.0]], np.float32))
    assert coarse.codes.tolist() == [[127, -63, 1], [0, 0, 0]]
    assert coarse.steps[0] == 1.0
    assert coarse.errors[0] == pytest.approx(0.4 * 2**0.5, abs=0.01)
    assert coarse.errors[1] == 0.0


def queries(scorer: DomainScorer) -> list[Query]:
    """One for each user, with all items allowed, every third one, and none."""
    items = np.arange(len(scorer.catalogue.items))
    plain = [scorer.query(np.array([user])) for user in range(len(scorer.catalogue.users))]
    masks = [None, items % 3 == 0, items < 0]
    return [Query(q.vectors, q.histories, q.indptr, q.excluded, mask) for q in plain for mask in masks]


@pytest.mark.parametrize("domain", ["books", "films", "games"])
def test_a_list_of_one_user_is_that_of_all_scores(
    tiny_run: TinyRun, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = DomainScorers(tiny_run.artifacts)[domain]
    for query in queries(scorer):
        for top in (1, 5, 1_000):
            items, scores = exact.top_items(scorer, query, top)
            monkeypatch.setattr(exact, "_MANY_ITEMS", 0)
            coarse_items, coarse_scores = exact.top_items(scorer, query, top)
            monkeypatch.setattr(exact, "_MANY_ITEMS", 20_000)
            np.testing.assert_allclose(coarse_scores, scores, rtol=1e-5, atol=1e-6)
            assert coarse_items.tolist() == items.tolist()


def test_few_of_many_items_are_scored_exactly() -> None:
    draws = np.random.default_rng(2)
    vectors, vector = draws.standard_normal((30_000, 64), dtype=np.float32), draws.standard_normal(64, dtype=np.float32)
    coarse = CoarseVectors.build(vectors)
    slack = coarse.errors * np.linalg.norm(vector)
    least = np.partition(coarse.dots(vector) - slack, -10)[-10]
    assert 10 <= (coarse.dots(vector) + slack >= least).sum() < 60
