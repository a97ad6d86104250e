import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from model.evaluation.metrics import (
    Estimate,
    auc_parts,
    candidate_statistics,
    estimates,
    mean_estimate,
    resample_weights,
    user_statistics,
    user_values,
)

TIED = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TIED, st.tuples(TIED, TIED, TIED), st.integers(1, 4)), min_size=1, max_size=12))
def test_auc_equals_scikit_learn_with_ties_and_weights(groups: list[tuple[float, tuple[float, ...], int]]) -> None:
    positive = np.array([group[0] for group in groups], np.float32)
    candidates = np.array([group[1] for group in groups], np.float32)
    weights = np.array([group[2] for group in groups], np.float64)
    scores = np.concatenate([positive, candidates.ravel()])
    labels = np.repeat([1, 0], [positive.size, candidates.size])
    expected = roc_auc_score(labels, scores, sample_weight=np.concatenate([weights, np.repeat(weights, 3)]))
    assert candidate_statistics(positive, candidates, ())["auc"](weights) == pytest.approx(expected)


def test_auc_leaves_out_absent_candidates() -> None:
    positive = np.array([0.5, 0.1], np.float32)
    candidates = np.array([[0.2, np.nan], [0.3, 0.05]], np.float32)
    assert candidate_statistics(positive, candidates, ())["auc"](np.ones(2)) == pytest.approx(4 / 6)


def test_without_any_candidate_there_is_no_statistic() -> None:
    assert candidate_statistics(np.ones(2, np.float32), np.full((2, 3), np.nan, np.float32), (1,)) == {}


def test_recall_ranks_a_tie_against_the_held_out_item() -> None:
    positive = np.array([0.9, 0.5, 0.5], np.float32)
    candidates = np.array([[0.1, 0.2], [0.5, 0.1], [0.6, 0.7]], np.float32)
    found = candidate_statistics(positive, candidates, (1, 2))
    assert found["recall@1"](np.ones(3)) == pytest.approx(1 / 3)
    assert found["recall@2"](np.ones(3)) == pytest.approx(2 / 3)


def test_full_ranking_measures_of_a_hand_worked_table() -> None:
    """User 4 has items at ranks 1 and 3, user 7 one at rank 6; k = 3."""
    found = user_statistics(np.array([4, 4, 7], np.int32), np.array([1, 3, 6]), (3,))
    by_user = {metric: [of(np.eye(2)[user]) for user in (0, 1)] for metric, of in found.items()}
    assert by_user["full_recall@3"] == [1.0, 0.0]
    assert by_user["full_mrr"] == pytest.approx([1.0, 1 / 6])
    ideal = 1 + 1 / np.log2(3)
    assert by_user["full_ndcg@3"] == pytest.approx([(1 + 1 / np.log2(4)) / ideal, 0.0])


def test_a_cut_off_beyond_all_items_takes_no_memory_and_is_the_measure_of_the_whole_list() -> None:
    values = user_values(np.array([4, 4, 7], np.int32), np.array([1, 3, 6]), (10**15,))
    ideal = 1 + 1 / np.log2(3)
    assert values[f"full_ndcg@{10**15}"] == pytest.approx([(1 + 1 / np.log2(4)) / ideal, 1 / np.log2(7)])
    assert values[f"full_recall@{10**15}"].tolist() == [1.0, 1.0]


def test_ndcg_equals_scikit_learn() -> None:
    scores = np.random.default_rng(1).permutation(30).astype(float)
    relevant = np.array([3, 8, 17, 22])
    ranks = (scores[None, :] >= scores[relevant, None]).sum(axis=1)
    found = user_statistics(np.zeros(4, np.int32), ranks, (20,))["full_ndcg@20"](np.ones(1))
    assert found == pytest.approx(ndcg_score(np.isin(np.arange(30), relevant)[None].astype(float), scores[None], k=20))


def test_recall_of_a_user_with_more_items_than_k_cannot_reach_one() -> None:
    found = user_statistics(np.zeros(4, np.int32), np.array([1, 2, 3, 4]), (2,))
    assert found["full_recall@2"](np.ones(1)) == 0.5
    assert found["full_ndcg@2"](np.ones(1)) == 1.0


def test_without_users_there_is_no_full_ranking() -> None:
    assert user_statistics(np.zeros(0, np.int32), np.zeros(0, np.int64), (20,)) == {}


def test_resamples_draw_as_many_units_as_there_are() -> None:
    drawn = list(resample_weights(1, ("a", "test"), 5, 40))
    assert [weights.sum() for weights in drawn] == [40.0] * 5
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_bootstrap_interval_covers_the_standard_error_of_a_share() -> None:
    hits = np.zeros((400, 1), np.float32)
    positive = np.where(np.arange(400) < 100, 1.0, -1.0).astype(np.float32)
    share = candidate_statistics(positive, hits, (1,))
    weights = resample_weights(1, ("a", "test"), 2000, 400)
    low, high = estimates(share, weights, 400, 400, 400)["recall@1"].interval
    error = (0.25 * 0.75 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.25 - 1.96 * error, 0.25 + 1.96 * error), abs=0.006)


def test_macro_is_the_unweighted_mean_resample_by_resample() -> None:
    parts = [Estimate(0.5, np.array([0.4, 0.6]), 10, 4), Estimate(0.9, np.array([0.8, 1.0]), 1, 1)]
    mean = mean_estimate(parts)
    assert (mean.value, mean.resamples.tolist(), mean.rows, mean.users) == (
        pytest.approx(0.7),
        [pytest.approx(0.6), pytest.approx(0.8)],
        11,
        5,
    )


def test_without_resamples_an_interval_is_the_value_itself() -> None:
    parts = [Estimate(0.5, np.empty(0), 10, 4), Estimate(0.9, np.empty(0), 1, 1)]
    assert (parts[0].interval, mean_estimate(parts).interval) == ((0.5, 0.5), (0.7, 0.7))


def test_an_interval_is_from_percentile_2_5_to_97_5_of_the_defined_resamples() -> None:
    resamples = np.append(np.random.default_rng(1).permutation(201) / 200, [np.nan, np.nan])
    assert Estimate(0.5, resamples, 10, 4).interval == (pytest.approx(0.025), pytest.approx(0.975))
    assert Estimate(0.5, np.full(3, np.nan), 10, 4).interval == (0.5, 0.5)


def test_parts_of_the_auc_of_a_hand_worked_table() -> None:
    """Items score 3 and 1, their candidates 2 and 3, and 1: they beat 2.5 and 0.5 of 3.

    The candidates 2, 3, 1 are beaten by 1/2, 1/4 and 3/4 of the items, on average 1/2.
    """
    positive = np.array([3, 1], np.float32)
    candidates = np.array([[2, 3], [1, np.nan]], np.float32)
    excess = [(1 / 2 - 1 / 2) + (1 / 4 - 1 / 2), 3 / 4 - 1 / 2]
    expected = [2.5 / 3 + excess[0] * 2 / 3, 0.5 / 3 + excess[1] * 2 / 3]
    assert auc_parts(positive, candidates).tolist() == pytest.approx(expected)
    assert candidate_statistics(positive, candidates, ())["auc"](np.ones(2)) == pytest.approx(3 / 6)


def test_parts_of_the_auc_with_one_candidate_in_all() -> None:
    candidates = np.array([[1], [np.nan]], np.float32)
    assert auc_parts(np.array([0, 2], np.float32), candidates).tolist() == [0.0, 1.0]
    assert np.isnan(auc_parts(np.array([0, 2], np.float32), np.full((2, 1), np.nan, np.float32))).tolist() == [True] * 2
