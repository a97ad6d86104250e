"""Runs on the same held-out rows: how likely so large a difference is by chance, by a paired bootstrap over users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.evaluation.metrics import Estimate, Floats, user_values


@dataclass(frozen=True)
class UserSums:
    """What each user adds to the metrics of a domain: a metric is the sum of `values` over that of `counts`.

    Attributes:
        values, counts: metric → float64 (users), users ascending.
        rows: int32 (rows, 2), user and item of the held-out rows behind them.
    """

    values: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    rows: NDArray[np.int32]

    @property
    def users(self) -> int:
        """Users with held-out rows."""
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
    of_rows = {"auc": ranks["auc"].to_numpy()[known]}
    of_rows |= {f"recall@{k}": ranks["rank"].to_numpy()[known] <= k for k in recall_at}
    values: dict[str, Floats] = {
        metric: np.bincount(owner[known], own, distinct.size).astype(np.float64) for metric, own in of_rows.items()
    }
    counts = dict.fromkeys(values, np.bincount(owner[known], minlength=distinct.size).astype(np.float64))
    ranked = ranks.filter(pc.is_valid(ranks["full_rank"]))
    full = user_values(ranked["user"].to_numpy(), ranked["full_rank"].to_numpy(), tuple(full_at))
    is_ranked = np.isin(distinct, ranked["user"].to_numpy())
    for metric, own in full.items():
        values[metric] = np.zeros(distinct.size)
        values[metric][is_ranked] = own
        counts[metric] = is_ranked.astype(np.float64)
    return UserSums(values, counts, np.stack([users, ranks["item"].to_numpy()], axis=1))


def mean_sums(of_seeds: Sequence[UserSums]) -> UserSums:
    """The mean over seeds, which share the held-out rows."""
    first = of_seeds[0]
    values = {metric: np.mean([one.values[metric] for one in of_seeds], axis=0) for metric in first.values}
    return UserSums(values, first.counts, first.rows)


def differences(pairs: Sequence[tuple[UserSums, UserSums]], weights: Iterator[Floats]) -> list[dict[str, Estimate]]:
    """For each pair of runs on the same users, metrics of the first minus the second's, and for each resample.

    Args:
        pairs: at least one.
        weights: how often each user counts, for one resample after another.
    """
    columns = [(place, metric) for place, (run, other) in enumerate(pairs)
               for metric in run.values if metric in other.values]  # fmt: skip
    sums = np.array([[side[metric] for run in pairs[place] for side in (run.values, run.counts)]
                     for place, metric in columns])  # fmt: skip
    resampled = np.array([sums @ one for one in (np.ones(sums.shape[2]), *weights)])
    with np.errstate(invalid="ignore"):  # a resample may be without a row that counts
        gained = resampled[..., 0] / resampled[..., 1] - resampled[..., 2] / resampled[..., 3]
    found: list[dict[str, Estimate]] = [{} for _ in pairs]
    for (place, metric), own in zip(columns, gained.T, strict=True):
        if not np.isnan(own[0]):
            found[place][metric] = Estimate(float(own[0]), own[1:], len(pairs[place][0].rows))
    return found


def p_of_no_difference(found: Estimate) -> float:
    """Two-sided p: how often resamples lie as far from the difference as it lies from zero, itself counted as one."""
    known = found.resamples[~np.isnan(found.resamples)]
    as_far = np.abs(known - found.value) >= abs(found.value) - 1e-12
    return float((1 + np.count_nonzero(as_far)) / (1 + known.size))
