import numpy as np
import pytest
from loaded_domain import Loaded
from tiny_world import Tiny

from model.evaluation.score_parts import measured_users, spread_shares
from model.evidence.blend import Blend, BlendWeights

PARTS = {"inter": slice(0, 3), "intra": slice(3, 4)}


@pytest.fixture
def books(tiny_world: Tiny) -> Loaded:
    return Loaded(tiny_world, "books")


def test_shares_are_those_of_each_parts_deviation_over_the_items(books: Loaded) -> None:
    users, count = np.arange(books.domain.users), books.domain.users
    blend = Blend(BlendWeights(vectors=1.0, evidence=0.7, spread=2.0), books.evidence)
    dense = books.vectors.numpy()
    histories = books.evidence.user_histories(users)
    parts = {
        "share_inter": dense[:count, :3] @ dense[count:, :3].T,
        "share_intra": dense[:count, 3:] @ dense[count:, 3:].T,
        "share_evidence": 0.7 * histories.lengths[:, None] ** 0.5 * books.evidence.sum(histories),
    }
    deviations = {name: part.std(axis=1, dtype=np.float64) for name, part in parts.items()}
    found = spread_shares(books.vectors, books.domain, users, PARTS, blend)
    assert set(found) == set(parts)
    for name, of_part in deviations.items():
        assert np.allclose(found[name], of_part / np.sum(list(deviations.values()), axis=0), atol=1e-6)
    assert np.allclose(np.sum(list(found.values()), axis=0), 1.0)


def test_without_evidence_all_of_a_score_comes_from_vectors(books: Loaded) -> None:
    found = spread_shares(books.vectors, books.domain, np.arange(3), {"vectors": slice(None)}, None)
    assert {name: share.tolist() for name, share in found.items()} == {"share_vectors": [1.0, 1.0, 1.0]}


def test_a_part_that_is_not_there_has_no_share_and_a_user_whose_scores_are_equal_none_at_all(books: Loaded) -> None:
    vectors = books.vectors.clone()
    vectors[1] = 0.0
    found = spread_shares(vectors, books.domain, np.arange(3), {"inter": slice(0, 4), "intra": slice(4, 4)}, None)
    assert {name: share.tolist() for name, share in found.items()} == {"share_inter": [1.0, 1.0],
                                                                       "share_intra": [0.0, 0.0]}  # fmt: skip


def test_where_evidence_alone_is_served_it_is_all_of_the_score(books: Loaded) -> None:
    blend = Blend(BlendWeights(vectors=0.0, evidence=0.7, spread=2.0), books.evidence)
    known = np.flatnonzero(books.evidence.user_histories(np.arange(books.domain.users)).lengths)[:5]
    found = spread_shares(books.vectors, books.domain, known, PARTS, blend)
    assert set(found["share_evidence"].tolist()) == {1.0}
    assert set(found["share_inter"].tolist()) == {0.0}


def test_shares_do_not_depend_on_the_block_of_users(books: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    blend = Blend(BlendWeights(vectors=1.0, evidence=0.7, spread=2.0), books.evidence)
    users = np.arange(books.domain.users)
    whole = spread_shares(books.vectors, books.domain, users, PARTS, blend)
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * books.domain.items * 3)
    parts = spread_shares(books.vectors, books.domain, users, PARTS, blend)
    assert all(np.allclose(parts[name], whole[name], atol=1e-6) for name in whole)


def test_users_are_drawn_by_seed_where_there_are_many(books: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = measured_users(books.rows, books.domain, "test", 1)
    assert np.array_equal(everybody, np.unique(books.rows.for_split("test").users))
    monkeypatch.setattr("model.evaluation.score_parts._USERS", 5)
    few, again, other = (measured_users(books.rows, books.domain, "test", seed) for seed in (1, 1, 2))
    assert few.size == 5
    assert set(few) < set(everybody)
    assert np.array_equal(few, again)
    assert not np.array_equal(few, other)
