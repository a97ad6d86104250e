"""Compiled kernels on CSR rows: group equal rows, cut rows to their largest weights or to chosen columns.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types, uint64
from numba.extending import intrinsic

_DIGITS = (20, 11), (10, 10), (0, 10)
"""Shift and width of the digits that a positive float32's 31 bits are sorted by."""


@njit(nogil=True, cache=True)
def group_rows(indptr, indices, bits, slots, first, group_of):
    """Give equal rows one group number, in the order in which groups first occur.

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
        slot = _hash(indptr[row], indptr[row + 1], indices, bits) & mask
        while slots[slot] >= 0 and not _equal(indptr, indices, bits, row, first[slots[slot]]):
            slot = (slot + uint64(1)) & mask
        if slots[slot] < 0:
            slots[slot] = groups
            first[groups] = row
            groups += 1
        group_of[row] = slots[slot]
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
    """Of each row restricted to chosen columns, the number of entries and the Euclidean norm.

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
def fill_unit_rows(rows, column_of, norms, unit_indptr, unit_indices, unit_weights):
    """Rows restricted to chosen columns and scaled to length 1, entries in the rows' order.

    Args:
        rows: (indptr, indices, weights).
        column_of: int32 [columns], a column's new number, -1 where it is not chosen.
        norms: float64 [rows], as `unit_lengths` fills them.
        unit_indptr: int64 [rows + 1], where each unit row starts.
        unit_indices, unit_weights: int32, float32, filled.
    """
    indptr, indices, weights = rows
    for row in range(indptr.size - 1):
        position = unit_indptr[row]
        for entry in range(indptr[row], indptr[row + 1]):
            column = column_of[indices[entry]]
            if column >= 0:
                unit_indices[position] = column
                unit_weights[position] = np.float32(np.float64(weights[entry]) / norms[row])
                position += 1


@njit(nogil=True, cache=True)
def _threshold(values, count, limit, bins, rest):
    """The `limit`-th largest value by radix selection, and how many equal ones are among the `limit` largest.

    Both are 0 where there are no more than `limit` values.
    """
    threshold = np.uint32(0)
    if count <= limit:
        return threshold, np.int64(0)
    for j in range(count):  # Numba compiles the assignment of a slice for a second longer
        rest[j] = values[j]
    for shift, width in _DIGITS:
        ones = np.uint32((1 << width) - 1)
        bins[: 1 << width] = 0
        for j in range(count):
            bins[(rest[j] >> np.uint32(shift)) & ones] += 1
        digit = np.int64(ones)
        while bins[digit] < limit:
            limit -= bins[digit]
            digit -= 1
        threshold = (threshold << np.uint32(width)) | np.uint32(digit)
        matching = 0
        for j in range(count):
            rest[matching] = rest[j]
            matching += (rest[j] >> np.uint32(shift)) & ones == np.uint32(digit)
        count = matching
    return threshold, limit


@intrinsic
def _trailing_zeros(typing_context, value):  # noqa: ARG001
    """The number of trailing zero bits of a number that is not 0."""

    def build(context, builder, signature, arguments):  # noqa: ARG001
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), build


@njit(nogil=True, cache=True)
def build_marks(columns):
    """A cleared bit for each column and one for each 64 of these bits; `largest_columns` sorts columns by them."""
    bits = np.zeros((columns >> 6) + 1, np.uint64)
    return bits, np.zeros((bits.size >> 6) + 1, np.uint64)


@njit(nogil=True, cache=True)
def _mark(marks, column):
    marks[0][column >> uint64(6)] |= uint64(1) << (column & uint64(63))
    marks[1][column >> uint64(12)] |= uint64(1) << ((column >> uint64(6)) & uint64(63))


@njit(nogil=True, cache=True)
def _unmark(marks, columns):
    """Write the marked columns, ascending, and clear their marks; returns their number."""
    bits, groups = marks
    count = 0
    for group in range(groups.size):
        words = groups[group]
        groups[group] = uint64(0)
        while words != uint64(0):
            index = (uint64(group) << uint64(6)) + _trailing_zeros(words)
            words &= words - uint64(1)
            word = bits[index]
            bits[index] = uint64(0)
            while word != uint64(0):
                columns[count] = (index << uint64(6)) + _trailing_zeros(word)
                word &= word - uint64(1)
                count += 1
    return count


@njit(nogil=True, cache=True)
def largest_columns(values, touched, count, limit, bins, rest, marks, columns):
    """The columns of a row's `limit` largest values, ascending; among equal values the smaller columns.

    Args:
        values: uint32 [count and more], the bits of positive float32, in any order.
        touched: int32, the column of each, distinct.
        count: how many there are.
        limit: most columns.
        bins: int64 [2048], scratch.
        rest: uint32, as long as values, scratch.
        marks: from `build_marks`; cleared on return.
        columns: int32, filled.

    Returns:
        The number of columns.
    """
    threshold, equals = _threshold(values, count, limit, bins, rest)
    ties = 0
    for j in range(count):
        if values[j] > threshold:
            _mark(marks, uint64(touched[j]))
        elif values[j] == threshold:
            rest[ties] = touched[j]
            ties += 1
    if ties > equals:
        rest[:ties].view(np.int32).sort()  # the sort that other kernels of a run use, too: compiled once
    for j in range(min(ties, equals)):
        _mark(marks, uint64(rest[j]))
    return _unmark(marks, columns)


_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


@njit(nogil=True, cache=True, inline="always")
def mix(value):
    """splitmix64's finaliser: a bijection of 64-bit integers that scatters neighbours."""
    value = (value ^ (value >> uint64(30))) * _MIX_A
    value = (value ^ (value >> uint64(27))) * _MIX_B
    return value ^ (value >> uint64(31))
