"""Significance of differences between runs: p values by seed and over users, corrected for many comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ALL, MACRO, METRICS, RANKS, SHARE
from flows.compare.runs import difference
from flows.runner.lookup import RunView
from model.evaluation.metrics import Estimate, mean_estimate, resample_weights
from model.evaluation.significance import UserSums, differences, mean_sums, p_value, tail_p_value, user_sums

RESAMPLES = 1000
"""Bootstrap resamples of the users of each domain; no p is smaller than 1 / RESAMPLES."""

_SEED = 2022

_RUNS_AT_ONCE = 8
"""Runs whose sums by user are in memory as one array; each such array draws the same users."""


class P(NamedTuple):
    """p of a comparison: by itself, and corrected for all comparisons of its family by Holm's method."""

    raw: float
    corrected: float


Comparison = tuple[str, str, str, str]
"""Run, stratum, domain and metric of a difference from the first run."""


@dataclass(frozen=True)
class Significance:
    """p values of all differences from the first run.

    A family is a metric in all other runs and all domains, their mean included; each of the two tests has its own.
    In strata of the held-out rows, the means over domains are a family, and the domains by themselves another.
    """

    by_seed: Mapping[Comparison, P]
    """By a t test paired by seed; only of runs with at least two common seeds."""
    over_users: Mapping[Comparison, P]
    """By a paired bootstrap over users, of all held-out rows together."""

    @classmethod
    def build(cls, runs: Sequence[RunView]) -> Significance:
        """Compare all runs with the first.

        Raises:
            ValueError: two runs have the same name.
        """
        if repeated := [name for name, times in Counter(run.name for run in runs).items() if times > 1]:
            raise ValueError(f"two runs are called {repeated[0]!r}; names must differ: set `name` in one of them")
        first, *others = runs
        by_seed = {
            (run.name, stratum, *measure): delta.p
            for run in others
            for stratum, values in run.values_by_stratum.items()
            for measure in values
            if not measure[1].startswith(SHARE)
            and (delta := difference(run, first, measure, stratum))
            and delta.p is not None
        }
        return cls(_correct(by_seed), over_users(runs))


C = TypeVar("C", bound=Hashable)


def holm(p_values: Mapping[C, float]) -> dict[C, float]:
    """Corrected p values of a family: the smallest times its size n, the next times n - 1, … [Holm 1979].

    None is below that of a smaller p, and none above 1.
    """
    ordered = sorted(p_values, key=lambda comparison: p_values[comparison])
    corrected, largest = {}, 0.0
    for rank, comparison in enumerate(ordered):
        largest = max(largest, min(1.0, p_values[comparison] * (len(ordered) - rank)))
        corrected[comparison] = largest
    return corrected


def _correct(
    p_values: Mapping[Comparison, float], in_tail: Mapping[Comparison, float] | None = None
) -> dict[Comparison, P]:
    """Correct every family; `in_tail` are p values to multiply, where those by themselves are only counted."""
    families: dict[Hashable, dict[Comparison, float]] = {}
    for comparison, p in (in_tail or p_values).items():
        _, stratum, domain, metric = comparison
        family = (metric, stratum == ALL, stratum == ALL or domain == MACRO)
        families.setdefault(family, {})[comparison] = p
    corrected = {comparison: p for family in families.values() for comparison, p in holm(family).items()}
    return {comparison: P(p, max(p, corrected[comparison])) for comparison, p in p_values.items()}


def over_users(runs: Sequence[RunView]) -> dict[Comparison, P]:
    """Probability that a run differs as much from the first by chance, if other users had been held out.

    Users are drawn with replacement, the same ones for all runs. A row counts with its mean over the seeds that both
    runs have, or over all seeds of each if they have none in common. If a domain's held-out rows are not the first
    run's, the domain is left out, and so is that run's mean over domains.

    Returns:
        By run, stratum `all`, domain (or `macro`) and metric.
    """
    ranks = {run.name: table for run in runs if (table := _read_ranks(run)) is not None}
    first, *others = runs
    by_run: dict[str, dict[str, dict[str, Estimate]]] = {run.name: {} for run in others if run.name in ranks}
    domains = pc.unique(ranks[first.name]["domain"]).to_pylist() if first.name in ranks else []
    for domain in domains:
        pairs = {run.name: _paired_sums(run, first, ranks, domain) for run in others if run.name in ranks}
        comparable = {name: pair for name, pair in pairs.items() if np.array_equal(pair[0].rows, pair[1].rows)}
        names = list(comparable)
        for chosen in (names[start : start + _RUNS_AT_ONCE] for start in range(0, len(names), _RUNS_AT_ONCE)):
            pairs_at_once = [comparable[name] for name in chosen]
            weights = resample_weights(_SEED, ("users", domain), RESAMPLES, pairs_at_once[0][0].users)
            for name, estimates in zip(chosen, differences(pairs_at_once, weights), strict=True):
                by_run[name][domain] = estimates
    for by_domain in by_run.values():
        if len(by_domain) == len(domains):
            by_domain[MACRO] = _macro(by_domain)
    compared = {
        (name, ALL, domain, metric): estimate
        for name, by_domain in by_run.items()
        for domain, estimates in by_domain.items()
        for metric, estimate in estimates.items()
    }
    counted = {comparison: p_value(estimate) for comparison, estimate in compared.items()}
    return _correct(counted, {comparison: tail_p_value(estimate) for comparison, estimate in compared.items()})


def _read_ranks(run: RunView) -> pa.Table | None:
    """Ranks of the run's held-out rows; None if there are none, or if it was evaluated before ranks were kept."""
    ranks = run.artifacts.get(RANKS.name)
    return ranks.read() if ranks and ranks.manifest.rows else None


def _paired_sums(run: RunView, first: RunView, ranks: Mapping[str, pa.Table], domain: str) -> tuple[UserSums, UserSums]:
    """Sums of both runs in a domain, over the seeds that they have in common, else over all seeds of each."""
    seeds, first_seeds = (set(ranks[view.name]["seed"].to_pylist()) for view in (run, first))
    common = seeds & first_seeds
    return (
        _domain_sums(run, ranks[run.name], domain, common or seeds),
        _domain_sums(first, ranks[first.name], domain, common or first_seeds),
    )


def _domain_sums(run: RunView, ranks: pa.Table, domain: str, seeds: set[int]) -> UserSums:
    settings = run.artifacts[METRICS.name].manifest.settings
    ranks = ranks.filter(pc.equal(ranks["domain"], domain))
    by_seed = (ranks.filter(pc.equal(ranks["seed"], seed)) for seed in sorted(seeds))
    return mean_sums([user_sums(rows, settings["recall_at"], settings["full_at"]) for rows in by_seed])


def _macro(by_domain: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The mean of each metric over the domains that have it."""
    metrics = dict.fromkeys(metric for estimates in by_domain.values() for metric in estimates)
    return {
        metric: mean_estimate([estimates[metric] for estimates in by_domain.values() if metric in estimates])
        for metric in metrics
    }
