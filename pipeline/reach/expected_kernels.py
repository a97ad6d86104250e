"""Compiled kernels on plain arrays: one backward step of the expected end points of walks.

Every kernel is serial and releases the GIL; callers give disjoint ranges of rows to threads. Kernels check nothing.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit, uint64

from pipeline.compute.row_kernels import build_marks, largest_columns


@njit(nogil=True, cache=True)
def fill_expected_rows(graph, ends, self_column, nodes, limit, sums, kept):
    """Expected ends one step earlier: of each node the mean of its neighbours' rows, cut to the largest weights.

    Args:
        graph: (indptr, indices) of the walks' graph.
        ends: (indptr, indices, weights), a row of columns per node.
        self_column: int32 [nodes], the column in which the node itself counts 1 on top, -1 for none; or empty.
        nodes: int64 [n], whose rows are computed.
        limit: most entries of a row; ties go to the smaller column.
        sums: float32 [columns], zero on entry and on return.
        kept: (indptr int64 [n + 1], indices int32, weights float32), filled, columns ascending; long enough for the
            smaller of `limit` and the sum of the neighbours' lengths, plus 1, of every node.
    """
    capacity = sums.size + 1
    touched, bins = np.empty(capacity, np.int32), np.empty(2048, np.int64)
    values, rest = np.empty(capacity, np.uint32), np.empty(capacity, np.uint32)
    bits, marks = sums.view(np.uint32), build_marks(sums.size)
    kept[0][0] = 0
    for i in range(nodes.size):
        degree = np.float32(max(graph[0][nodes[i] + 1] - graph[0][nodes[i]], 1))
        count = _sum_of_neighbours(graph, ends, nodes[i], sums, touched)
        if self_column.size and self_column[nodes[i]] >= 0:
            touched[count] = self_column[nodes[i]]
            count += sums[self_column[nodes[i]]] == 0.0
            sums[self_column[nodes[i]]] += degree
        for j in range(count):
            sums[uint64(touched[j])] /= degree
            values[j] = bits[uint64(touched[j])]
        start = kept[0][i]
        size = largest_columns(values, touched, count, limit, bins, rest, marks, kept[1][start:])
        for j in range(start, start + size):
            kept[2][j] = sums[uint64(kept[1][j])]
        kept[0][i + 1] = start + size
        for j in range(count):
            sums[uint64(touched[j])] = 0.0


@njit(nogil=True, cache=True)
def _sum_of_neighbours(graph, ends, node, sums, touched):
    """Add up the rows of a node's neighbours; returns how many columns were touched."""
    indptr, indices, weights = ends
    count = 0
    for edge in range(graph[0][node], graph[0][node + 1]):
        neighbour = graph[1][edge]
        for entry in range(indptr[neighbour], indptr[neighbour + 1]):
            column = uint64(indices[uint64(entry)])
            touched[uint64(count)] = column
            count += sums[column] == 0.0
            sums[column] += weights[uint64(entry)]
    return count
