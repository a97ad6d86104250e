"""Compiled kernels on plain arrays: the top-k join of unit rows in both directions, and its spreading over equal rows.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.

A list of the best is a row of ids and a row of similarities, float32, descending; similarity 0 means there is none.
Candidates come in ascending order of their ids, and only a larger similarity displaces one: ties go to smaller ids.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

_BLOCK = 64
"""Similarities looked at together, without a branch for each."""


@njit(nogil=True, cache=True)
def insert_best(similarity, candidate, ids, similarities):
    """Insert into a list of the best behind all that are as similar; the last one drops out."""
    place = ids.size - 1
    while place > 0 and similarity > similarities[place - 1]:
        ids[place] = ids[place - 1]
        similarities[place] = similarities[place - 1]
        place -= 1
    ids[place] = candidate
    similarities[place] = similarity


@njit(nogil=True, cache=True)
def join_sparse(queries, postings, first, first_target, sums, rows, columns):
    """Dot products of sparse unit rows through an inverted index, each counted for both of its rows.

    Args:
        queries: (indptr, indices, weights) of query rows, indices ascending.
        postings: (indptr, indices, weights) by column: the target rows in which it occurs.
        first: first query row; as many follow as `rows` has.
        first_target: id of the first target row; calls for further targets follow in ascending order.
        sums: float64 [targets], zero on entry and on return.
        rows: (ids int32, similarities float32) [n, k]: the best targets so far of each query.
        columns: (ids, similarities) [targets, k]: the best queries so far of each target.
    """
    indptr, indices, weights = postings
    floors = columns[1][:, -1].astype(np.float64)
    for i in range(rows[0].shape[0]):
        for entry in range(queries[0][first + i], queries[0][first + i + 1]):
            column, weight = queries[1][entry], np.float64(queries[2][entry])
            for posting in range(indptr[column], indptr[column + 1]):
                sums[uint64(indices[uint64(posting)])] += weight * np.float64(weights[uint64(posting)])
        for start in range(0, sums.size, _BLOCK):
            block = sums[start : start + _BLOCK]
            if _any_above(block, floors[start : start + _BLOCK], np.float64(rows[1][i, -1])):
                _count_block(block, (start, first_target), first + i, i, rows, columns, floors)
            block[:] = 0.0


@njit(nogil=True, cache=True)
def _any_above(values, floors, floor):
    above = False
    for j in range(values.size):
        above |= (values[j] > floor) | (values[j] > floors[j])
    return above


@njit(nogil=True, cache=True)
def _count_block(sums, places, query, i, rows, columns, floors):
    """Count each sum for the query, row i of the chunk, and for its target, at places[0] and so on in `columns`."""
    start, first_target = places
    ids, similarities = rows[0][i], rows[1][i]
    column_ids, column_similarities = columns
    last = ids.size - 1
    for j in range(sums.size):
        similarity = np.float32(min(sums[j], 1.0))
        if similarity > similarities[last]:
            insert_best(similarity, first_target + start + j, ids, similarities)
        if similarity > floors[start + j]:
            insert_best(similarity, query, column_ids[start + j], column_similarities[start + j])
            floors[start + j] = column_similarities[start + j, last]


@njit(nogil=True, cache=True)
def join_dense(products, block, targets, margin, first, rows, columns):
    """As `join_sparse` from approximate products: every one that may count is computed anew, in the same order.

    Args:
        products: float32 [n, targets], dot products within `margin` of the true ones.
        block: float32 [n, columns], the query rows, dense.
        targets: (indptr, indices, weights) of target rows, indices ascending.
        margin: bound on the error of `products`.
        first: query row of products[0].
        rows, columns: as in `join_sparse`.
    """
    indptr, indices, weights = targets
    floors, open_above = columns[1][:, -1].astype(np.float64), columns[1][:, -1].astype(np.float64) - margin
    sums = np.zeros(_BLOCK, np.float64)
    for i in range(products.shape[0]):
        for start in range(0, products.shape[1], _BLOCK):
            approximate, opens = products[i, start : start + _BLOCK], open_above[start : start + _BLOCK]
            open_row = np.float64(rows[1][i, -1]) - margin
            if _any_above(approximate, opens, open_row):
                for j in range(approximate.size):
                    sums[j] = 0.0
                    if approximate[j] > max(min(open_row, opens[j]), 0.0):
                        sums[j] = _dot(block[i], indptr, indices, weights, start + j)
                _count_block(sums[: approximate.size], (start, 0), first + i, i, rows, columns, floors)
                opens[:] = floors[start : start + _BLOCK] - margin


@njit(nogil=True, cache=True)
def _dot(query, indptr, indices, weights, target):
    total = 0.0
    for entry in range(indptr[target], indptr[target + 1]):
        total += np.float64(query[uint64(indices[uint64(entry)])]) * np.float64(weights[uint64(entry)])
    return total


@njit(nogil=True, cache=True)
def join_candidates(queries, postings, targets, first, most_products, sums, best, rows):
    """The best targets of each query among few candidates: those with the largest products over part of its columns.

    A query's columns are taken by weight and rarity (squared weight over the root of the column's length) until
    they have cost `most_products`; the products of the candidates are then computed in full.

    Args:
        queries, targets: (indptr, indices, weights) of rows, indices ascending.
        postings: as in `join_sparse`.
        first: first query row; as many follow as `rows` has.
        most_products: multiply-adds after which no further column is begun.
        sums: float64 [targets] and float64 [columns], zero on entry and on return.
        best: (ids int32, similarities float32) [candidates], scratch.
        rows: (ids, similarities) [n, k], zero on entry.
    """
    sums, query = sums
    touched = np.empty(sums.size + 1, np.int32)
    for i in range(rows[0].shape[0]):
        low, high = queries[0][first + i], queries[0][first + i + 1]
        for entry in range(low, high):
            query[queries[1][entry]] = np.float64(queries[2][entry])
        count = _part_of_products(queries, low, high, postings, most_products, sums, touched)
        best[1][:] = 0.0
        for j in range(count):
            if np.float32(sums[touched[j]]) > best[1][-1]:
                insert_best(np.float32(sums[touched[j]]), touched[j], best[0], best[1])
            sums[touched[j]] = 0.0
        for target in np.sort(best[0][best[1] > 0.0]):
            similarity = np.float32(min(_dot(query, targets[0], targets[1], targets[2], target), 1.0))
            if similarity > rows[1][i, -1]:
                insert_best(similarity, target, rows[0][i], rows[1][i])
        for entry in range(low, high):
            query[queries[1][entry]] = 0.0


@njit(nogil=True, cache=True)
def _part_of_products(queries, low, high, postings, most_products, sums, touched):
    """Add products up by columns of falling gain; returns how many targets were touched."""
    indptr, indices, weights = postings
    gains = np.empty(high - low, np.float64)
    for entry in range(low, high):
        length = indptr[queries[1][entry] + 1] - indptr[queries[1][entry]]
        gains[entry - low] = -(np.float64(queries[2][entry]) ** 2) / np.sqrt(length + 1.0)
    count, products = 0, 0
    for place in np.argsort(gains, kind="mergesort"):
        if products >= most_products:
            break
        column, weight = queries[1][low + place], np.float64(queries[2][low + place])
        for posting in range(indptr[column], indptr[column + 1]):
            target = uint64(indices[uint64(posting)])
            touched[count] = target
            count += sums[target] == 0.0
            sums[target] += weight * np.float64(weights[uint64(posting)])
        products += indptr[column + 1] - indptr[column]
    return count


@njit(nogil=True, cache=True)
def merge_best(parts, best):
    """Merge lists of the best of further, larger ids into those found so far.

    Args:
        parts: (ids, similarities) [n, k] of the further ids.
        best: (ids, similarities) [n, k], updated.
    """
    for row in range(best[0].shape[0]):
        for j in range(parts[0].shape[1]):
            if parts[1][row, j] > best[1][row, -1]:
                insert_best(parts[1][row, j], parts[0][row, j], best[0][row], best[1][row])


@njit(nogil=True, cache=True)
def spread_best(group_of, best, members, skip, out):
    """From the best groups of groups to the best nodes of nodes: members of the best groups, one node left out.

    Args:
        group_of: int32 [n], each node's group of equal rows, -1 for none.
        best: (ids, similarities) [groups, k + 1], the best groups of each.
        members: (indptr, nodes) of the groups that `best` names, nodes ascending; groups ordered by their first node.
        skip: int32 [n], the node that is the same user or item, -1 for none.
        out: (ids, similarities) [n, k], zero on entry: the best nodes, ties in ascending order.
    """
    indptr, nodes = members
    k = out[0].shape[1]
    tied = np.empty((best[0].shape[1] * (k + 1)), np.int32)
    for i in range(group_of.size):
        j = 0
        while group_of[i] >= 0 and j < best[0].shape[1] and best[1][group_of[i], j] > 0.0:
            similarity, count = best[1][group_of[i], j], 0
            while j < best[0].shape[1] and best[1][group_of[i], j] == similarity:
                group = best[0][group_of[i], j]
                for entry in range(indptr[group], min(indptr[group + 1], indptr[group] + k + 1)):
                    if nodes[entry] != skip[i]:
                        tied[count] = nodes[entry]
                        count += 1
                j += 1
            for node in np.sort(tied[:count]):
                if similarity > out[1][i, -1]:
                    insert_best(similarity, node, out[0][i], out[1][i])
