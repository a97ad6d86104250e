"""Train graphs that walks go through: of all domains together, or of each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import ITEM, UNION, USER
from data_contracts.store.artifact import Artifact
from pipeline.graph import DomainGraph, DomainNodes, IntArray, read_graph, read_nodes


@dataclass(frozen=True)
class TrainGraph:
    """A graph and what its items are called over all domains.

    Attributes:
        graph: users, then items; its domain is empty where it is the union of all.
        items: int32 [items], each item's number over all domains, ascending.
    """

    graph: DomainGraph
    items: IntArray


def read_all_nodes(nodes: Artifact) -> list[DomainNodes]:
    """The nodes of every domain, by name."""
    return [read_nodes(nodes, name) for name in sorted(partition["domain"] for partition in nodes.partitions())]


def item_count(numbered: list[DomainNodes]) -> int:
    """One more than the largest number of an item."""
    return _count(numbered, ITEM)


def train_graphs(graph: Artifact, numbered: list[DomainNodes], scope: str) -> Iterator[TrainGraph]:
    """The graphs of a scope: one of all domains together, `union`, or one of each, `domain`."""
    if scope == "union":
        yield union_graph(graph, numbered)
    else:
        for nodes in numbered:
            yield TrainGraph(read_graph(graph, nodes), nodes.entity[nodes.of_kind(ITEM)])


def union_graph(graph: Artifact, numbered: list[DomainNodes]) -> TrainGraph:
    """The train graph of all domains: a user and an item are joined once, in however many domains they met."""
    users, items = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for nodes in numbered:
        domain = read_graph(graph, nodes)
        until = domain.indptr[domain.users]
        users.append(np.repeat(nodes.entity[: domain.users], domain.degrees[: domain.users]))
        items.append(nodes.entity[domain.indices[:until]])
    ends = np.concatenate(users), np.concatenate(items)
    shape = _count(numbered, USER), _count(numbered, ITEM)
    by_user = sp.coo_array((np.ones(ends[0].size, np.int8), ends), shape=shape).tocsr()
    return TrainGraph(DomainGraph.of(UNION, by_user), np.arange(shape[1], dtype=np.int32))


def _count(numbered: list[DomainNodes], kind: str) -> int:
    return max((int(nodes.entity[nodes.of_kind(kind)].max(initial=-1)) + 1 for nodes in numbered), default=0)
