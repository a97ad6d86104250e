import numpy as np
import pytest
import torch
from loaded_domain import Loaded
from tiny_world import Tiny

from data_contracts.settings.ranking import EvaluateSettings
from model.compute.column_parallel import SINGLE_PROCESS
from model.evaluation.fit import (
    SHARES,
    BlendCurve,
    BlendPoint,
    blend_curve,
    choose_blends,
    validation_users,
    vectors_curve,
)
from model.evaluation.metrics import user_values
from model.evaluation.stage import RankedHeldOut
from model.evaluation.validation import vector_scorer
from model.evidence.blend import Blend, BlendWeights
from model.evidence.domain_evidence import Histories


def train_items(world: Tiny) -> dict[str, set[str]]:
    """Ids of the items that each user has in the train split of any domain."""
    known: dict[str, set[str]] = {}
    for partition in world.parents["interactions"].partitions():
        table = world.parents["interactions"].read(["user_id", "item_id", "split"], domain=partition["domain"])
        for row in table.to_pylist():
            known.setdefault(row["user_id"], set()).update([row["item_id"]] if row["split"] == "train" else [])
    return known


def item_numbers(world: Tiny) -> dict[str, int]:
    nodes = [world.parents["nodes"].read(domain=part["domain"]) for part in world.parents["nodes"].partitions()]
    rows = [row for table in nodes for row in table.to_pylist() if row["kind"] == "item"]
    return {row["id"]: row["entity"] for row in rows}


@pytest.fixture
def books(tiny_world: Tiny) -> Loaded:
    return Loaded(tiny_world, "books")


def test_evidence_sums_the_weights_of_a_users_train_items_in_all_domains(tiny_world: Tiny, books: Loaded) -> None:
    ids = tiny_world.parents["nodes"].read(["kind", "id"], domain="books")
    users = ids.filter(np.asarray(ids["kind"]) == "user")["id"].to_pylist()
    known, numbers = train_items(tiny_world), item_numbers(tiny_world)
    items = books.domain.union_nodes[books.domain.users :] - books.dataset.users
    expected = np.array([books.dense[[numbers[item] for item in known[user]]].sum(axis=0)[items] for user in users])
    found = books.evidence.sum(books.evidence.user_histories(np.arange(len(users))))
    assert np.allclose(found, expected, atol=1e-6)
    assert (found > 0).any()
    lengths = books.evidence.user_histories(np.arange(len(users))).lengths
    assert lengths.tolist() == [len(known[user]) for user in users]


def test_contributions_of_a_users_items_add_up_to_the_evidence(books: Loaded) -> None:
    histories = books.evidence.user_histories(np.arange(books.domain.users))
    evidence, longest = books.evidence.sum(histories), int(histories.lengths.max())
    owners, targets = np.nonzero(evidence > 0)
    items, weights, totals = books.evidence.strongest(histories, owners, targets, longest)
    assert np.array_equal(totals, evidence[owners, targets])
    assert np.allclose(weights.sum(axis=1), totals, rtol=1e-5)
    for owner, target, mine, of_mine in zip(owners, targets, items, weights, strict=True):
        history = histories.items[histories.indptr[owner] : histories.indptr[owner + 1]]
        expected = {item: books.dense[item, books.evidence.union_items[target]] for item in history}
        order = sorted((item for item in expected if expected[item]), key=lambda item: (-expected[item], item))
        assert mine.tolist() == order + [-1] * (longest - len(order))
        assert of_mine[: len(order)].tolist() == [expected[item] for item in order]


def test_the_strongest_items_are_the_first_of_all(books: Loaded) -> None:
    histories = books.evidence.user_histories(np.arange(books.domain.users))
    owners, targets = np.nonzero(books.evidence.sum(histories) > 0)
    every, few = (books.evidence.strongest(histories, owners, targets, most) for most in (60, 3))
    assert np.array_equal(few[0], every[0][:, :3])
    assert np.array_equal(few[2], every[2])


