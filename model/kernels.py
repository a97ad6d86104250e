"""Compiled loops of the model: expanding sparse rows with their dropout mask, drawing items, ranking items.

Arrays in, preallocated output filled; nothing is checked here. Every random bit is `mix(key, counter)`.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def mix(key, counter):
    """Bits number `counter` of the stream `key` (splitmix64); uint64 in, uint64 out."""
    bits = key + np.uint64(0x9E3779B97F4A7C15) * (np.uint64(counter) + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(nogil=True, cache=True)
def below(bits, bound):
    """A number in [0, bound) from the upper 32 of 64 bits; for bound < 2^32 its bias is below bound / 2^32."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(nogil=True, cache=True)
def expand_rows(
    indptr, indices, values, column_of, rows, own_weight, scale, threshold, key,
    position, frontier, seeded, out_indptr, out_indices, out_values,
):  # fmt: skip
    """Cut `rows` out of a square CSR matrix, keep each entry by its own hash, and number the columns met, ascending.

    Entry `slot` is kept where `mix(key, slot)` reaches `threshold`. Row r becomes, in this order, its own column
    with `own_weight` (left out where that is 0) and its kept entries times `scale`.

    Args:
        indptr, indices, values: the matrix (int64, int32, float32).
        column_of: int32, what a column stands for; columns of equal meaning are joined.
        rows: int32, rows to cut out.
        own_weight, scale: float32.
        threshold, key: uint64.
        position: int32, -1 for every meaning; left as found.
        frontier: int32, its first `seeded` entries are the meanings numbered before any is met; filled. It has one
            entry more than can be met.
        out_indptr, out_indices, out_values: the cut-out rows; columns are positions in `frontier`.

    Returns:
        Length of `frontier` and number of entries.
    """
    met = seeded
    for i in range(seeded):
        position[frontier[i]] = i
    entries = 0
    out_indptr[0] = 0
    for i in range(rows.size):
        row = rows[i]
        if own_weight != 0:
            column = column_of[row]
            if position[column] < 0:
                position[column] = met
                frontier[met] = column
                met += 1
            out_indices[entries] = position[column]
            out_values[entries] = own_weight
            entries += 1
        kept = entries
        for slot in range(indptr[row], indptr[row + 1]):  # no branch depends on a draw: processors cannot guess them
            out_indices[kept] = slot - indptr[row]
            kept += mix(key, slot) >= threshold
        for place in range(entries, kept):
            slot = indptr[row] + out_indices[place]
            column = column_of[indices[slot]]
            known = position[column]
            number = known if known >= 0 else met
            position[column] = number
            frontier[met] = column
            met += known < 0
            out_indices[place] = number
            out_values[place] = values[slot] * scale
        entries = kept
        out_indptr[i + 1] = entries
    renumber(position, frontier, seeded, met, out_indices[:entries])
    return met, entries


@njit(nogil=True, cache=True)
def renumber(position, distinct, fixed, met, places):
    """Number what was met anew, ascending but for the first `fixed`: who reads it in this order reads memory in order.

    Args:
        position: int32, the number of each of `distinct[:met]`, -1 elsewhere; all -1 afterwards.
        distinct: int32, what was met, in the order of its numbers; put into the new order.
        places: int32, numbers; changed into the new ones.
    """
    numbers = np.empty(met, np.int32)
    for i in range(fixed):
        numbers[i] = i
        position[distinct[i]] = -1
    number = fixed
    for i in range(position.size):
        if position[i] >= 0:
            numbers[position[i]] = number
            distinct[number] = i
            position[i] = -1
            number += 1
    for i in range(places.size):
        places[i] = numbers[places[i]]


@njit(nogil=True, cache=True)
def multiply_rows(first, last, indptr, indices, values, dense, product):
    """Rows first … last - 1 of a CSR matrix times `dense`, into `product`; a row adds up in its entries' order."""
    for row in range(first, last):
        start, stop = indptr[row], indptr[row + 1]
        total = product[row]
        if start == stop:
            total[:] = 0
            continue
        value, vector = values[start], dense[indices[start]]
        for j in range(total.size):
            total[j] = value * vector[j]
        for slot in range(start + 1, stop):
            value, vector = values[slot], dense[indices[slot]]
            for j in range(total.size):
                total[j] += value * vector[j]


@njit(nogil=True, cache=True, error_model="numpy")  # Python's check of each division would cost four times as much
def adam_rows(first, last, place, gradient, rates, table, mean, square):
    """A step of Adam on rows first … last - 1 of a table, whose gradient is zero but in some rows.

    Args:
        place: int32, where in `gradient` a row's gradient is; -1 where it is zero.
        gradient: float32 (rows with a gradient, width).
        rates: float32, what is kept of the mean and what of the slope is added to it, the same of the square, the
            step's size over the mean's bias, one over the root of the square's bias, and epsilon.
        table, mean, square: float32 (rows, width), the table and its moments; changed.
    """
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for row in range(first, last):
        values, means, squares = table[row], mean[row], square[row]
        if place[row] >= 0:
            slopes = gradient[place[row]]
            for j in range(values.size):
                means[j] = keep_mean * means[j] + add_mean * slopes[j]
                squares[j] = keep_square * squares[j] + add_square * slopes[j] * slopes[j]
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
        else:
            for j in range(values.size):
                means[j] *= keep_mean
                squares[j] *= keep_square
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)


