"""Differences between runs judged on the very same held-out rows: p by a paired bootstrap over users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import MACRO, METRICS, RANKS_FILE
from data_contracts.store.files import read_rows
from flows.runner.lookup import RunView
from model.evaluation.metrics import Estimate, mean_estimate, resample_weights
from model.evaluation.significance import UserSums, differences, mean_sums, p_value, user_sums

RESAMPLES = 1000
"""Of the users of each domain; no p is smaller than one in so many."""

_SEED = 2022

PValues = Mapping[tuple[str, str, str], float]
"""(run, domain, metric) → p."""


def p_over_users(runs: Sequence[RunView]) -> PValues:
    """How likely each run would differ from the first as much by chance, were other users held out.

    Users are drawn with replacement, the same for all runs. Rows count with the mean over the seeds that both runs
    have, over all of each where they share none. A domain whose held-out rows are not the first run's is left out, and
    so is that run's mean over domains.

    Returns:
        By run, domain (or `macro`) and metric.
    """
    ranks = {run.name: table for run in runs if (table := _ranks(run)) is not None}
    first, *others = runs
    found: dict[str, dict[str, dict[str, Estimate]]] = {run.name: {} for run in others if run.name in ranks}
    domains = pc.unique(ranks[first.name]["domain"]).to_pylist() if first.name in ranks else []
    for domain in domains:
        pairs = {run.name: _pair(run, first, ranks, domain) for run in others if run.name in ranks}
        same = {name: pair for name, pair in pairs.items() if np.array_equal(pair[0].rows, pair[1].rows)}
        if same:
            users = next(iter(same.values()))[0].users
            weights = resample_weights(_SEED, ("users", domain), RESAMPLES, users)
            for name, own in zip(same, differences(list(same.values()), weights), strict=True):
                found[name][domain] = own
    return {
        (name, domain, metric): p_value(estimate)
        for name, of_run in found.items()
        for domain, own in ({**of_run, MACRO: _macro(of_run)} if len(of_run) == len(domains) else of_run).items()
        for metric, estimate in own.items()
    }


def _ranks(run: RunView) -> pa.Table | None:
    """What the run's held-out rows were ranked; None where it has none, or was evaluated before they were kept."""
    path = run.artifacts[METRICS.name].path / RANKS_FILE
    table = read_rows(path) if path.exists() else None
    return table if table is not None and table.num_rows else None


def _pair(run: RunView, first: RunView, ranks: Mapping[str, pa.Table], domain: str) -> tuple[UserSums, UserSums]:
    """Sums of both runs in a domain, over the seeds that they share."""
    seeds = [set(ranks[one.name]["seed"].to_pylist()) for one in (run, first)]
    common = seeds[0] & seeds[1]
    own, theirs = (
        _sums(one, ranks[one.name], domain, common or of) for one, of in zip((run, first), seeds, strict=True)
    )
    return own, theirs


def _sums(run: RunView, ranks: pa.Table, domain: str, seeds: set[int]) -> UserSums:
    settings = run.artifacts[METRICS.name].manifest.settings
    here = ranks.filter(pc.equal(ranks["domain"], domain))
    of_seeds = (here.filter(pc.equal(here["seed"], seed)) for seed in sorted(seeds))
    return mean_sums([user_sums(own, settings["recall_at"], settings["full_at"]) for own in of_seeds])


def _macro(of_run: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The mean over the domains that have a metric."""
    metrics = dict.fromkeys(metric for own in of_run.values() for metric in own)
    return {metric: mean_estimate([own[metric] for own in of_run.values() if metric in own]) for metric in metrics}
