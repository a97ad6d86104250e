"""Where rows of weights are estimated from some of the walks, and how far such rows are from exact ones."""

from __future__ import annotations

import numpy as np

from data_contracts.seeding import name_seed
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.statistics import NeighboursComparison
from pipeline.compute.dtypes import Longs
from pipeline.compute.method_choice import ASKED_FOR, MethodChoice
from pipeline.compute.rows import CsrRows
from pipeline.neighbours.item_weights import ItemWeights

_CUTOFFS = 20, 100


def choose_method(paths: Longs, settings: NeighboursSettings) -> MethodChoice:
    """The method in the settings or, for `auto`, exact where it costs no more walks of two steps than allowed."""
    cost, allowed = int(paths.sum()), settings.exact_multiply_adds
    if settings.method != "auto":
        return MethodChoice(settings.method, ASKED_FOR)
    reason = f"exact takes {cost / 1e9:.3g} G multiply-adds; allowed are {allowed / 1e9:g} G"
    return MethodChoice("exact" if cost <= allowed else "walk", reason)


def compare_with_exact(weights: ItemWeights) -> NeighboursComparison:
    """How close estimated rows are to exact ones, on a sample of the items that have estimated rows.

    Returns:
        `estimated_items` of the graph, `items` of the sample and, where that has any, `overlap_at_20` and
        `overlap_at_100`, the mean share of an item's so many best neighbours that are among as many of its estimated
        row, and `relative_error`, the mean of |estimate / weight - 1| over its 100 best; 1 for one that is not kept.
    """
    settings = weights.settings
    estimated = np.flatnonzero(weights.paths > weights.walks)
    draw = np.random.Generator(np.random.Philox(name_seed(settings.seed, weights.graph.domain, "compare")))
    sample = np.sort(draw.choice(estimated, min(settings.compared_items, estimated.size), replace=False))
    comparison = NeighboursComparison(estimated_items=estimated.size, items=sample.size)
    if sample.size:
        means = accuracy(weights.rows(sample), weights.exact().rows(sample))
        comparison["overlap_at_20"] = means["overlap_at_20"]
        comparison["overlap_at_100"] = means["overlap_at_100"]
        comparison["relative_error"] = means["relative_error"]
    return comparison


def accuracy(rows: CsrRows, exact: CsrRows) -> dict[str, float]:
    """How far rows are from exact ones, none of which is empty: the means that `compare_with_exact` reports."""
    overlaps, errors = [], []
    for row in range(exact.size):
        estimates, true = _by_weight(rows, row), _by_weight(exact, row)
        best = [(list(estimates)[:cutoff], list(true)[:cutoff]) for cutoff in _CUTOFFS]
        overlaps.append([len(set(of_estimates) & set(of_true)) / len(of_true) for of_estimates, of_true in best])
        errors += [abs(estimates.get(item, 0.0) / true[item] - 1.0) for item in best[-1][1]]
    means = zip(_CUTOFFS, np.mean(overlaps, axis=0), strict=True)
    shares = {f"overlap_at_{cutoff}": round(float(mean), 4) for cutoff, mean in means}
    return {**shares, "relative_error": round(float(np.mean(errors)), 4)}


def _by_weight(rows: CsrRows, row: int) -> dict[int, float]:
    """Weight by item, largest first, ties by item."""
    _, items, weights = rows.select(range(row, row + 1))
    order = np.argsort(-weights, kind="stable")
    return dict(zip(items[order].tolist(), weights[order].tolist(), strict=True))
