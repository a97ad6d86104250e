"""Compiled kernels on plain arrays: rows of weights between items, summed in full or estimated.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

from pipeline.compute.row_kernels import build_marks, largest_columns, mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53
_SMALLEST = 1.5e-45
"""The smallest positive number that is not 0 when rounded to float32."""


@njit(nogil=True, cache=True)
def neighbour_rows(graph, factors, shape, rows, limits, seed, kept):
    """Weights from items to the other items of their users, cut to the largest.

    A row is summed over its users in ascending order, and within a user over items in ascending order, so it does not
    depend on which other rows are computed.

    Args:
        graph: (indptr, indices) of users and items, users first.
        factors: (user_weights, row_norms, norms): float64 [users], what a walk through each user counts, and float64
            [items] twice: the product of the first item's row norm and the other's norm divides a weight.
        shape: (shrink, power): what is added to that product, and the power of the quotient that is the weight.
        rows: (nodes, paths): int64 [n], the items, as nodes, whose rows are computed, and int64 [n], walks of two
            steps from each of them.
        limits: (top, walks, touched): most entries of a row, ties go to the smaller item; most walks of two steps in a
            sum, a row with more of them is estimated; a bound of the items that the walks of a row can end on.
        seed: uint64, of the walks of estimated rows.
        kept: (indptr int64 [n + 1], indices int32, weights float32), filled, items ascending; long enough for the
            smaller of `top` and the items that walks can end on, of every item.
    """
    (user_weights, row_norms, norms), (nodes, paths), (top, walks, touched_most) = factors, rows, limits
    shrink, power = shape
    least = _SMALLEST ** min(1.0, 1.0 / power)
    items, users = norms.size, user_weights.size
    sums, touched = np.zeros(items, np.float64), np.empty(touched_most + 1, np.int32)
    quotients, rest = np.empty(touched_most + 1, np.float32), np.empty(touched_most + 1, np.uint32)
    values, bins, marks = quotients.view(np.uint32), np.empty(2048, np.int64), build_marks(items)
    kept[0][0] = 0
    for i in range(nodes.size):
        if paths[i] <= walks:
            count = _sum_over_users(graph, user_weights, nodes[i], users, sums, touched)
        else:
            count = _estimate(graph, user_weights, nodes[i], users, walks, seed, sums, touched)
        count = _divide(nodes[i] - users, (row_norms, norms), shrink, least, sums, touched, count, quotients)
        start = kept[0][i]
        size = largest_columns(values, touched, count, top, bins, rest, marks, kept[1][start:])
        for j in range(start, start + size):
            item = uint64(kept[1][j])
            kept[2][j] = sums[item] if power == 1.0 else sums[item] ** power
        for j in range(count):
            sums[uint64(touched[j])] = 0.0
        kept[0][i + 1] = start + size


@njit(nogil=True, cache=True)
def _sum_over_users(graph, user_weights, node, users, sums, touched):
    """Add up all walks of two steps from an item by where they end; returns how many items were touched."""
    indptr, indices = graph
    count = 0
    for edge in range(indptr[node], indptr[node + 1]):
        user = uint64(indices[uint64(edge)])
        count = _add(indices, indptr[user], indptr[user + uint64(1)], user_weights[user], users, sums, touched, count)
    return count


@njit(nogil=True, cache=True)
def _add(indices, start, stop, weight, users, sums, touched, count):
    """Add a user's weight to each of the items."""
    for entry in range(start, stop):
        item = uint64(indices[uint64(entry)] - users)
        touched[uint64(count)] = item
        count += sums[item] == 0.0
        sums[item] += weight
    return count


@njit(nogil=True, cache=True)
def _fair_share(graph, node, walks):
    """How many walks each user of an item gets, so that they are `walks` in all; some need fewer and leave the rest.

    A user with no more items than that needs as many as it has items; all users' items together are more than `walks`.
    """
    indptr, indices = graph
    before, share = -1.0, walks / (indptr[node + 1] - indptr[node])
    while share != before:
        users, left = 0, np.float64(walks)
        for edge in range(indptr[node], indptr[node + 1]):
            user = uint64(indices[uint64(edge)])
            degree = indptr[user + uint64(1)] - indptr[user]
            users += degree > share
            left -= degree if degree <= share else 0
        before, share = share, left / users
    return share


@njit(nogil=True, cache=True)
def _estimate(graph, user_weights, node, users, walks, seed, sums, touched):
    """`_sum_over_users` with only some of the walks through users of many items.

    Through a user of more items than its fair share go as many walks as the share, rounded up or down at random, on to
    items evenly spaced from a random first one. So each of its items is reached by share / degree walks on average, and
    a walk counts degree / share times.
    """
    indptr, indices = graph
    share = _fair_share(graph, node, walks)
    key = mix(seed + _GOLDEN * uint64(node + 1))
    until, count = _uniform(key), 0
    for edge in range(indptr[node], indptr[node + 1]):
        user = uint64(indices[uint64(edge)])
        start = indptr[user]
        degree = indptr[user + uint64(1)] - start
        if degree <= share:
            count = _add(indices, start, start + degree, user_weights[user], users, sums, touched, count)
            continue
        before = np.int64(until)
        until += share
        passing = np.int64(until) - before
        first = _uniform(mix(key + user + uint64(1))) if passing else 0.0
        weight = user_weights[user] * degree / share
        for walk in range(passing):
            entry = start + min(np.int64((walk + first) * degree / passing), degree - 1)
            count = _add(indices, entry, entry + 1, weight, users, sums, touched, count)
    return count


@njit(nogil=True, cache=True)
def _uniform(bits):
    """A number in [0, 1) from 64 random bits."""
    return (bits >> uint64(11)) * _UNIT


@njit(nogil=True, cache=True)
def _divide(item, norms, shrink, least, sums, touched, count, quotients):
    """Divide sums by norms; returns how many items, without the item itself, have a quotient of at least `least`.

    Rows are cut by these quotients, which have the order of the weights: computing powers would take longest of all.
    """
    (row_norms, column_norms), enough = norms, 0
    for j in range(count):
        other = uint64(touched[j])
        sums[other] /= row_norms[item] * column_norms[other] + shrink
        touched[enough], quotients[enough] = other, sums[other]
        is_kept = (other != uint64(item)) & (sums[other] >= least)
        if not is_kept:
            sums[other] = 0.0
        enough += is_kept
    return enough
