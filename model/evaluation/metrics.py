"""Accuracy measures, each a function of how often every unit counts, so that a bootstrap only reweighs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.seeding import generator

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
    ranks = candidate_ranks(positive, candidates)
    shares = {f"recall@{k}": _mean_of((ranks <= k).astype(np.float64)) for k in cutoffs}
    return {"auc": _pooled_auc(positive, candidates), **shares}


def candidate_ranks(positive: Scores, candidates: Scores) -> NDArray[np.int64]:
    """Rank of each held-out item among itself and its candidates, from 1, ties against it; NaN candidates are none."""
    ranks: NDArray[np.int64] = 1 + np.asarray(candidates >= positive[:, None]).sum(axis=1)
    return ranks


def user_statistics(
    users: NDArray[np.int32], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]
) -> dict[str, Statistic]:
    """Means over users of `user_values`; the units are the distinct users in ascending order."""
    return mean_statistics(user_values(users, ranks, cutoffs))


def mean_statistics(values: Mapping[str, Floats]) -> dict[str, Statistic]:
    """Means over units, of which each measure has one value; empty where there is no unit."""
    return {metric: _mean_of(of) for metric, of in values.items() if of.size}


def user_values(users: NDArray[np.int32], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> dict[str, Floats]:
    """Full-ranking measures of each user: float64, one for each distinct user in ascending order.

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
    return values


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


def auc_parts(positive: Scores, candidates: Scores) -> Floats:
    """What each row adds to the pooled AUC: float64 (rows,), whose mean is the AUC; NaN where no row has a candidate.

    A row's part is the share of all candidates that its item beats, plus, for its own candidates, how often they are
    beaten more than the mean [DeLong, DeLong and Clarke-Pearson 1988]: so means of parts over resampled rows follow the
    AUC of these rows to first order.
    """
    levels = _Levels.of(positive, candidates)
    if levels.rows.size == 0:
        return np.full(positive.size, np.nan)
    beaten = levels.below(levels.low)[levels.high] / levels.low.size
    above = 1.0 - levels.below(levels.high)[levels.low] / positive.size
    excess = np.bincount(levels.rows, above - beaten.mean(), positive.size)
    return beaten + excess * (positive.size / levels.low.size)


@dataclass(frozen=True)
class _Levels:
    """Places of all scores of held-out items (`high`) and candidates (`low`, of `rows`) among the distinct ones."""

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    rows: NDArray[np.int64]
    distinct: int

    @classmethod
    def of(cls, positive: Scores, candidates: Scores) -> _Levels:
        rows, column = np.nonzero(~np.isnan(candidates))
        distinct, level = np.unique(np.concatenate([positive, candidates[rows, column]]), return_inverse=True)
        return cls(level[: positive.size], level[positive.size :], rows, distinct.size)

    def below(self, levels: NDArray[np.int64], weights: Floats | None = None) -> Floats:
        """For each level the weight of the given scores below it, equal ones by half."""
        own = np.bincount(levels, weights, self.distinct)
        below: Floats = np.cumsum(own) - 0.5 * own
        return below


def _pooled_auc(positive: Scores, candidates: Scores) -> Statistic:
    """Area under the ROC curve; sorted once, then one cumulative sum for each weighting; NaN without a candidate."""
    levels = _Levels.of(positive, candidates)

    def area(weights: Floats) -> float:
        negative = weights[levels.rows]
        pairs = weights.sum() * negative.sum()
        beaten = levels.below(levels.low, negative)[levels.high]
        return float(weights @ beaten / pairs) if pairs else float("nan")

    return area
