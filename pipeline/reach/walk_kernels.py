"""Compiled kernels on plain arrays: random walks and counts of where they end.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types, uint32, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.compute.row_kernels import mix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_FEW = 16
"""Fewer values than this are sorted faster by comparing them."""


@intrinsic
def _prefetch(typing_context, array, position):  # noqa: ARG001
    """Prefetch array[position]; changes no result, only hides memory latency.

    Into the second-level cache: fetching into the first was measured up to twice as slow on graphs beyond the caches.
    """

    def build(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(view.data, [arguments[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 2), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), build


@intrinsic
def _scatter(typing_context, value, key):  # noqa: ARG001
    """A bijection of 32-bit integers for each key. Written out because Numba widens uint32, which halves the lanes."""

    def build(context, builder, signature, arguments):  # noqa: ARG001
        value, key = arguments
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            shifted = builder.lshr(value, ir.Constant(value.type, shift))
            value = builder.mul(builder.xor(value, shifted), ir.Constant(value.type, factor))
            value = builder.xor(value, key)
        return builder.xor(value, builder.lshr(value, ir.Constant(value.type, 16)))

    return types.uint32(types.uint32, types.uint32), build


@njit(nogil=True, cache=True)
def _draw(key, offsets, draws):
    """Draw w of a step: 32 random bits that depend on the 64 bits of the step's key and on w alone."""
    low, high = uint32(key), uint32(key >> uint64(32))
    for walk in range(draws.size):
        draws[walk] = _scatter(uint32(offsets[walk] ^ low), high)


@njit(nogil=True, cache=True)
def _leave(indptr, indices, source, draws, slots):
    """The slots of a first step: all walks leave the same node."""
    low = uint64(indptr[source])
    degree = uint64(indptr[source + 1]) - low
    for walk in range(draws.size):
        slots[walk] = low + ((uint64(draws[walk]) * degree) >> uint64(32))
    for walk in range(draws.size):
        _prefetch(indices, np.intp(slots[walk]))


@njit(nogil=True, cache=True)
def _choose(indptr, indices, at, draws, slots):
    """The slot of `indices` that each walk steps to."""
    for walk in range(draws.size):
        node = uint64(at[walk])
        low = uint64(indptr[node])
        degree = uint64(indptr[node + uint64(1)]) - low
        slots[walk] = low + ((uint64(draws[walk]) * degree) >> uint64(32))
        _prefetch(indices, np.intp(slots[walk]))


@njit(nogil=True, cache=True)
def _arrive(indices, slots, needed_next, at):
    """Move each walk to the node in its slot and prefetch what is read next at that node."""
    for walk in range(slots.size):
        at[walk] = uint32(indices[slots[walk]])
        _prefetch(needed_next, np.intp(at[walk]))


@njit(nogil=True, cache=True)
def _collect(at, tally, ends, distinct):
    """Count the walks that are on an anchor and append anchors not seen before, without mispredicted branches."""
    for walk in range(at.size):
        node = uint64(at[walk])
        seen = tally[node]
        ends[distinct] = at[walk]
        distinct += np.intp(seen == 0)
        tally[node] = seen + np.int32(seen >= 0)
    return distinct


@njit(nogil=True, cache=True)
def _sort_by_byte(values, target, counts, shift):
    """Stable counting sort of values by one of their bytes; counts[b] is how many have byte b, overwritten."""
    before = np.int64(0)
    for byte in range(256):
        before, counts[byte] = before + counts[byte], before
    for position in range(values.size):
        byte = (uint64(values[position]) >> shift) & uint64(255)
        target[uint64(counts[byte])] = values[position]
        counts[byte] += 1


@njit(nogil=True, cache=True)
def _sort(values, spare, counts, largest):
    """Sort non-negative int32 up to `largest`, by radix, two bytes at a time, or by comparisons where they are few."""
    if values.size < _FEW:
        values.sort()
        return
    shift, other = uint64(0), spare[: values.size]
    while (uint64(largest) >> shift) > uint64(0):
        counts[:] = 0
        for position in range(values.size):
            rest = uint64(values[position]) >> shift
            counts[0, rest & uint64(255)] += 1
            counts[1, (rest >> uint64(8)) & uint64(255)] += 1
        _sort_by_byte(values, other, counts[0], shift)
        _sort_by_byte(other, values, counts[1], shift + uint64(8))
        shift += uint64(16)