@njit(nogil=True, cache=True)
def transpose(indptr, indices, values, out_indptr, out_indices, out_values):
    """Transpose a CSR matrix by counting; rows stay ascending within a column. `out_indptr` comes in as zeros."""
    for slot in range(indices.size):
        out_indptr[indices[slot] + 1] += 1
    for column in range(out_indptr.size - 1):
        out_indptr[column + 1] += out_indptr[column]
    for row in range(indptr.size - 1):
        for slot in range(indptr[row], indptr[row + 1]):
            column = indices[slot]
            place = out_indptr[column]
            out_indices[place] = row
            out_values[place] = values[slot]
            out_indptr[column] = place + 1
    for column in range(out_indptr.size - 1, 0, -1):
        out_indptr[column] = out_indptr[column - 1]
    out_indptr[0] = 0


@njit(nogil=True, cache=True)
def number_distinct(nodes, position, distinct, places, counts):
    """Number the distinct nodes, ascending: `distinct[places[i]] == nodes[i]`; returns how many.

    `position` is -1 for every node and left as found; `counts` is filled with how often each was met.
    """
    met = 0
    for i in range(nodes.size):
        node = nodes[i]
        if position[node] < 0:
            position[node] = met
            distinct[met] = node
            met += 1
        places[i] = position[node]
    renumber(position, distinct, 0, met, places)
    counts[:met] = 0
    for i in range(nodes.size):
        counts[places[i]] += 1
    return met


@njit(nogil=True, cache=True)
def unknown_item(known, first, last, rank):
    """The item with `rank` smaller items outside the ascending `known[first:last]`.

    known[first + i] - i never falls with i, so bisection finds how many known items lie before the answer.
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
    """For each user a uniform item of 0 … items - 1 outside the user's ascending row of `known`; there must be one."""
    for i in range(users.size):
        first, last = indptr[users[i]], indptr[users[i] + 1]
        rank = below(mix(key, i), items - (last - first))
        negatives[i] = unknown_item(known, first, last, rank)


@njit(nogil=True, cache=True)
def share_negatives(indptr, known, users, negatives, shifts, owners):
    """For each triple whose negative it is compared with: its own, then those of the triples `shifts` further on.

    A negative that the user knows is no negative of theirs; the triple's own stands in for it.

    Args:
        indptr, known: ascending items that are no negatives, by user.
        users, negatives: int32, of each triple; its own negative is none that the user knows.
        shifts: int64, at least 0.
        owners: int32 (triples, 1 + shifts), filled with triples.
    """
    for i in range(users.size):
        first, last = indptr[users[i]], indptr[users[i] + 1]
        owners[i, 0] = i
        for j in range(shifts.size):
            other = (i + shifts[j]) % users.size
            place = first + np.searchsorted(known[first:last], negatives[other])
            owners[i, j + 1] = i if place < last and known[place] == negatives[other] else other


@njit(nogil=True, cache=True)
def draw_candidates(indptr, known, rows, row_keys, items, stamp, candidates):
    """For each row distinct uniform items outside `known[rows[i]]`, by Floyd's algorithm; -1 where none is left.

    Args:
        indptr, known: ascending items left out, by row.
        rows: int64, the row of `known` that belongs to each output row.
        row_keys: uint64, the name of each output row's draws.
        items: items there are.
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
def name_rows(key, users, items, row_keys):
    """Key of each (user, item) under `key`."""
    for i in range(users.size):
        row_keys[i] = mix(mix(key, users[i]), items[i])


@njit(nogil=True, cache=True)
def count_at_least(scores, rows, items, indptr, masked, ranks):
    """Pessimistic rank of each (row, item): unmasked items of the row that score at least as high, itself included."""
    for i in range(rows.size):
        row = rows[i]
        score = scores[row, items[i]]
        rank = 0
        for j in range(scores.shape[1]):
            rank += scores[row, j] >= score
        for slot in range(indptr[row], indptr[row + 1]):
            rank -= scores[row, masked[slot]] >= score
        ranks[i] = rank


@njit(nogil=True, cache=True)
def best_items(scores, indptr, masked, items, best):
    """The highest scoring unmasked columns of each row, equal scores by ascending column; -1 where none is left.

    Args:
        scores: float32 (rows, columns); masked entries become -inf.
        indptr, masked: masked columns by row.
        items, best: int32 and float32 (rows, n), filled.
    """
    for row in range(scores.shape[0]):
        for slot in range(indptr[row], indptr[row + 1]):
            scores[row, masked[slot]] = -np.inf
        filled = 0
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if score == -np.inf or (filled == items.shape[1] and score <= best[row, filled - 1]):
                continue
            place = min(filled, items.shape[1] - 1)
            while place > 0 and best[row, place - 1] < score:
                best[row, place] = best[row, place - 1]
                items[row, place] = items[row, place - 1]
                place -= 1
            best[row, place] = score
            items[row, place] = column
            filled = min(filled + 1, items.shape[1])
        items[row, filled:] = -1
        best[row, filled:] = 0
