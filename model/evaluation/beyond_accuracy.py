"""Measures of recommended lists that are no accuracy: how much of the catalogue they show, how popular their items are.

An item's popularity is the number of its train users in the domain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import COVERAGE, GINI, NOVELTY, POPULARITY, TAIL_SHARE
from model.data.dataset import DomainData
from model.evaluation.metrics import Floats
from model.sparse.rows import Ints, Longs


def catalogue_measures(lists: Ints, items: int) -> dict[str, float]:
    """Measures of all lists together.

    Args:
        lists: int32 (lists, length), numbers of items, -1 for missing ones.
        items: number of the domain's items.

    Returns:
        coverage@20, the share of the items that are in any list; gini@20, the Gini coefficient of how often each item
        is in a list: 0 if all are equally often, 1 - 1 / items if all lists have one and the same item. Empty if
        nothing is recommended.
    """
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=items))
    total = int(counts.sum())
    if total == 0:
        return {}
    position = 2.0 * np.arange(1, items + 1) - items - 1
    return {COVERAGE: np.count_nonzero(counts) / items, GINI: float(position @ counts) / (items * total)}


def list_measures(lists: Ints, domain: DomainData) -> dict[str, Floats]:
    """Measures of each list that has an item: means over its items.

    Args:
        lists: int32 (lists, length), numbers of items, -1 for missing ones.
        domain: the domain.

    Returns:
        float64 (lists that have an item): novelty@20, self-information in bits, -log2 of the share of the domain's
        users who have the item in train (an item that nobody has counts as if one user had it); popularity@20, train
        users; tail_share@20, the share of items in the tail. Empty if there is no such list.
    """
    lists = lists[(lists >= 0).any(axis=1)]
    if lists.size == 0:
        return {}
    popularity = np.diff(domain.indptr[domain.users :])
    by_item = {
        NOVELTY: np.log2(domain.users) - np.log2(np.maximum(popularity, 1)),
        POPULARITY: popularity.astype(np.float64),
        TAIL_SHARE: _in_tail(popularity).astype(np.float64),
    }
    is_item = lists >= 0
    lengths = is_item.sum(axis=1)
    return {metric: np.where(is_item, values[lists], 0.0).sum(axis=1) / lengths for metric, values in by_item.items()}


def _in_tail(popularity: Longs) -> NDArray[np.bool_]:
    """Which items are outside the head: the most popular items, equal ones by number, until they have 80 % of rows."""
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    is_tail = np.empty(popularity.size, np.bool_)
    is_tail[order] = 5 * before >= 4 * popularity.sum()  # in whole numbers, so that 80 % are met exactly
    return is_tail
