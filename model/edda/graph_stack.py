"""Stacks of graphs over the rows of one table, each without its isolated nodes, normalised by degree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike, NDArray

from model.compute.allocator import IN_MEMORY, Allocator
from model.data.dataset import DomainData, MultiDomainData
from model.edda.pair_edges import PairEdges
from model.sparse.matrix import Csr, csr
from model.sparse.rows import Ints, Longs, concat_rows, row_blocks


@dataclass(frozen=True)
class GraphStack:
    """Graphs over the rows of one table as one block-diagonal matrix; a node has a row for each graph it has edges in.

    Attributes:
        table_rows: rows of the table.
        bounds: int64 (graphs + 1), the first stack row of each graph.
        nodes: int32 (stack rows), the table row of each; ascending within a graph.
        indptr, indices, values: D^-1/2 A D^-1/2 of every graph over stack rows (int64, int32, float32).
        member_indptr, members: int64 (table_rows + 1) and int32, the stack rows of each table row, ascending.
    """

    table_rows: int
    bounds: Longs
    nodes: Ints
    indptr: Longs
    indices: Ints
    values: NDArray[np.float32]
    member_indptr: Longs
    members: Ints

    @property
    def graph_count(self) -> int:
        """Number of graphs."""
        return self.bounds.size - 1

    @cached_property
    def stack_rows(self) -> Ints:
        """int32, the numbers of all stack rows."""
        return np.arange(self.nodes.size, dtype=np.int32)

    @cached_property
    def table_columns(self) -> Ints:
        """The table row of each entry's column, int32; without a copy if the one graph has all rows of the table."""
        return (
            self.indices if self.graph_count == 1 and self.nodes.size == self.table_rows else self.nodes[self.indices]
        )

    def table_rows_of_graph(self, index: int) -> Ints:
        """The table rows of one graph's nodes."""
        return self.nodes[self.bounds[index] : self.bounds[index + 1]]

    def blocks(self, index: int) -> Iterator[tuple[slice, Csr]]:
        """One graph's normalised matrix in blocks of rows: the range of rows, and their matrix."""
        begin, end = self.bounds[index], self.bounds[index + 1]
        indptr = self.indptr[begin : end + 1]
        for first, last in row_blocks(indptr):
            entries = slice(indptr[first], indptr[last])
            columns = self.indices[entries] - np.int32(begin)
            rows = indptr[first : last + 1] - indptr[first]
            yield slice(first, last), csr(rows, columns, self.values[entries], int(end - begin))


Graph = tuple[Longs, Ints]
"""A graph in CSR form: int64 (nodes + 1) and int32, ascending in each row."""


def intra_stack(domain: DomainData, allocator: Allocator = IN_MEMORY) -> GraphStack:
    """The domain's own train graph."""
    return _build_stack([(domain.indptr, domain.indices)], domain.nodes, allocator)


def inter_stack(dataset: MultiDomainData, allocator: Allocator = IN_MEMORY) -> GraphStack:
    """For every domain a graph of all domains' edges that touch its items, over the nodes of all domains [EDDA]."""
    union = concat_rows(_union_rows(dataset), allocator)
    graphs = (concat_rows(_touching_rows(domain, union), allocator) for domain in dataset.domains)
    return _build_stack(graphs, dataset.nodes, allocator)


def union_stack(
    dataset: MultiDomainData, allocator: Allocator = IN_MEMORY, pair_edges: PairEdges | None = None
) -> GraphStack:
    """The train interactions of all domains as one graph over the nodes of all domains, and edges of aligned pairs."""
    union = concat_rows(_union_rows(dataset), allocator)
    if pair_edges is None:
        return _build_stack([union], dataset.nodes, allocator)
    graph = pair_edges.beside(union)
    graph.sort_indices()
    stack = _build_stack([(graph.indptr, graph.indices)], dataset.nodes, allocator)
    return replace(stack, values=_normalised_weights(graph))


