"""Significance of differences between runs on the same held-out rows: a paired bootstrap over users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from model.evaluation.metrics import Estimate, Floats, user_values


@dataclass(frozen=True)
class UserSums:
    """Each user's contribution to the metrics of a domain: a metric is the sum of `values` over the sum of `counts`.

    Attributes:
        values, counts: metric → float64 (users), users ascending.
        rows: int32 (rows, 2), user and item of the held-out rows behind them.
    """

    values: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    rows: NDArray[np.int32]

    @property
    def users(self) -> int:
        """Number of users with held-out rows."""
        return int(np.unique(self.rows[:, 0]).size)


def user_sums(ranks: pa.Table, recall_at: Sequence[int], full_at: Sequence[int]) -> UserSums:
    """Sums by user of one seed's and domain's rows.

    Args:
        ranks: rows of RANKS.
        recall_at: cut-offs among candidates.
        full_at: cut-offs among all items.
    """
    users = ranks["user"].to_numpy()
    distinct, owner = np.unique(users, return_inverse=True)
    known = pc.is_valid(ranks["rank"]).to_numpy()
    by_row = {"auc": ranks["auc"].to_numpy()[known]}
    by_row |= {f"recall@{k}": ranks["rank"].to_numpy()[known] <= k for k in recall_at}
    values: dict[str, Floats] = {
        metric: np.bincount(owner[known], of_rows, distinct.size).astype(np.float64)
        for metric, of_rows in by_row.items()
    }
    counts = dict.fromkeys(values, np.bincount(owner[known], minlength=distinct.size).astype(np.float64))
    ranked = ranks.filter(pc.is_valid(ranks["full_rank"]))
    full = user_values(ranked["user"].to_numpy(), ranked["full_rank"].to_numpy(), tuple(full_at))
    is_ranked = np.isin(distinct, ranked["user"].to_numpy())
    for metric, of_users in full.items():
        values[metric] = np.zeros(distinct.size)
        values[metric][is_ranked] = of_users
        counts[metric] = is_ranked.astype(np.float64)
    return UserSums(values, counts, np.stack([users, ranks["item"].to_numpy()], axis=1))


def mean_sums(of_seeds: Sequence[UserSums]) -> UserSums:
    """The mean over seeds, which share the held-out rows."""
    first = of_seeds[0]
    values = {metric: np.mean([sums.values[metric] for sums in of_seeds], axis=0) for metric in first.values}
    return UserSums(values, first.counts, first.rows)


def differences(pairs: Sequence[tuple[UserSums, UserSums]], weights: Iterator[Floats]) -> list[dict[str, Estimate]]:
    """For each pair of runs on the same users, the first run's metrics minus the second's, also in each resample.

    Args:
        pairs: at least one.
        weights: of each user, for one resample after another.
    """
    columns: list[tuple[int, str]] = []
    sums: list[list[Floats]] = []
    for index, (run, other) in enumerate(pairs):
        for metric in (name for name in run.values if name in other.values):
            columns.append((index, metric))
            sums.append([run.values[metric], run.counts[metric], other.values[metric], other.counts[metric]])
    by_user = np.array(sums)
    resampled = np.array([by_user @ weight for weight in (np.ones(by_user.shape[2]), *weights)])
    with np.errstate(invalid="ignore"):  # a resample may have no row that counts
        gains = resampled[..., 0] / resampled[..., 1] - resampled[..., 2] / resampled[..., 3]
    estimates: list[dict[str, Estimate]] = [{} for _ in pairs]
    for (index, metric), gain in zip(columns, gains.T, strict=True):
        if not np.isnan(gain[0]):
            first = pairs[index][0]
            estimates[index][metric] = Estimate(float(gain[0]), gain[1:], len(first.rows), first.users)
    return estimates


def p_value(difference: Estimate) -> float:
    """Two-sided p: how often resamples lie as far from the difference as it lies from zero, itself counted as one."""
    defined = difference.resamples[~np.isnan(difference.resamples)]
    return float((1 + _as_far(difference, defined)) / (1 + defined.size))


def tail_p_value(difference: Estimate) -> float:
    """The same below what resamples can count, so that it can be multiplied by the number of comparisons.

    If no resample lies as far, p is that of Student's t with the resamples' standard deviation as the standard error
    and a degree of freedom less than users, and at most what `p_value` counts.
    """
    defined = difference.resamples[~np.isnan(difference.resamples)]
    counted = p_value(difference)
    if defined.size < 2 or difference.users < 2 or _as_far(difference, defined):
        return counted
    error = float(defined.std(ddof=1))
    return min(counted, 2 * float(stats.t.sf(abs(difference.value) / error, difference.users - 1))) if error else 0.0


def _as_far(difference: Estimate, defined: Floats) -> int:
    """How many resamples lie as far from the difference as it lies from zero."""
    return int(np.count_nonzero(np.abs(defined - difference.value) >= abs(difference.value) - 1e-12))
