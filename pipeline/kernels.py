"""Compiled kernels on plain arrays: random walks, kept weights, and the top-k cosine join.

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
            ordered = np.sort(weights[low:high])
            threshold = ordered[high - low - limit]
            equals = limit - np.sum(ordered > threshold)
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


@njit(nogil=True, cache=True, inline="always")
def _insert(similarity, target, targets, similarities, size):
    """Insert into a short list in descending similarity, then ascending target; returns its new size."""
    limit = targets.size
    place = size
    while place > 0 and (
        similarity > similarities[place - 1] or (similarity == similarities[place - 1] and target < targets[place - 1])
    ):
        place -= 1
    if place == limit:
        return size
    for i in range(min(size, limit - 1), place, -1):
        targets[i] = targets[i - 1]
        similarities[i] = similarities[i - 1]
    targets[place] = target
    similarities[place] = similarity
    return min(size + 1, limit)


@njit(nogil=True, cache=True)
def join_sparse(queries, postings, first, scores, touched, targets, similarities, sizes):
    """Top-k dot products of sparse rows through an inverted index (Gustavson's row product).

    Args:
        queries: (indptr, indices, weights) of the query rows.
        postings: (indptr, indices, weights) by column: the target rows in which it occurs.
        first: first query row; as many follow as `sizes` has.
        scores: float64 [target rows], zero on entry and on return.
        touched: int32 [target rows], scratch.
        targets, similarities: int32, float32 [n, k], filled in descending similarity, then ascending target.
        sizes: int32 [n], filled with how many of each row are valid.
    """
    q_indptr, q_indices, q_weights = queries
    p_indptr, p_indices, p_weights = postings
    for i in range(sizes.size):
        count = 0
        for entry in range(q_indptr[first + i], q_indptr[first + i + 1]):
            weight = np.float64(q_weights[entry])
            column = q_indices[entry]
            for posting in range(p_indptr[column], p_indptr[column + 1]):
                target = p_indices[posting]
                if scores[target] == 0.0:
                    touched[count] = target
                    count += 1
                scores[target] += weight * np.float64(p_weights[posting])
        size = 0
        for j in range(count):
            similarity = np.float32(min(scores[touched[j]], 1.0))
            scores[touched[j]] = 0.0
            size = _insert(similarity, touched[j], targets[i], similarities[i], size)
        sizes[i] = size


@njit(nogil=True, cache=True)
def join_dense(products, margin, queries, rows, first, targets, similarities, sizes):
    """Top-k from a block of approximate products, every contender recomputed as `join_sparse` computes it.

    Args:
        products: float32 [n, target rows], dot products within `margin` of the true ones.
        margin: bound on the error of `products`.
        queries, rows: (indptr, indices, weights) of query and target rows, indices ascending.
        first: query row of products[0].
        targets, similarities: int32, float32 [n, k], filled as by `join_sparse`.
        sizes: int32 [n], filled.
    """
    k = targets.shape[1]
    best = np.empty(k, np.float32)
    ignored = np.empty(k, np.int32)
    for i in range(sizes.size):
        size = 0
        for target in range(products.shape[1]):
            if size < k or products[i, target] > best[k - 1]:
                size = _insert(products[i, target], np.int32(target), ignored, best, size)
        threshold = max(best[size - 1] - 2 * margin, 0.0) if size == k else 0.0
        size = 0
        for target in range(products.shape[1]):
            if products[i, target] >= threshold and products[i, target] > 0.0:
                similarity = np.float32(min(_dot(queries, first + i, rows, target), 1.0))
                if similarity > 0.0:
                    size = _insert(similarity, np.int32(target), targets[i], similarities[i], size)
        sizes[i] = size


@njit(nogil=True, cache=True, inline="always")
def _dot(left, i, right, j):
    a, a_end = left[0][i], left[0][i + 1]
    b, b_end = right[0][j], right[0][j + 1]
    total = 0.0
    while a < a_end and b < b_end:
        if left[1][a] == right[1][b]:
            total += np.float64(left[2][a]) * np.float64(right[2][b])
            a += 1
            b += 1
        elif left[1][a] < right[1][b]:
            a += 1
        else:
            b += 1
    return total


@njit(nogil=True, cache=True)
def spread_partners(group_of, partners, members, skip, out_nodes, out_similarities, out_sizes):
    """From partners of groups to partners of nodes: the k best members of the partner groups, one node left out.

    Args:
        group_of: int32 [n], each source's group of identical rows, -1 for none.
        partners: (targets, similarities, sizes) of the groups, as the joins fill them, with k + 1 columns.
        members: (indptr, nodes) of the target groups, nodes ascending; groups ordered by their first node.
        skip: int32 [n], the target node that is the source itself, -1 for none.
        out_nodes, out_similarities: int32, float32 [n, k], filled in descending similarity, then ascending node.
        out_sizes: int32 [n], filled.
    """
    targets, similarities, sizes = partners
    indptr, nodes = members
    k = out_nodes.shape[1]
    for i in range(group_of.size):
        size = 0
        if group_of[i] >= 0:
            for j in range(sizes[group_of[i]]):
                group = targets[group_of[i], j]
                similarity = similarities[group_of[i], j]
                for entry in range(indptr[group], min(indptr[group + 1], indptr[group] + k + 1)):
                    if nodes[entry] != skip[i]:
                        size = _insert(similarity, nodes[entry], out_nodes[i], out_similarities[i], size)
        out_sizes[i] = size