def _union_rows(dataset: MultiDomainData) -> Iterator[tuple[Longs, Longs]]:
    """Distinct train interactions of all domains, both directions, by blocks of nodes, for `concat_rows`."""
    degree = np.zeros(dataset.nodes, np.int64)
    for domain in dataset.domains:
        degree[domain.union_nodes] += np.diff(domain.indptr)
    for first, last in row_blocks(_offsets(degree), 1 << 18):  # the keys take many times the memory of the edges
        keys = []
        for domain in dataset.domains:
            start, stop = np.searchsorted(domain.union_nodes, [first, last])
            indptr = domain.indptr[start : stop + 1]
            owners = np.repeat(domain.union_nodes[start:stop].astype(np.int64) - first, np.diff(indptr))
            keys.append(owners * dataset.nodes + domain.union_nodes[domain.indices[indptr[0] : indptr[-1]]])
        owners, columns = np.divmod(np.unique(np.concatenate(keys)), dataset.nodes)
        yield np.bincount(owners, minlength=last - first), columns


def _touching_rows(domain: DomainData, union: Graph) -> Iterator[tuple[Longs, Ints]]:
    """The edges of the union's graph that touch the domain's items, for `concat_rows`.

    The larger number of an edge's nodes is its item's: items are numbered after users.
    """
    indptr, indices = union
    offered = np.zeros(indptr.size - 1, bool)
    offered[domain.union_nodes[domain.users :]] = True
    for first, last in row_blocks(indptr):
        owners = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]))
        columns = indices[indptr[first] : indptr[last]]
        kept = offered[np.maximum(owners, columns)]
        yield np.bincount(owners[kept] - first, minlength=last - first), columns[kept]


def _build_stack(graphs: Iterable[Graph], table_rows: int, allocator: Allocator) -> GraphStack:
    compacted: list[tuple[Ints, Longs, Ints, NDArray[np.float32]]] = []
    bounds = [0]
    for graph in graphs:
        compacted.append(_compact(graph, bounds[-1], allocator))
        bounds.append(bounds[-1] + compacted[-1][0].size)
    nodes_by_graph, lengths, indices, values = zip(*compacted, strict=True)
    nodes = allocator.concatenate(nodes_by_graph, np.int32)
    return GraphStack(
        table_rows,
        np.array(bounds),
        nodes,
        _offsets(np.concatenate(lengths)),
        _concatenate(indices, allocator, np.int32),
        _concatenate(values, allocator, np.float32),
        _offsets(np.bincount(nodes, minlength=table_rows)),
        np.argsort(nodes, kind="stable").astype(np.int32),
    )


def _normalised_weights(graph: sp.csr_array) -> NDArray[np.float32]:
    """D^-1/2 A D^-1/2 of a graph whose edges have weights; a node's degree is their sum."""
    degree = graph.sum(axis=1)
    scale = np.sqrt(np.repeat(degree, np.diff(graph.indptr)) * degree[graph.indices])
    values: NDArray[np.float32] = (graph.data / scale).astype(np.float32)
    return values


def _compact(graph: Graph, first: int, allocator: Allocator) -> tuple[Ints, Longs, Ints, NDArray[np.float32]]:
    """Nodes with edges, their degrees, their neighbours numbered from `first` on, and 1 / sqrt(d_row d_column)."""
    indptr, indices = graph
    degree = np.diff(indptr)
    number = np.cumsum(degree > 0, dtype=np.int32) + np.int32(first - 1)
    root = np.sqrt(degree.astype(np.float64))
    columns, values = allocator.empty(indices.shape, np.int32), allocator.empty(indices.shape, np.float32)
    for start, stop in row_blocks(indptr):
        entries = slice(indptr[start], indptr[stop])
        columns[entries] = number[indices[entries]]
        values[entries] = 1.0 / (np.repeat(root[start:stop], degree[start:stop]) * root[indices[entries]])
    return np.flatnonzero(degree).astype(np.int32), degree[degree > 0], columns, values


def _concatenate(arrays: Sequence[NDArray[Any]], allocator: Allocator, dtype: DTypeLike) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else allocator.concatenate(arrays, dtype)


def _offsets(lengths: Longs) -> Longs:
    return np.concatenate([[0], np.cumsum(lengths)])
