"""Stacks of graphs over the rows of one table, each without its isolated nodes, normalised by degree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.spmm import Csr, csr
from model.world import Domain, Ints, Longs, World


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

    def graph(self, number: int) -> tuple[Ints, Csr]:
        """Table rows and normalised matrix of one graph."""
        first, last = self.bounds[number], self.bounds[number + 1]
        start, stop = self.indptr[first], self.indptr[last]
        matrix = csr(
            self.indptr[first : last + 1] - start,
            self.indices[start:stop] - first,
            self.values[start:stop],
            int(last - first),
        )
        return self.nodes[first:last], matrix


def intra_stack(domain: Domain) -> Stack:
    """The domain's own train graph."""
    return _stacked([(domain.indptr, domain.indices)], domain.nodes)


def inter_stack(world: World) -> Stack:
    """For every domain the edges of any domain that touch its items, over the nodes of all domains [EDDA]."""
    users, items = _union_edges(world)
    return _stacked((_touching(domain, users, items, world) for domain in world.domains), world.nodes)


def union_stack(world: World) -> Stack:
    """The train interactions of all domains as one graph over the nodes of all domains."""
    return _stacked([_between(*_union_edges(world), world)], world.nodes)


def _union_edges(world: World) -> tuple[Ints, Ints]:
    """Distinct train interactions of all domains, as numbers of the union's users and items."""
    keys = [np.zeros(0, np.int64)]
    for domain in world.domains:
        users = np.repeat(domain.union[: domain.users], np.diff(domain.indptr[: domain.users + 1]))
        items = domain.union[domain.indices[: users.size]] - world.users
        keys.append(users.astype(np.int64) * world.items + items)
    distinct = np.unique(np.concatenate(keys))
    return (distinct // max(world.items, 1)).astype(np.int32), (distinct % max(world.items, 1)).astype(np.int32)


def _touching(domain: Domain, users: Ints, items: Ints, world: World) -> tuple[Longs, Ints]:
    offered = np.zeros(world.items, bool)
    offered[domain.union[domain.users :] - world.users] = True
    kept = offered[items]
    return _between(users[kept], items[kept], world)


def _between(users: Ints, items: Ints, world: World) -> tuple[Longs, Ints]:
    """Edges in both directions, in compressed rows over the union's nodes."""
    items = items + np.int32(world.users)
    both = np.concatenate([users, items]), np.concatenate([items, users])
    matrix = sparse.csr_matrix((np.ones(both[0].size, np.int8), both), shape=(world.nodes, world.nodes))
    matrix.sort_indices()
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)


def _stacked(graphs: Iterable[tuple[Longs, Ints]], table_rows: int) -> Stack:
    parts = [_compact(indptr, indices) for indptr, indices in graphs]
    bounds = _offsets([nodes.size for nodes, _, _, _ in parts])
    entries = _offsets([indices.size for _, _, indices, _ in parts])
    nodes = _joined([nodes for nodes, _, _, _ in parts], np.int32)
    indptr = [part[1][:-1] + start for part, start in zip(parts, entries[:-1], strict=True)]
    indices = [part[2] + np.int32(first) for part, first in zip(parts, bounds[:-1], strict=True)]
    return Stack(
        table_rows,
        bounds,
        nodes,
        _joined([*indptr, entries[-1:]], np.int64),
        _joined(indices, np.int32),
        _joined([values for _, _, _, values in parts], np.float32),
        _offsets(np.bincount(nodes, minlength=table_rows)),
        np.argsort(nodes, kind="stable").astype(np.int32),
    )


def _compact(indptr: Longs, indices: Ints) -> tuple[Ints, Longs, Ints, NDArray[np.float32]]:
    """Nodes with edges, their compressed rows in compact numbers, and 1 / sqrt(d_row d_column)."""
    degree = np.diff(indptr)
    nodes = np.flatnonzero(degree).astype(np.int32)
    number = np.cumsum(degree > 0, dtype=np.int32) - 1
    root = np.sqrt(degree.astype(np.float64))
    rows = np.repeat(np.arange(degree.size), degree)
    values = (1.0 / (root[rows] * root[indices])).astype(np.float32)
    return nodes, np.concatenate([[0], indptr[1:][degree > 0]]), number[indices], values


def _offsets(lengths: Sequence[int] | Longs) -> Longs:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])


def _joined(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)
