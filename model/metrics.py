"""Accuracy measures, each a function of how often every unit counts, so that a bootstrap only reweighs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.draws import generator

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Statistic = Callable[[Floats], float]
"""A measure, given how often each unit (held-out row, or user) counts."""


@dataclass(frozen=True)
class Estimate:
    """A measure's value, its bootstrap resamples, and the held-out rows behind it."""

    value: float
    resamples: Floats
    rows: int

    @property
    def interval(self) -> tuple[float, float]:
        """The resamples' percentiles 2.5 and 97.5; the value itself where no resample is defined."""
        known = self.resamples[~np.isnan(self.resamples)]
        if known.size == 0:
            return self.value, self.value
        low, high = np.percentile(known, [2.5, 97.5])
        return float(low), float(high)


def candidate_statistics(positive: Scores, candidates: Scores, cutoffs: tuple[int, ...]) -> dict[str, Statistic]:
    """AUC and recall@k among candidates.

    Args:
        positive: scores of the held-out items (rows,).
        candidates: scores of their candidates (rows, candidates), NaN where there is none.
        cutoffs: values of k.

    Returns:
        `auc`, pooled over all rows and all their candidates, ties half; `recall@k`, the share of rows whose item is
        among the first k of itself and its candidates, ties ranked against it. Empty where no row has a candidate.
    """
    if np.isnan(candidates).all():
        return {}
    ranks = 1 + np.asarray(candidates >= positive[:, None]).sum(axis=1)
    shares = {f"recall@{k}": _mean_of((ranks <= k).astype(np.float64)) for k in cutoffs}
    return {"auc": _pooled_auc(positive, candidates), **shares}


def user_statistics(
    users: NDArray[np.int32], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]
) -> dict[str, Statistic]:
    """Means over users of full-ranking measures; the units are the distinct users in ascending order.

    Args:
        users: owner of each relevant item.
        ranks: the item's rank among all items that may be recommended to its user, from 1.
        cutoffs: values of k.

    Returns:
        full_recall@k (share of the user's relevant items within k), full_ndcg@k (binary gains, log2 discounts, over
        the best order of as many relevant items), full_mrr (1 / best rank). Empty where there is no user.
    """
    distinct, owner, relevant = np.unique(users, return_inverse=True, return_counts=True)
    if distinct.size == 0:
        return {}
    values = {}
    for k in cutoffs:
        inside = ranks <= k
        values[f"full_recall@{k}"] = np.bincount(owner, inside, distinct.size) / relevant
        gain = np.bincount(owner, inside / np.log2(1.0 + ranks), distinct.size)
        ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(2.0 + np.arange(k)))])
        values[f"full_ndcg@{k}"] = gain / ideal[np.minimum(relevant, k)]
    best = np.full(distinct.size, np.inf)
    np.minimum.at(best, owner, ranks)
    values["full_mrr"] = 1.0 / best
    return {metric: _mean_of(value) for metric, value in values.items()}


def estimates(
    statistics: Mapping[str, Statistic], weights: Iterator[Floats], units: int, rows: int
) -> dict[str, Estimate]:
    """Evaluate every statistic once for all units and once for each resample's weights."""
    drawn = list(weights) if statistics else []
    return {
        metric: Estimate(of(np.ones(units)), np.array([of(weight) for weight in drawn]), rows)
        for metric, of in statistics.items()
    }


def resample_weights(seed: int, name: tuple[str, ...], resamples: int, units: int) -> Iterator[Floats]:
    """How often each unit is drawn, `units` draws with replacement, for each resample of the named bootstrap."""
    for number in range(resamples):
        drawn = generator(seed, "bootstrap", *name, number).integers(0, units, units)
        yield np.bincount(drawn, minlength=units).astype(np.float64)


def mean_estimate(parts: list[Estimate]) -> Estimate:
    """The unweighted mean of at least one estimate, resample by resample."""
    resamples = np.mean([part.resamples for part in parts], axis=0)
    return Estimate(float(np.mean([part.value for part in parts])), resamples, sum(part.rows for part in parts))


def _mean_of(values: Floats) -> Statistic:
    return lambda weights: float(weights @ values / weights.sum())


def _pooled_auc(positive: Scores, candidates: Scores) -> Statistic:
    """Area under the ROC curve; sorted once, then one cumulative sum for each weighting; NaN without a candidate."""
    rows, column = np.nonzero(~np.isnan(candidates))
    distinct, level = np.unique(np.concatenate([positive, candidates[rows, column]]), return_inverse=True)
    high, low = level[: positive.size], level[positive.size :]

    def area(weights: Floats) -> float:
        negative = np.bincount(low, weights[rows], distinct.size)
        beaten = np.cumsum(negative) - 0.5 * negative
        pairs = weights.sum() * negative.sum()
        return float(weights @ beaten[high] / pairs) if pairs else float("nan")

    return area
