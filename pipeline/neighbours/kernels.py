"""Compiled kernels on plain arrays: rows of item-to-item weights.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

from pipeline.row_kernels import sorted_above, threshold_of


@njit(nogil=True, cache=True)
def product_rows(graph, leaving, arriving, nodes, top, kept):
    """Weights between items: sums over the users of both, in ascending order of users, cut to the largest.

    Args:
        graph: (indptr, indices) of users and items, users first.
        leaving: float64 [users + items], the factor of a step out of each node.
        arriving: float64 [items], the factor of walks that end on each item.
        nodes: int64 [n], items as nodes, whose rows are wanted.
        top: most entries of a row; ties go to the smaller item.
        kept: (indptr int64 [n + 1], indices int32, weights float32), filled, items ascending; long enough for the
            smaller of `top` and the number of paths of two steps, of every item.
    """
    items = arriving.size
    users = leaving.size - items
    sums, touched = np.zeros(items, np.float64), np.empty(items + 1, np.int32)
    weights = np.empty(items, np.float32)
    values, rest, bins = weights.view(np.uint32), np.empty(items + 1, np.uint32), np.empty(2048, np.int64)
    kept[0][0] = 0
    for i in range(nodes.size):
        count = _sum_over_users(graph, leaving, nodes[i], users, sums, touched)
        count = _weigh(nodes[i] - users, leaving[nodes[i]], arriving, sums, touched, count, weights)
        start = kept[0][i]
        threshold, equals = threshold_of(values, count, top, bins, rest)
        size = sorted_above(values, touched, count, threshold, equals, rest, kept[1][start:])
        for j in range(start, start + size):
            item = uint64(kept[1][j])
            kept[2][j] = leaving[nodes[i]] * sums[item] * arriving[item]
        for j in range(count):
            sums[uint64(touched[j])] = 0.0
        kept[0][i + 1] = start + size


@njit(nogil=True, cache=True)
def _sum_over_users(graph, leaving, node, users, sums, touched):
    """Add up an item's walks of two steps by where they end; returns how many items were touched."""
    indptr, indices = graph
    count = 0
    for edge in range(indptr[node], indptr[node + 1]):
        user = indices[edge]
        for entry in range(indptr[user], indptr[user + 1]):
            item = uint64(indices[uint64(entry)] - users)
            touched[uint64(count)] = item
            count += sums[item] == 0.0
            sums[item] += leaving[user]
    return count


@njit(nogil=True, cache=True)
def _weigh(item, factor, arriving, sums, touched, count, weights):
    """The touched items whose weight is a positive float32, the item itself left out; returns how many they are."""
    positive = 0
    for j in range(count):
        other = uint64(touched[j])
        weight = np.float32(factor * sums[other] * arriving[other])
        if other == uint64(item) or weight == np.float32(0.0):
            sums[other] = 0.0
        else:
            touched[positive], weights[positive] = other, weight
            positive += 1
    return positive