def test_sparse_sums_are_the_dense_ones_to_the_bit(books: Loaded) -> None:
    histories = books.evidence.user_histories(np.arange(books.domain.users))
    dense = books.evidence.sum(histories)
    for user, row in enumerate(dense):
        items, sums = books.evidence.sum_sparsely(histories[user : user + 1].items)
        assert np.array_equal(items, np.flatnonzero(row))
        assert np.array_equal(sums, row[items])
    assert books.evidence.sum_sparsely(np.empty(0, np.int32))[0].size == 0


def test_some_items_of_one_user_score_as_among_all_items(books: Loaded) -> None:
    blend = Blend(BlendWeights(vectors=0.5, evidence=0.7, spread=2.0), books.evidence)
    scores, every = books.dots.copy(), np.arange(books.domain.items)
    blend.apply(scores, books.evidence.user_histories(np.arange(books.domain.users)))
    for user in range(books.domain.users):
        of_user = blend.for_one_user(books.evidence.user_histories(np.array([user])).items)
        assert np.allclose(of_user.blend(books.dots[user], every), scores[user], atol=1e-6)
        assert np.allclose(of_user.blend(books.dots[user, 3:5], every[3:5]), scores[user, 3:5], atol=1e-6)


def test_a_blended_score_is_the_weighted_sum_on_the_scale_of_the_vectors(books: Loaded) -> None:
    weights, users = BlendWeights(vectors=1.0, evidence=0.7, spread=2.0), np.arange(books.domain.users)
    histories = books.evidence.user_histories(users)
    weighted = 0.7 * histories.lengths[:, None] ** 0.5 * books.evidence.sum(histories)
    scale = 1 / (1 + weighted.std(axis=1) / 2.0)
    scores = books.dots.copy()
    Blend(weights, books.evidence).apply(scores, books.evidence.user_histories(users))
    assert np.allclose(scores, (books.dots + weighted) * scale[:, None], atol=1e-5)


def test_a_user_without_train_items_is_ranked_by_vectors_even_where_evidence_alone_is_served(books: Loaded) -> None:
    nobody = Histories(np.zeros(2, np.int64), np.empty(0, np.int32))
    scores = books.dots[:1].copy()
    Blend(BlendWeights(vectors=0.0, evidence=0.7, spread=2.0), books.evidence).apply(scores, nobody)
    assert np.array_equal(scores, books.dots[:1])


def test_ranks_and_candidates_are_those_of_the_blended_scores(books: Loaded) -> None:
    blend = Blend(BlendWeights(vectors=1.0, evidence=0.7, spread=2.0), books.evidence)
    scores = books.dots.copy()
    blend.apply(scores, books.evidence.user_histories(np.arange(books.domain.users)))
    answers = RankedHeldOut.build(
        books.vectors, books.domain, books.rows, "test", EvaluateSettings(candidates=5), blend
    )
    held = books.rows.for_split("test")
    assert np.allclose(answers.positive, scores[held.users, held.items], atol=1e-6)
    users, items = held.users[answers.is_ranked], held.items[answers.is_ranked]
    for user, item, rank in zip(users, items, answers.ranks, strict=True):
        seen = books.rows.items[(books.rows.users == user) & (books.rows.split != 2)]
        shown = np.setdiff1d(np.arange(books.domain.items), seen)
        assert rank == (scores[user, shown] >= scores[user, item]).sum()


