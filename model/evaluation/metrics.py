"""Accuracy metrics as functions of the weight of every unit, so that a bootstrap resample is another weighting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.seeding import generator

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Statistic = Callable[[Floats], float]
"""A metric, given the weight of each unit (held-out row or user)."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value, its values in bootstrap resamples, and how many held-out rows and users are behind it."""

    value: float
    resamples: Floats
    rows: int
    users: int

    @property
    def interval(self) -> tuple[float, float]:
        """The resamples' percentiles 2.5 and 97.5; the value itself if there is no resample or none is defined."""
        defined = self.resamples[~np.isnan(self.resamples)]
        if defined.size == 0:
            return self.value, self.value
        low, high = np.percentile(defined, [2.5, 97.5])
        return float(low), float(high)


def candidate_statistics(positive: Scores, candidates: Scores, cutoffs: tuple[int, ...]) -> dict[str, Statistic]:
    """AUC and recall@k among candidates.

    Args:
        positive: scores of the held-out items (rows,).
        candidates: scores of their candidates (rows, candidates), NaN for missing ones.
        cutoffs: values of k.

    Returns:
        `auc`, pooled over all rows and all their candidates, ties count half; `recall@k`, the share of rows whose item
        is among the first k of itself and its candidates, ties rank against it. Empty if no row has a candidate.
    """
    if np.isnan(candidates).all():
        return {}
    ranks = candidate_ranks(positive, candidates)
    shares = {f"recall@{k}": _weighted_mean((ranks <= k).astype(np.float64)) for k in cutoffs}
    return {"auc": _pooled_auc(positive, candidates), **shares}


def candidate_ranks(positive: Scores, candidates: Scores) -> NDArray[np.int64]:
    """Rank of each held-out item among itself and its candidates, from 1, ties against it; NaN is no candidate."""
    ranks: NDArray[np.int64] = 1 + np.asarray(candidates >= positive[:, None]).sum(axis=1)
    return ranks


def user_statistics(
    users: NDArray[np.int32], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]
) -> dict[str, Statistic]:
    """Means over users of `user_values`; the units are the distinct users in ascending order."""
    return mean_statistics(user_values(users, ranks, cutoffs))


def mean_statistics(values: Mapping[str, Floats]) -> dict[str, Statistic]:
    """Mean of each metric over units, of which each has one value; empty if there is no unit."""
    return {metric: _weighted_mean(of_units) for metric, of_units in values.items() if of_units.size}


def user_values(users: NDArray[np.int32], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> dict[str, Floats]:
    """Full-ranking metrics of each user: float64, one for each distinct user in ascending order.

    Args:
        users: owner of each relevant item.
        ranks: the item's rank among all items that may be recommended to its user, from 1.
        cutoffs: values of k.

    Returns:
        full_recall@k (share of the user's relevant items within k), full_ndcg@k (binary gains, log2 discounts, over
        the best order of as many relevant items), full_mrr (1 / best rank). Empty if there is no user.
    """
    distinct, owner, relevant = np.unique(users, return_inverse=True, return_counts=True)
    if distinct.size == 0:
        return {}
    values = {}
    for k in cutoffs:
        inside = ranks <= k
        values[f"full_recall@{k}"] = np.bincount(owner, inside, distinct.size) / relevant
        gain = np.bincount(owner, inside / np.log2(1.0 + ranks), distinct.size)
        ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(2.0 + np.arange(min(k, relevant.max()))))])
        values[f"full_ndcg@{k}"] = gain / ideal[np.minimum(relevant, k)]
    best = np.full(distinct.size, np.inf)
    np.minimum.at(best, owner, ranks)
    values["full_mrr"] = 1.0 / best
    return values


