"""The train graphs that are walked: of all domains together, or of each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import ITEM, UNION, USER
from data_contracts.store.artifact import Artifact
from pipeline.compute.dtypes import Ints
from pipeline.graph import DomainGraph, DomainNodes, read_graph, read_nodes


@dataclass(frozen=True)
class TrainGraph:
    """A graph and the numbers of its items over all domains.

    Attributes:
        graph: users, then items; its domain is empty where it is the union of all.
        items: int32 [items], each item's number over all domains, ascending.
    """

    graph: DomainGraph
    items: Ints


def read_all_nodes(nodes: Artifact) -> list[DomainNodes]:
    """The nodes of every domain, by name."""
    return [read_nodes(nodes, name) for name in sorted(partition["domain"] for partition in nodes.partitions())]


def count_items(domains: list[DomainNodes]) -> int:
    """One more than the largest item number over all domains."""
    return _count_entities(domains, ITEM)


def read_train_graphs(graph: Artifact, domains: list[DomainNodes], scope: str) -> Iterator[TrainGraph]:
    """The graphs of a scope: one of all domains together, `union`, or one of each, `domain`."""
    if scope == "union":
        yield build_union_graph(graph, domains)
    else:
        for nodes in domains:
            yield TrainGraph(read_graph(graph, nodes), nodes.entity[nodes.range_of_kind(ITEM)])


def build_union_graph(graph: Artifact, domains: list[DomainNodes]) -> TrainGraph:
    """The train graph of all domains: one edge for a user and an item, in however many domains they interacted."""
    users, items = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for nodes in domains:
        train = read_graph(graph, nodes)
        edges = train.indptr[train.users]
        users.append(np.repeat(nodes.entity[: train.users], train.degrees[: train.users]))
        items.append(nodes.entity[train.indices[:edges]])
    ends = np.concatenate(users), np.concatenate(items)
    shape = _count_entities(domains, USER), _count_entities(domains, ITEM)
    by_user = sp.coo_array((np.ones(ends[0].size, np.int8), ends), shape=shape).tocsr()
    return TrainGraph(DomainGraph.from_matrix(UNION, by_user), np.arange(shape[1], dtype=np.int32))


def _count_entities(domains: list[DomainNodes], kind: str) -> int:
    return max((int(nodes.entity[nodes.range_of_kind(kind)].max(initial=-1)) + 1 for nodes in domains), default=0)
