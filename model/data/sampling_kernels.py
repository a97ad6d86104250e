"""Compiled loops that draw negatives and candidates.

Arrays in, preallocated output filled; nothing is checked here. Every random bit is `mix(key, counter)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from model.compute.random_kernels import below, mix


@njit(nogil=True, cache=True)
def unknown_item(known, first, last, rank):
    """The item with `rank` smaller items outside the ascending `known[first:last]`.

    known[first + i] - i never decreases with i, so bisection finds how many known items lie before the answer.
    """
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if known[middle] - (middle - first) <= rank:
            low = middle + 1
        else:
            high = middle
    return rank + (low - first)


@njit(nogil=True, cache=True)
def draw_negatives(indptr, known, users, items, key, negatives):
    """For each user a uniform item of 0 … items - 1 not in the user's ascending row of `known`; one must exist."""
    for i in range(users.size):
        first, last = indptr[users[i]], indptr[users[i] + 1]
        rank = below(mix(key, i), items - (last - first))
        negatives[i] = unknown_item(known, first, last, rank)


@njit(nogil=True, cache=True)
def _first_slot(known, low, high, item):
    """The first slot from `low` up to `high` whose item is not smaller; NumPy's search takes a second to compile."""
    while low < high:
        middle = (low + high) // 2
        if known[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def share_negatives(indptr, known, users, negatives, shifts, owners):
    """For each triple, the triples whose negatives it is compared with: itself, then those `shifts` further on.

    If the user knows another triple's negative, the triple's own takes its place.

    Args:
        indptr, known: the items that are no negatives of each user, ascending.
        users, negatives: int32, of each triple; no user knows the own negative.
        shifts: int64, at least 0.
        owners: int32 (triples, 1 + shifts), filled with numbers of triples.
    """
    for i in range(users.size):
        first, last = indptr[users[i]], indptr[users[i] + 1]
        owners[i, 0] = i
        for j in range(shifts.size):
            other = (i + shifts[j]) % users.size
            slot = _first_slot(known, first, last, negatives[other])
            owners[i, j + 1] = i if slot < last and known[slot] == negatives[other] else other


@njit(nogil=True, cache=True)
def mark_known(indptr, known, users, negatives, starts, marks):
    """Mark the negatives of each row's group that its user knows.

    Args:
        indptr, known: the items that are no negatives of each user, ascending.
        users, negatives: int32, of each row.
        starts: int64, for each row where its group's negatives begin; equal in neighbouring rows of a group.
        marks: bool (rows, negatives of a group), false; filled.
    """
    size = marks.shape[1]
    order, window, start = np.empty(0, np.int64), negatives[:0], -1
    for i in range(users.size):
        if starts[i] != start:
            start = starts[i]
            order = np.argsort(negatives[start : start + size])
            window = negatives[start : start + size][order]
        for slot in range(indptr[users[i]], indptr[users[i] + 1]):
            j = np.searchsorted(window, known[slot])
            while j < size and window[j] == known[slot]:
                marks[i, order[j]] = True
                j += 1


@njit(nogil=True, cache=True)
def draw_candidates(indptr, known, rows, row_keys, items, stamp, candidates):
    """For each row distinct uniform items that are not in `known[rows[i]]`, by Floyd's algorithm; -1 when none is left.

    Args:
        indptr, known: excluded items in compressed rows, ascending.
        rows: int64, the row of `known` that belongs to each output row.
        row_keys: uint64, the key of each output row's draws.
        items: number of items.
        stamp: int64 zeros, one per item.
        candidates: int32 (rows, candidates), filled.
    """
    for i in range(rows.size):
        first, last = indptr[rows[i]], indptr[rows[i] + 1]
        free = items - (last - first)
        taken = min(candidates.shape[1], free)
        for j in range(taken):
            top = free - taken + j
            rank = below(mix(row_keys[i], j), top + 1)
            if stamp[rank] == i + 1:
                rank = top
            stamp[rank] = i + 1
            candidates[i, j] = unknown_item(known, first, last, rank)
        for j in range(taken, candidates.shape[1]):
            candidates[i, j] = -1


@njit(nogil=True, cache=True)
def derive_row_keys(key, users, items, row_keys):
    """The key of each (user, item), derived from `key`."""
    for i in range(users.size):
        row_keys[i] = mix(mix(key, users[i]), items[i])
