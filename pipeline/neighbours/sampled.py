"""Sampled: where rows of weights are estimated from some of the walks, and how far such rows are from exact ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_contracts.seeding import name_seed
from data_contracts.settings import NeighboursSettings
from pipeline.compute.rows import Rows
from pipeline.neighbours.products import Numbers, Products

_CUTOFFS = 20, 100


@dataclass(frozen=True)
class Choice:
    """How a graph's rows are made, and why.

    Attributes:
        method: exact or walk.
        reason: in words, with the predicted cost.
    """

    method: str
    reason: str


def chosen_method(paths: Numbers, settings: NeighboursSettings) -> Choice:
    """The method asked for, or exact where the settings allow its cost, the walks of two steps from all items."""
    cost, allowed = int(paths.sum()), settings.exact_multiply_adds
    if settings.method != "auto":
        return Choice(settings.method, "asked for")
    reason = f"exact takes {cost / 1e9:.3g} G multiply-adds; allowed are {allowed / 1e9:g} G"
    return Choice("exact" if cost <= allowed else "walk", reason)


def against_exact(products: Products) -> dict[str, float | int]:
    """How close estimated rows are to exact ones, on a sample of the items that have estimated rows.

    Returns:
        `estimated_items` of the graph, `items` of the sample and, where that has any, `overlap_at_20` and
        `overlap_at_100`, the mean share of an item's so many best neighbours that are among as many of its estimated
        row, and `relative_error`, the mean of |estimate / weight - 1| over its 100 best; 1 for one that is not kept.
    """
    settings = products.settings
    estimated = np.flatnonzero(products.paths > products.walks)
    draw = np.random.Generator(np.random.Philox(name_seed(settings.seed, products.graph.domain, "compare")))
    sample = np.sort(draw.choice(estimated, min(settings.compared_items, estimated.size), replace=False))
    compared: dict[str, float | int] = {"estimated_items": estimated.size, "items": sample.size}
    if sample.size:
        rows, exact = products.rows(sample), products.exact().rows(sample)
        compared |= accuracy(rows, exact)
    return compared


def accuracy(rows: Rows, exact: Rows) -> dict[str, float]:
    """How far rows are from exact ones, none of which is empty: the means that `against_exact` tells."""
    overlaps, errors = [], []
    for row in range(exact.indptr.size - 1):
        estimates, true = _by_weight(rows, row), _by_weight(exact, row)
        best = [(list(estimates)[:cutoff], list(true)[:cutoff]) for cutoff in _CUTOFFS]
        overlaps.append([len(set(found) & set(wanted)) / len(wanted) for found, wanted in best])
        errors += [abs(estimates.get(item, 0.0) / true[item] - 1.0) for item in best[-1][1]]
    means = zip(_CUTOFFS, np.mean(overlaps, axis=0), strict=True)
    shares = {f"overlap_at_{cutoff}": round(float(mean), 4) for cutoff, mean in means}
    return {**shares, "relative_error": round(float(np.mean(errors)), 4)}


def _by_weight(rows: Rows, row: int) -> dict[int, float]:
    """Weight by item, largest first, ties by item."""
    entries = slice(rows.indptr[row], rows.indptr[row + 1])
    order = np.argsort(-rows.weights[entries], kind="stable")
    return dict(zip(rows.indices[entries][order].tolist(), rows.weights[entries][order].tolist(), strict=True))