@njit(nogil=True, cache=True)
def _write_counts(ends, tally, anchors, counts):
    """Write the tally's counts of these anchors, and reset them to zero."""
    for position in range(ends.size):
        node = uint64(ends[position])
        anchors[position], counts[position], tally[node] = ends[position], tally[node], 0


@njit(nogil=True, cache=True)
def _walk_offsets(walks):
    """uint32 [walks], a number for each walk that sets its draws apart from those of other walks."""
    offsets = np.empty(walks, np.uint32)
    for walk in range(walks):
        offsets[walk] = np.uint32(walk * np.int64(0x9E3779B1))
    return offsets


@njit(nogil=True, cache=True)
def _source_key(seed, source):
    """The key of the draws of all walks from a node."""
    return mix(uint64(seed) + _GOLDEN * uint64(source + 1))


@njit(nogil=True, cache=True)
def walk_counts(indptr, indices, is_anchor, counts_step, sources, walks, seed, rows, anchors, counts):
    """How many random walks from each source end on each anchor.

    Walk w from node v takes, at its step s, the neighbour that the hash of (seed, v, s, w) selects and nothing else.
    Position s of the walk counts where counts_step[s] is set, so one walk serves all lengths that count; no step is
    taken after the last of these. All walks of a source advance together, so that memory accesses overlap. A call
    holds one tally of 4 bytes per node, whatever the number of sources.

    Args:
        indptr, indices: the graph; every source has a neighbour, and so has every neighbour.
        is_anchor: bool [nodes].
        counts_step: bool [steps + 1]; position 0, the source itself, never counts.
        sources: int32 [n], nodes to walk from.
        walks: walks from each source.
        seed: uint64.
        rows: int64 [n + 1], filled: source i has entries rows[i] … rows[i + 1] - 1.
        anchors: int32, filled, ascending within a source; long enough for min(walks * counted positions, anchors of
            the graph) from every source.
        counts: int32, as long, filled with how many counted positions lie on the anchor.
    """
    steps, counted = 0, 0
    for step in range(1, counts_step.size):
        if counts_step[step]:
            steps, counted = step, counted + 1
    capacity = walks * counted
    offsets = _walk_offsets(walks)
    at, draws, slots = np.empty(walks, np.uint32), np.empty(walks, np.uint32), np.empty(walks, np.uint64)
    ends, spare, sizes = np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty((2, 256), np.int64)
    tally = np.empty(is_anchor.size, np.int32)
    for node in range(is_anchor.size):
        tally[node] = 0 if is_anchor[node] else -1
    entries = rows[0] = 0
    for i in range(sources.size):
        key = _source_key(seed, sources[i])
        distinct = 0
        for step in range(1, steps + 1):
            _draw(mix(key + uint64(step)), offsets, draws)
            if step == 1:
                _leave(indptr, indices, sources[i], draws, slots)
            else:
                _choose(indptr, indices, at, draws, slots)
            if step == steps:
                _arrive(indices, slots, tally, at)
            else:
                _arrive(indices, slots, indptr, at)
            if counts_step[step]:
                distinct = _collect(at, tally, ends, distinct)
        _sort(ends[:distinct], spare, sizes, indptr.size - 2)
        _write_counts(ends[:distinct], tally, anchors[entries:], counts[entries:])
        entries += distinct
        rows[i + 1] = entries


@njit(nogil=True, cache=True)
def walk_paths(indptr, indices, seed, paths):
    """The walks of `walk_counts`, step by step.

    Args:
        indptr, indices: the graph.
        seed: uint64.
        paths: int32 [n, walks, steps + 1], position 0 the source; filled where the source has a neighbour. Every node
            that can be reached has one.
    """
    walks = paths.shape[1]
    offsets = _walk_offsets(walks)
    draws, slots = np.empty(walks, np.uint32), np.empty(walks, np.uint64)
    for i in range(paths.shape[0]):
        source = paths[i, 0, 0]
        if indptr[source] == indptr[source + 1]:
            continue
        key = _source_key(seed, source)
        for step in range(1, paths.shape[2]):
            _draw(mix(key + uint64(step)), offsets, draws)
            _choose(indptr, indices, paths[i, :, step - 1], draws, slots)
            for walk in range(walks):
                paths[i, walk, step] = indices[slots[walk]]
