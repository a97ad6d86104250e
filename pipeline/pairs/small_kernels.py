"""Compiled kernels: the nodes of one small domain compared with those of all other small domains at once.

They are serial, release the GIL and check nothing. Similarities have the bits that the join of two domains gives: unit
weights are float32, products are summed in float64 in the order of the anchors.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.pairs.join_kernels import insert_candidate


@njit(nogil=True, cache=True)
def sum_squares(columns, postings, squares):
    """Add the squared weights of every node in the given columns.

    Args:
        columns: int [n], ascending.
        postings: (indptr, nodes, weights) by column.
        squares: float64 [nodes], updated.
    """
    indptr, nodes, weights = postings
    for column in columns:
        for posting in range(indptr[column], indptr[column + 1]):
            squares[nodes[posting]] += np.float64(weights[posting]) ** 2


@njit(nogil=True, cache=True)
def best_of_all_domains(rows, sources, postings, domains, norms, skip_same, k):
    """The most similar nodes of each source node in each target domain, ties to smaller nodes.

    Args:
        rows: (indptr, columns, weights) of all nodes, columns ascending.
        sources: int [n], nodes of one domain and kind.
        postings: (indptr, nodes, weights) by column, of the nodes that may be partners, ascending.
        domains: (of each node, int32; of each column (indptr, domains), in which it is an anchor; is a target, bool).
        norms: float64 [nodes], of each other node's vector over the source domain's anchors.
        skip_same: (int64 [nodes], the same number for the same user or item; whether such a node is no partner).
        k: partners in each domain.

    Returns:
        source, target, similarity and rank of each pair, by source, target domain and rank; and int64 [domains], how
        many sources have a vector over the anchors that they share with each.
    """
    domain_of, domains_of_column, is_target = domains
    sums, touched = np.zeros(domain_of.size), np.empty(domain_of.size, np.int32)
    own_norms, reaching = np.zeros(is_target.size), np.zeros(is_target.size, np.int64)
    best = np.zeros(k, np.int32), np.zeros(k, np.float32)
    count, pairs, values = 0, np.empty((3, 1024), np.int32), np.empty(1024, np.float32)
    for source in sources:
        entries = range(rows[0][source], rows[0][source + 1])
        _norms_by_domain(rows, entries, domains_of_column, own_norms)
        reaching += own_norms > 0.0
        found = _add_products(rows, entries, postings, (domain_of, is_target), (own_norms, norms), sums, touched)
        if count + found > values.size:
            pairs, values = _grow(pairs, values, count, 2 * (count + found))
        nodes, start = np.sort(touched[:found]), 0
        while start < found:
            stop = start
            while stop < found and domain_of[nodes[stop]] == domain_of[nodes[start]]:
                stop += 1
            _take_best(nodes[start:stop], source, sums, skip_same, best)
            start = stop
            for position in range(k):
                if best[1][position] > 0.0:
                    pairs[0, count], pairs[1, count], pairs[2, count] = source, best[0][position], position + 1
                    values[count] = best[1][position]
                    count += 1
    return pairs[0, :count], pairs[1, :count], values[:count], pairs[2, :count], reaching


@njit(nogil=True, cache=True)
def _norms_by_domain(rows, entries, domains_of_column, norms):
    """The norm of one vector over the anchors of each domain."""
    norms[:] = 0.0
    for entry in entries:
        column, square = rows[1][entry], np.float64(rows[2][entry]) ** 2
        for position in range(domains_of_column[0][column], domains_of_column[0][column + 1]):
            norms[domains_of_column[1][position]] += square
    for domain in range(norms.size):
        norms[domain] = np.sqrt(norms[domain])


@njit(nogil=True, cache=True)
def _add_products(rows, entries, postings, domains, norms, sums, touched):
    """Add the products of one vector with those of all nodes of the target domains; returns how many were touched."""
    indptr, nodes, weights = postings
    domain_of, is_target = domains
    own_norms, other_norms = norms
    count = 0
    for entry in entries:
        for posting in range(indptr[rows[1][entry]], indptr[rows[1][entry] + 1]):
            node = nodes[posting]
            domain = domain_of[node]
            if is_target[domain]:
                if sums[node] == 0.0:
                    touched[count] = node
                    count += 1
                unit = np.float64(np.float32(rows[2][entry] / own_norms[domain]))
                sums[node] += unit * np.float64(np.float32(weights[posting] / other_norms[node]))
    return count


@njit(nogil=True, cache=True)
def _take_best(nodes, source, sums, skip_same, best):
    """The top-k list of nodes of one domain; their sums become 0."""
    entities, skips = skip_same
    best[1][:] = 0.0
    for node in nodes:
        similarity = np.float32(min(sums[node], 1.0))
        sums[node] = 0.0
        if similarity > best[1][-1] and not (skips and entities[node] == entities[source]):
            insert_candidate(similarity, node, best[0], best[1])


@njit(nogil=True, cache=True)
def _grow(pairs, values, count, capacity):
    larger, larger_values = np.empty((3, capacity), np.int32), np.empty(capacity, np.float32)
    for pair in range(count):  # Numba compiles the assignment of slices for seconds longer
        for row in range(3):
            larger[row, pair] = pairs[row, pair]
        larger_values[pair] = values[pair]
    return larger, larger_values
