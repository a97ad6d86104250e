"""Compiled kernels on plain arrays: random walks, kept weights, hashes of rows.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


@intrinsic
def _prefetch(typing_context, array, position):  # noqa: ARG001
    """Ask the processor for array[position]; changes no result, only hides the wait for memory."""

    def build(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(view.data, [arguments[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), build


@njit(nogil=True, cache=True, inline="always")
def mix(value):
    """splitmix64's finaliser: a bijection of 64-bit integers that scatters neighbours."""
    value = (value ^ (value >> uint64(30))) * _MIX_A
    value = (value ^ (value >> uint64(27))) * _MIX_B
    return value ^ (value >> uint64(31))


@njit(nogil=True, cache=True)
def walk_hits(indptr, indices, is_anchor, counts_step, sources, walks, seed, hits, found):
    """End points on anchors of random walks, several in flight so that waits for memory overlap.

    Walk w from node v takes, at its step s, the neighbour that the hash of (seed, v, s, w) picks; nothing else
    enters. Position s of the walk counts where counts_step[s] is set, so one walk serves every wanted length.

    Args:
        indptr, indices: the graph; every source has a neighbour.
        is_anchor: bool [nodes].
        counts_step: bool [steps + 1].
        sources: int32 [n], nodes to walk from.
        walks: walks from each source.
        seed: uint64.
        hits: int32 [capacity], filled with anchor end points, ascending within a source.
        found: int64 [n + 1], filled: hits of source i are hits[found[i] : found[i + 1]].

    Returns:
        Sources done; fewer than n where `hits` might overflow, and the caller continues from there.
    """
    steps = counts_step.size - 1
    at = np.empty(walks, np.int32)
    slots = np.empty(walks, np.int64)
    room = walks * counts_step.sum()
    total = 0
    found[0] = 0
    for i in range(sources.size):
        if total + room > hits.size:
            return i
        at[:] = sources[i]
        first = total
        for step in range(1, steps + 1):
            name = mix(mix(uint64(seed) + _GOLDEN * uint64(sources[i] + 1)) + uint64(step))
            for walk in range(walks):
                low = indptr[at[walk]]
                degree = uint64(indptr[at[walk] + 1] - low)
                draw = mix(name + _GOLDEN * uint64(walk + 1)) >> uint64(32)
                slots[walk] = low + np.int64((draw * degree) >> uint64(32))
                _prefetch(indices, slots[walk])
            for walk in range(walks):
                at[walk] = indices[slots[walk]]
                _prefetch(indptr, np.int64(at[walk]))
            if counts_step[step]:
                for walk in range(walks):
                    if is_anchor[at[walk]]:
                        hits[total] = at[walk]
                        total += 1
        hits[first:total].sort()
        found[i + 1] = total
    return sources.size


@njit(nogil=True, cache=True)
def count_runs(values, bounds, rows, distinct, counts):
    """Run lengths of sorted values within each row.

    Args:
        values: int32, ascending within a row.
        bounds: int64 [n + 1], where each row starts in `values`.
        rows: int64 [n + 1], filled: row i has entries rows[i] … rows[i + 1] - 1.
        distinct: int32 [values], filled with each row's distinct values.
        counts: int32 [values], filled with how often each occurs.
    """
    entries = 0
    rows[0] = 0
    for i in range(bounds.size - 1):
        for position in range(bounds[i], bounds[i + 1]):
            if position > bounds[i] and values[position] == values[position - 1]:
                counts[entries - 1] += 1
            else:
                distinct[entries] = values[position]
                counts[entries] = 1
                entries += 1
        rows[i + 1] = entries


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
def hash_rows(indptr, indices, weights, seed, hashes):
    """A 64-bit hash of each row's entries; equal rows have equal hashes.

    Args:
        indptr, indices: rows.
        weights: uint32, the bits of the rows' float32 weights.
        seed: uint64, one seed per independent hash.
        hashes: uint64 [rows], filled.
    """
    for row in range(indptr.size - 1):
        value = uint64(seed)
        for entry in range(indptr[row], indptr[row + 1]):
            word = (uint64(indices[entry]) << uint64(32)) | uint64(weights[entry])
            value = mix(value * _GOLDEN + mix(word + _GOLDEN))
        hashes[row] = value
