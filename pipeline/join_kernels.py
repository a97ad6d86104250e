"""Compiled kernels on plain arrays: the top-k join of unit rows, sparse or dense, and its spreading over equal rows.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

_ROUNDING = 1e-6
"""More than partial sums of unit rows, rounded to float32, can be off."""


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
def join_sparse(queries, postings, rows, first, scratch, targets, similarities, sizes):
    """Top-k dot products of sparse unit rows through an inverted index, stopping where nothing new can enter.

    A query's columns are visited by falling gain: squared weight per posting. Partial sums bound every product from
    below. By Cauchy and Schwarz no product grows by more than the length of the query's unvisited part, so visiting
    ends once that is less than the k-th best partial sum and finishing the contenders one by one is cheaper. Every
    contender's product is then summed anew in the order of columns, as `join_dense` does.

    Args:
        queries, rows: (indptr, indices, weights) of query and target rows, indices ascending, rows of length 1.
        postings: (indptr, indices, weights) by column: the target rows in which it occurs.
        first: first query row; as many follow as `sizes` has.
        scratch: float64 [target rows] partial sums and float64 [columns] one query, both zero on entry and on return;
            int32 [target rows] touched rows.
        targets, similarities: int32, float32 [n, k], filled in descending similarity, then ascending target.
        sizes: int32 [n], filled with how many of each row are valid.
    """
    sums, query, touched = scratch
    k = targets.shape[1]
    for i in range(sizes.size):
        low, high = queries[0][first + i], queries[0][first + i + 1]
        for entry in range(low, high):
            query[queries[1][entry]] = np.float64(queries[2][entry])
        count, slack = _gather(queries, low, high, postings, rows, k, sums, touched)
        best = _kth_best(sums, touched, count, k)
        threshold = best - slack if slack < best else 0.0
        size = 0
        for j in range(count):
            target = touched[j]
            if sums[target] >= threshold:
                similarity = np.float32(min(_scattered_dot(query, rows, target), 1.0))
                size = _insert(similarity, target, targets[i], similarities[i], size)
            sums[target] = 0.0
        sizes[i] = size
        for entry in range(low, high):
            query[queries[1][entry]] = 0.0


@njit(nogil=True, cache=True)
def _gather(queries, low, high, postings, rows, k, sums, touched):
    """Partial sums of one query; returns how many rows were touched and by how much a sum may still grow."""
    indptr, indices, weights = postings
    gains = np.empty(high - low, np.float64)
    waiting, rest = 0, 0.0
    for entry in range(low, high):
        length = indptr[queries[1][entry] + 1] - indptr[queries[1][entry]]
        square = np.float64(queries[2][entry]) ** 2
        gains[entry - low] = -square / (length + 1)
        waiting += length
        rest += square
    mean_row = rows[1].size / max(1, rows[0].size - 1)
    count = visited = 0
    for place in np.argsort(gains):
        column, weight = queries[1][low + place], np.float64(queries[2][low + place])
        for posting in range(indptr[column], indptr[column + 1]):
            target = indices[posting]
            if sums[target] == 0.0:
                touched[count] = target
                count += 1
            sums[target] += weight * np.float64(weights[posting])
        visited += indptr[column + 1] - indptr[column]
        waiting -= indptr[column + 1] - indptr[column]
        rest -= weight * weight
        if visited > 2 * count + 64 and waiting > 0:
            visited = 0
            slack = np.sqrt(max(rest, 0.0)) + _ROUNDING
            best = _kth_best(sums, touched, count, k)
            if slack < best and _at_least(sums, touched, count, best - slack) * mean_row < waiting:
                return count, slack
    return count, _ROUNDING


@njit(nogil=True, cache=True)
def _kth_best(sums, touched, count, k):
    """The k-th largest of the touched sums, 0 where fewer are touched."""
    ignored, best = np.empty(k, np.int32), np.empty(k, np.float32)
    size = 0
    for j in range(count):
        partial = np.float32(sums[touched[j]])
        if size < k or partial > best[k - 1]:
            size = _insert(partial, np.int32(j), ignored, best, size)
    return np.float64(best[k - 1]) if size == k else 0.0


@njit(nogil=True, cache=True)
def _at_least(sums, touched, count, threshold):
    contenders = 0
    for j in range(count):
        contenders += sums[touched[j]] >= threshold
    return contenders


@njit(nogil=True, cache=True, inline="always")
def _scattered_dot(query, rows, target):
    total = 0.0
    for entry in range(rows[0][target], rows[0][target + 1]):
        total += query[rows[1][entry]] * np.float64(rows[2][entry])
    return total


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
