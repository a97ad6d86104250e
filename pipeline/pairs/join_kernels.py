"""Compiled kernels on plain arrays: the top-k join of unit rows in both directions, and its expansion to equal rows.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.

A top-k list is a row of ids and a row of similarities, float32, descending; similarity 0 means no entry. Candidates
come in ascending order of their ids, and only a larger similarity displaces an entry: ties go to smaller ids.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

_BLOCK = 64
"""Similarities that are compared together, without a branch for each."""


@njit(nogil=True, cache=True)
def insert_candidate(similarity, candidate, ids, similarities):
    """Insert into a top-k list behind all entries as similar; the last entry drops out."""
    position = ids.size - 1
    while position > 0 and similarity > similarities[position - 1]:
        ids[position] = ids[position - 1]
        similarities[position] = similarities[position - 1]
        position -= 1
    ids[position] = candidate
    similarities[position] = similarity


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
                _update_top_k(block, (start, first_target), first + i, i, rows, columns, floors)
            block[:] = 0.0


@njit(nogil=True, cache=True)
def _any_above(values, floors, floor):
    above = False
    for j in range(values.size):
        above |= (values[j] > floor) | (values[j] > floors[j])
    return above


@njit(nogil=True, cache=True)
def _update_top_k(sums, starts, query, i, rows, columns, floors):
    """Offer each sum to the list of the query, row i of the chunk, and to the list of its target in `columns`."""
    start, first_target = starts
    ids, similarities = rows[0][i], rows[1][i]
    column_ids, column_similarities = columns
    last = ids.size - 1
    for j in range(sums.size):
        similarity = np.float32(min(sums[j], 1.0))
        if similarity > similarities[last]:
            insert_candidate(similarity, first_target + start + j, ids, similarities)
        if similarity > floors[start + j]:
            insert_candidate(similarity, query, column_ids[start + j], column_similarities[start + j])
            floors[start + j] = column_similarities[start + j, last]


@njit(nogil=True, cache=True)
def join_dense(products, block, targets, margin, first, rows, columns):
    """`join_sparse` from approximate products: each that may enter a list is recomputed, in the same order.

    Args:
        products: float32 [n, targets], dot products within `margin` of the true ones.
        block: float32 [n, columns], the query rows, dense.
        targets: (indptr, indices, weights) of target rows, indices ascending.
        margin: bound on the error of `products`.
        first: query row of products[0].
        rows, columns: as in `join_sparse`.
    """
    indptr, indices, weights = targets
    floors, open_above = columns[1][:, -1].astype(np.float64), columns[1][:, -1].astype(np.float64)
    for target in range(open_above.size):
        open_above[target] -= margin
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
                _update_top_k(sums[: approximate.size], (start, 0), first + i, i, rows, columns, floors)
                for j in range(opens.size):  # Numba compiles the assignment of a slice for seconds longer
                    opens[j] = floors[start + j] - margin


@njit(nogil=True, cache=True)
def _dot(query, indptr, indices, weights, target):
    total = 0.0
    for entry in range(indptr[target], indptr[target + 1]):
        total += np.float64(query[uint64(indices[uint64(entry)])]) * np.float64(weights[uint64(entry)])
    return total


@njit(nogil=True, cache=True)
def join_candidates(queries, postings, targets, first, most_products, sums, best, rows):
    """The best targets of each query among its candidates: the targets with the largest products over some columns.

    A query's columns are taken by weight and rarity (squared weight over the root of the column's length) until their
    products reach `most_products`; the products of the candidates are then computed in full.

    Args:
        queries, targets: (indptr, indices, weights) of rows, indices ascending.
        postings: as in `join_sparse`.
        first: first query row; as many follow as `rows` has.
        most_products: multiply-adds after which no further column is added.
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
        count = _sum_leading_columns(queries, low, high, postings, most_products, sums, touched)
        best[1][:] = 0.0
        for j in range(count):
            if np.float32(sums[touched[j]]) > best[1][-1]:
                insert_candidate(np.float32(sums[touched[j]]), touched[j], best[0], best[1])
            sums[touched[j]] = 0.0
        for target in np.sort(best[0][best[1] > 0.0]):
            similarity = np.float32(min(_dot(query, targets[0], targets[1], targets[2], target), 1.0))
            if similarity > rows[1][i, -1]:
                insert_candidate(similarity, target, rows[0][i], rows[1][i])
        for entry in range(low, high):
            query[queries[1][entry]] = 0.0


@njit(nogil=True, cache=True)
def _sum_leading_columns(queries, low, high, postings, most_products, sums, touched):
    """Sum products over columns of decreasing gain; returns how many targets were touched."""
    indptr, indices, weights = postings
    gains = np.empty(high - low, np.float64)
    for entry in range(low, high):
        length = indptr[queries[1][entry] + 1] - indptr[queries[1][entry]]
        gains[entry - low] = -(np.float64(queries[2][entry]) ** 2) / np.sqrt(length + 1.0)
    count, products = 0, 0
    for offset in np.argsort(gains, kind="mergesort"):
        if products >= most_products:
            break
        column, weight = queries[1][low + offset], np.float64(queries[2][low + offset])
        for posting in range(indptr[column], indptr[column + 1]):
            target = uint64(indices[uint64(posting)])
            touched[count] = target
            count += sums[target] == 0.0
            sums[target] += weight * np.float64(weights[uint64(posting)])
        products += indptr[column + 1] - indptr[column]
    return count


@njit(nogil=True, cache=True)
def merge_top_k(further, best):
    """Merge top-k lists of further, larger ids into the lists so far.

    Args:
        further: (ids, similarities) [n, k] of the further ids.
        best: (ids, similarities) [n, k], updated.
    """
    for row in range(best[0].shape[0]):
        for j in range(further[0].shape[1]):
            if further[1][row, j] > best[1][row, -1]:
                insert_candidate(further[1][row, j], further[0][row, j], best[0][row], best[1][row])


@njit(nogil=True, cache=True)
def expand_groups(group_of, best, nodes_by_group, skip, out):
    """The best nodes of each node, from the best groups of its group; one node of each is left out.

    Args:
        group_of: int32 [n], each node's group of equal rows, -1 for none.
        best: (ids, similarities) [groups, k + 1], the best groups of each.
        nodes_by_group: (indptr, nodes) of the groups in `best`, nodes ascending; groups ordered by their first node.
        skip: int32 [n], the node that is the same user or item, -1 for none.
        out: (ids, similarities) [n, k], zero on entry: the best nodes, ties in ascending order.
    """
    indptr, nodes = nodes_by_group
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
                    insert_candidate(similarity, node, out[0][i], out[1][i])