def test_a_curve_measures_every_blend_as_a_full_ranking_does(books: Loaded) -> None:
    held = validation_users(books.rows, books.domain, 1000, 1)
    curve = blend_curve(held, vector_scorer(books.vectors, books.domain, SINGLE_PROCESS), books.evidence)
    assert [point.share for point in curve.points] == list(SHARES)
    for point in curve.points[:: len(SHARES) // 3]:
        answers = RankedHeldOut.build(
            books.vectors, books.domain, books.rows, "valid", EvaluateSettings(), Blend(point.weights, books.evidence)
        )
        values = user_values(answers.users, answers.ranks, (20,))
        assert point.ndcg == pytest.approx(values["full_ndcg@20"].mean(), abs=1e-6)
        assert point.recall == pytest.approx(values["full_recall@20"].mean(), abs=1e-6)


def test_a_curve_does_not_depend_on_the_block_of_users(books: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    held = validation_users(books.rows, books.domain, 1000, 1)
    score = vector_scorer(books.vectors, books.domain, SINGLE_PROCESS)
    whole = blend_curve(held, score, books.evidence)
    monkeypatch.setattr("model.sparse.rows._BLOCK_BYTES", 4 * books.domain.items * 3)
    assert blend_curve(held, score, books.evidence) == whole


def test_validation_users_are_drawn_by_seed_and_keep_all_their_rows(books: Loaded) -> None:
    everybody = validation_users(books.rows, books.domain, 1000, 1)
    few, again, other = (validation_users(books.rows, books.domain, 5, seed) for seed in (1, 1, 2))
    assert few.users.size == 5
    assert np.array_equal(few.users, again.users)
    assert not np.array_equal(few.users, other.users)
    for place, user in enumerate(few.users):
        mine = everybody.items[everybody.owners == np.searchsorted(everybody.users, user)]
        assert np.array_equal(few.items[few.owners == place], mine)


def curve(users: int, *ndcg: float) -> BlendCurve:
    shares = np.linspace(0.0, 1.0, len(ndcg))
    return BlendCurve(
        tuple(BlendPoint(s, BlendWeights(1.0, s, 1.0), v, v) for s, v in zip(shares, ndcg, strict=True)), users
    )


def test_the_best_blend_is_chosen_and_of_equal_ones_the_one_with_least_evidence() -> None:
    curves = {"a": curve(10_000, 0.1, 0.3, 0.3, 0.2)}
    assert choose_blends(curves)["a"] is curves["a"].points[1]


def test_a_domain_with_few_validation_users_leans_on_the_others() -> None:
    curves = {
        "large": curve(10_000, 0.1, 0.3, 0.2, 0.1),
        "small": curve(5, 0.2, 0.29, 0.3, 0.1),
        "none": curve(0, 0, 0, 0, 0),
    }
    chosen = choose_blends(curves)
    assert [chosen[name].share for name in curves] == [curves["large"].points[1].share] * 3


def test_where_vectors_or_evidence_alone_validate_better_they_are_served() -> None:
    curves = {"large": curve(10_000, 0.1, 0.3, 0.2, 0.1), "small": curve(5, 0.4, 0.2, 0.1, 0.1)}
    assert choose_blends(curves)["small"] is curves["small"].points[0]


def test_without_evidence_vectors_rank_alone(books: Loaded) -> None:
    held = validation_users(books.rows, books.domain, 1000, 1)
    (point,) = vectors_curve(
        held, vector_scorer(books.vectors, books.domain, SINGLE_PROCESS), books.domain.items
    ).points
    answers = RankedHeldOut.build(books.vectors, books.domain, books.rows, "valid", EvaluateSettings())
    assert point.ndcg == pytest.approx(user_values(answers.users, answers.ranks, (20,))["full_ndcg@20"].mean())


def test_vectors_that_say_nothing_leave_the_ranking_to_evidence(books: Loaded) -> None:
    held = validation_users(books.rows, books.domain, 1000, 1)
    nothing = torch.zeros_like(books.vectors)
    (point,) = blend_curve(held, vector_scorer(nothing, books.domain, SINGLE_PROCESS), books.evidence).points
    assert (point.share, point.weights.vectors) == (1.0, 0.0)
    blend = Blend(point.weights, books.evidence)
    answers = RankedHeldOut.build(nothing, books.domain, books.rows, "valid", EvaluateSettings(), blend)
    assert point.ndcg == pytest.approx(user_values(answers.users, answers.ranks, (20,))["full_ndcg@20"].mean())
    curves = {"books": BlendCurve((point,), 9), "other": curve(9, 0.1, 0.3, 0.2)}
    assert choose_blends(curves)["books"] is choose_blends({"books": curves["books"]})["books"] is point
