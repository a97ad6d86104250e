"""Stacks of graphs over the rows of one table, each without its isolated nodes, normalised by degree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model.compute.allocator import MEMORY, Room
from model.data.dataset import Domain, World
from model.sparse.matrix import Csr, csr
from model.sparse.rows import Ints, Longs, joined_rows, row_blocks


@dataclass(frozen=True)
class Stack:
    """Graphs over one table's rows, one below the other; a node appears once for each graph in which it has edges.

    Attributes:
        table_rows: rows of the table.
        bounds: int64 (graphs + 1), where each graph's stack rows begin.
        nodes: int32 (stack rows), the table row each stands for; ascending within a graph.
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
    def graphs(self) -> int:
        """Number of graphs."""
        return self.bounds.size - 1

    @cached_property
    def numbers(self) -> Ints:
        """Every stack row."""
        return np.arange(self.nodes.size, dtype=np.int32)

    @cached_property
    def table_columns(self) -> Ints:
        """The table row of each entry's column, int32."""
        return self.nodes[self.indices]

    def rows_of(self, number: int) -> Ints:
        """The table rows of one graph's nodes."""
        return self.nodes[self.bounds[number] : self.bounds[number + 1]]

    def blocks(self, number: int) -> Iterator[tuple[slice, Csr]]:
        """One graph's normalised matrix by blocks of its rows: which rows, and the matrix of them."""
        begin, end = self.bounds[number], self.bounds[number + 1]
        indptr = self.indptr[begin : end + 1]
        for first, last in row_blocks(indptr):
            entries = slice(indptr[first], indptr[last])
            columns = self.indices[entries] - np.int32(begin)
            rows = indptr[first : last + 1] - indptr[first]
            yield slice(first, last), csr(rows, columns, self.values[entries], int(end - begin))


Graph = tuple[Longs, Ints]
"""A graph in compressed rows: int64 (nodes + 1) and int32, ascending in each row."""


def intra_stack(domain: Domain, room: Room = MEMORY) -> Stack:
    """The domain's own train graph."""
    return _stacked([(domain.indptr, domain.indices)], domain.nodes, room)


def inter_stack(world: World, room: Room = MEMORY) -> Stack:
    """For every domain the edges of any domain that touch its items, over the nodes of all domains [EDDA]."""
    union = joined_rows(_union_rows(world), room)
    return _stacked((joined_rows(_touching(d, union), room) for d in world.domains), world.nodes, room)


def union_stack(world: World, room: Room = MEMORY) -> Stack:
    """The train interactions of all domains as one graph over the nodes of all domains."""
    return _stacked([joined_rows(_union_rows(world), room)], world.nodes, room)


def _union_rows(world: World) -> Iterator[tuple[Longs, Longs]]:
    """Distinct train interactions of all domains, both directions, by blocks of nodes, for `joined_rows`."""
    degree = np.zeros(world.nodes, np.int64)
    for domain in world.domains:
        degree[domain.union] += np.diff(domain.indptr)
    for first, last in row_blocks(_offsets(degree), 1 << 18):  # keys take many times their edges
        keys = []
        for domain in world.domains:
            start, stop = np.searchsorted(domain.union, [first, last])
            ends = domain.indptr[start : stop + 1]
            owners = np.repeat(domain.union[start:stop].astype(np.int64) - first, np.diff(ends))
            keys.append(owners * world.nodes + domain.union[domain.indices[ends[0] : ends[-1]]])
        owners, columns = np.divmod(np.unique(np.concatenate(keys)), world.nodes)
        yield np.bincount(owners, minlength=last - first), columns


def _touching(domain: Domain, union: Graph) -> Iterator[tuple[Longs, Ints]]:
    """What of the union's graph touches the domain's items, for `joined_rows`; an item's number is above any user's."""
    indptr, indices = union
    offered = np.zeros(indptr.size - 1, bool)
    offered[domain.union[domain.users :]] = True
    for first, last in row_blocks(indptr):
        owners = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]))
        columns = indices[indptr[first] : indptr[last]]
        kept = offered[np.maximum(owners, columns)]
        yield np.bincount(owners[kept] - first, minlength=last - first), columns[kept]


def _stacked(graphs: Iterable[Graph], table_rows: int, room: Room) -> Stack:
    parts: list[tuple[Ints, Longs, Ints, NDArray[np.float32]]] = []
    bounds = [0]
    for graph in graphs:
        parts.append(_compact(graph, bounds[-1], room))
        bounds.append(bounds[-1] + parts[-1][0].size)
    nodes, lengths, indices, values = zip(*parts, strict=True)
    joined_nodes = room.joined(nodes, np.int32)
    return Stack(
        table_rows,
        np.array(bounds),
        joined_nodes,
        _offsets(np.concatenate(lengths)),
        _joined(indices, room, np.int32),
        _joined(values, room, np.float32),
        _offsets(np.bincount(joined_nodes, minlength=table_rows)),
        np.argsort(joined_nodes, kind="stable").astype(np.int32),
    )


def _compact(graph: Graph, first: int, room: Room) -> tuple[Ints, Longs, Ints, NDArray[np.float32]]:
    """Nodes with edges, their degrees, their neighbours as numbers from `first` on, and 1 / sqrt(d_row d_column)."""
    indptr, indices = graph
    degree = np.diff(indptr)
    number = np.cumsum(degree > 0, dtype=np.int32) + np.int32(first - 1)
    root = np.sqrt(degree.astype(np.float64))
    columns, values = room.empty(indices.shape, np.int32), room.empty(indices.shape, np.float32)
    for start, stop in row_blocks(indptr):
        entries = slice(indptr[start], indptr[stop])
        columns[entries] = number[indices[entries]]
        values[entries] = 1.0 / (np.repeat(root[start:stop], degree[start:stop]) * root[indices[entries]])
    return np.flatnonzero(degree).astype(np.int32), degree[degree > 0], columns, values


def _joined(arrays: Sequence[NDArray[Any]], room: Room, dtype: DTypeLike) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else room.joined(arrays, dtype)


def _offsets(lengths: Longs) -> Longs:
    return np.concatenate([[0], np.cumsum(lengths)])