def estimates(
    statistics: Mapping[str, Statistic], weights: Iterator[Floats], units: int, rows: int, users: int
) -> dict[str, Estimate]:
    """Evaluate every statistic with all weights 1, and with the weights of each resample.

    Args:
        statistics: by metric.
        weights: of the units, for one resample after another.
        units: number of units that are resampled.
        rows, users: held-out rows and users behind the metrics.
    """
    drawn = list(weights) if statistics else []
    return {
        metric: Estimate(statistic(np.ones(units)), np.array([statistic(weight) for weight in drawn]), rows, users)
        for metric, statistic in statistics.items()
    }


def resample_weights(seed: int, name: tuple[str, ...], resamples: int, units: int) -> Iterator[Floats]:
    """For each resample of the named bootstrap, how often each unit is drawn in `units` draws with replacement."""
    for number in range(resamples):
        drawn = generator(seed, "bootstrap", *name, number).integers(0, units, units)
        yield np.bincount(drawn, minlength=units).astype(np.float64)


def mean_estimate(estimates: list[Estimate]) -> Estimate:
    """The unweighted mean of at least one estimate, resample by resample."""
    resamples = np.mean([estimate.resamples for estimate in estimates], axis=0)
    value = float(np.mean([estimate.value for estimate in estimates]))
    rows, users = (sum(getattr(estimate, name) for estimate in estimates) for name in ("rows", "users"))
    return Estimate(value, resamples, rows, users)


def _weighted_mean(values: Floats) -> Statistic:
    return lambda weights: float(weights @ values / weights.sum())


def auc_parts(positive: Scores, candidates: Scores) -> Floats:
    """Each row's contribution to the pooled AUC: float64 (rows,), whose mean is the AUC; NaN if no row has a candidate.

    It is the share of all candidates that the row's item beats, plus, for the row's own candidates, how much more often
    than the mean they are beaten [DeLong, DeLong and Clarke-Pearson 1988]. So the mean over resampled rows is their AUC
    to first order.
    """
    ranks = _ScoreRanks.build(positive, candidates)
    if ranks.rows.size == 0:
        return np.full(positive.size, np.nan)
    beaten = ranks.weight_below(ranks.candidates)[ranks.positive] / ranks.candidates.size
    above = 1.0 - ranks.weight_below(ranks.positive)[ranks.candidates] / positive.size
    excess = np.bincount(ranks.rows, above - beaten.mean(), positive.size)
    return beaten + excess * (positive.size / ranks.candidates.size)


@dataclass(frozen=True)
class _ScoreRanks:
    """Dense ranks of all scores, equal scores having equal ranks.

    Attributes:
        positive: int64 (rows), of the held-out items.
        candidates, rows: int64 (candidates of all rows), of the candidates, and the row of each.
        count: number of distinct scores.
    """

    positive: NDArray[np.int64]
    candidates: NDArray[np.int64]
    rows: NDArray[np.int64]
    count: int

    @classmethod
    def build(cls, positive: Scores, candidates: Scores) -> _ScoreRanks:
        rows, column = np.nonzero(~np.isnan(candidates))
        distinct, ranks = np.unique(np.concatenate([positive, candidates[rows, column]]), return_inverse=True)
        return cls(ranks[: positive.size], ranks[positive.size :], rows, distinct.size)

    def weight_below(self, ranks: NDArray[np.int64], weights: Floats | None = None) -> Floats:
        """For every rank, the weight of the given ranks that are lower, counting equal ones half."""
        at_rank = np.bincount(ranks, weights, self.count)
        below: Floats = np.cumsum(at_rank) - 0.5 * at_rank
        return below


def _pooled_auc(positive: Scores, candidates: Scores) -> Statistic:
    """Area under the ROC curve: sorts once, then takes one cumulative sum a weighting; NaN without a candidate."""
    ranks = _ScoreRanks.build(positive, candidates)

    def area(weights: Floats) -> float:
        candidate_weights = weights[ranks.rows]
        pairs = weights.sum() * candidate_weights.sum()
        beaten = ranks.weight_below(ranks.candidates, candidate_weights)[ranks.positive]
        return float(weights @ beaten / pairs) if pairs else float("nan")

    return area
