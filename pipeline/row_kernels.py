"""Compiled kernels on compressed rows: equal rows found, rows cut to their largest weights or to chosen columns.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

from pipeline.walk_kernels import mix

_DIGITS = (20, 11), (10, 10), (0, 10)
"""Shift and width of the digits that a positive float32's 31 bits are sorted by."""


@njit(nogil=True, cache=True)
def group_rows(indptr, indices, bits, slots, first, group_of):
    """Number equal rows alike, in the order in which each kind first occurs.

    Args:
        indptr, indices: rows.
        bits: uint32, the bits of the rows' float32 weights.
        slots: int64 [a power of two above the number of rows], filled with -1: a hash table of groups.
        first: int64 [rows], filled with the first row of each group.
        group_of: int64 [rows], filled.

    Returns:
        The number of groups.
    """
    groups = 0
    mask = uint64(slots.size - 1)
    for row in range(indptr.size - 1):
        place = _hash(indptr[row], indptr[row + 1], indices, bits) & mask
        while slots[place] >= 0 and not _equal(indptr, indices, bits, row, first[slots[place]]):
            place = (place + uint64(1)) & mask
        if slots[place] < 0:
            slots[place] = groups
            first[groups] = row
            groups += 1
        group_of[row] = slots[place]
    return groups


@njit(nogil=True, cache=True)
def _hash(low, high, indices, bits):
    value = uint64(high - low)
    for entry in range(low, high):
        value = (value ^ (uint64(indices[entry]) << uint64(32) | uint64(bits[entry]))) * uint64(0x9E3779B97F4A7C15)
        value ^= value >> uint64(29)
    return mix(value)


@njit(nogil=True, cache=True)
def _equal(indptr, indices, bits, row, other):
    low, length = indptr[row], indptr[row + 1] - indptr[row]
    if indptr[other + 1] - indptr[other] != length:
        return False
    for entry in range(length):
        if indices[low + entry] != indices[indptr[other] + entry] or bits[low + entry] != bits[indptr[other] + entry]:
            return False
    return True


@njit(nogil=True, cache=True)
def keep_largest(indptr, indices, weights, limit, kept_indptr, kept_indices, kept_weights):
    """The `limit` largest weights of each row, in the row's order; among equals the earlier entries.

    Args:
        indptr, indices, weights: rows.
        limit: most entries of a row.
        kept_indptr: int64 [rows + 1], filled.
        kept_indices, kept_weights: filled, long enough for min(limit, length) of every row.
    """
    total = 0
    kept_indptr[0] = 0
    for row in range(indptr.size - 1):
        low, high = indptr[row], indptr[row + 1]
        threshold, equals = -np.inf, 0
        if high - low > limit:
            threshold = np.partition(weights[low:high], high - low - limit)[high - low - limit]
            equals = limit - np.sum(weights[low:high] > threshold)
        for entry in range(low, high):
            if weights[entry] == threshold:
                equals -= 1
            if weights[entry] > threshold or (weights[entry] == threshold and equals >= 0):
                kept_indices[total] = indices[entry]
                kept_weights[total] = weights[entry]
                total += 1
        kept_indptr[row + 1] = total


@njit(nogil=True, cache=True)
def unit_lengths(indptr, indices, weights, column_of, lengths, norms):
    """How many entries of each row lie in chosen columns, and how long that part is.

    Args:
        indptr, indices, weights: rows.
        column_of: int32 [columns], a column's new number, -1 where it is not chosen.
        lengths: int64 [rows], filled.
        norms: float64 [rows], filled.
    """
    for row in range(indptr.size - 1):
        count, square = 0, 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            if column_of[indices[entry]] >= 0:
                count += 1
                square += np.float64(weights[entry]) ** 2
        lengths[row] = count
        norms[row] = np.sqrt(square)


@njit(nogil=True, cache=True)
def unit_parts(rows, column_of, norms, unit_indptr, unit_indices, unit_weights):
    """The parts of rows in chosen columns, each scaled to length 1, in the rows' order.

    Args:
        rows: (indptr, indices, weights).
        column_of: int32 [columns], a column's new number, -1 where it is not chosen.
        norms: float64 [rows], as `unit_lengths` fills them.
        unit_indptr: int64 [rows + 1], where each part starts.
        unit_indices, unit_weights: int32, float32, filled.
    """
    indptr, indices, weights = rows
    for row in range(indptr.size - 1):
        place = unit_indptr[row]
        for entry in range(indptr[row], indptr[row + 1]):
            column = column_of[indices[entry]]
            if column >= 0:
                unit_indices[place] = column
                unit_weights[place] = np.float32(np.float64(weights[entry]) / norms[row])
                place += 1


@njit(nogil=True, cache=True)
def threshold_of(values, count, limit, bins, rest):
    """The `limit`-th largest of the values, and how many equal to it are among the `limit` largest; 0, 0 for fewer."""
    found = np.uint32(0)
    if count <= limit:
        return found, np.int64(0)
    rest[:count] = values[:count]
    for shift, width in _DIGITS:
        ones = np.uint32((1 << width) - 1)
        bins[: 1 << width] = 0
        for j in range(count):
            bins[(rest[j] >> np.uint32(shift)) & ones] += 1
        digit = np.int64(ones)
        while bins[digit] < limit:
            limit -= bins[digit]
            digit -= 1
        found = (found << np.uint32(width)) | np.uint32(digit)
        members = 0
        for j in range(count):
            rest[members] = rest[j]
            members += (rest[j] >> np.uint32(shift)) & ones == np.uint32(digit)
        count = members
    return found, limit


@njit(nogil=True, cache=True)
def scanned_above(bits, threshold, equals, columns):
    """All columns above the threshold and the first of those equal to it, ascending; returns how many."""
    found = 0
    for column in range(bits.size):
        if bits[column] > threshold or (equals > 0 and bits[column] == threshold):
            equals -= bits[column] == threshold
            columns[found] = column
            found += 1
    return found


@njit(nogil=True, cache=True)
def sorted_above(values, touched, count, threshold, equals, ties, columns):
    """As `scanned_above`, by sorting what is kept."""
    found = tied = 0
    for j in range(count):
        if values[j] > threshold:
            columns[found] = touched[j]
            found += 1
        elif values[j] == threshold:
            ties[tied] = touched[j]
            tied += 1
    ties[:tied].sort()
    for j in range(min(tied, equals)):
        columns[found] = ties[j]
        found += 1
    columns[:found].sort()
    return found
