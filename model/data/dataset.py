"""The data set that models train on: domains with their numbers and train graphs, and their interactions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import ITEM, SPLITS, USER
from data_contracts.store.artifact import Artifact, read_blocks
from data_contracts.store.files import single_array
from model.compute.allocator import IN_MEMORY, Allocator
from model.sparse.rows import Ints, Longs, concat_rows


@dataclass(frozen=True)
class DomainData:
    """One domain: its nodes and its train graph.

    Attributes:
        name: its name.
        users, items: how many there are; node numbers are users first.
        union_nodes: int32 (users + items), each node's number among the nodes of all domains, users before items.
        indptr, indices: int64 (nodes + 1) and int32, the train graph in CSR form, ascending in each row.
    """

    name: str
    users: int
    items: int
    union_nodes: Ints
    indptr: Longs
    indices: Ints

    @property
    def nodes(self) -> int:
        """Number of users and items."""
        return self.users + self.items


@dataclass(frozen=True)
class MultiDomainData:
    """All domains, in the order in which they are processed, and the numbers of users and items in their union."""

    domains: tuple[DomainData, ...]
    users: int
    items: int

    @property
    def nodes(self) -> int:
        """Number of users and items of all domains."""
        return self.users + self.items

    @cached_property
    def shared_interaction_shares(self) -> tuple[float, ...]:
        """By domain, the share of its train interactions whose user or item another domain has too."""
        domain_counts = np.zeros(self.nodes, np.int32)
        for domain in self.domains:
            domain_counts[domain.union_nodes] += 1
        return tuple(_shared_share(domain, domain_counts[domain.union_nodes] > 1) for domain in self.domains)


@dataclass(frozen=True)
class Interactions:
    """Interactions of one domain, sorted by user, item, split.

    Attributes:
        users: int32, node of the user.
        items: int32, number of the item among the domain's items (node - users).
        union_users, union_items: int32, their numbers over all domains.
        split: int8, position in SPLITS.
        count: int32, raw rows merged into each.
    """

    users: Ints
    items: Ints
    union_users: Ints
    union_items: Ints
    split: NDArray[np.int8]
    count: Ints

    def for_split(self, split: str) -> Interactions:
        """The interactions of one split."""
        return self.take(self.split == SPLITS.index(split))

    def take(self, wanted: NDArray[np.bool_]) -> Interactions:
        """The wanted interactions, by bool (rows)."""
        return Interactions(*(getattr(self, name)[wanted] for name in self.__dataclass_fields__))


def load_dataset(nodes: Artifact, graph: Artifact, allocator: Allocator = IN_MEMORY) -> MultiDomainData:
    """Read the numbers and train graphs of all domains.

    Args:
        nodes, graph: the artifacts.
        allocator: of the graphs' edges.

    Raises:
        ValueError: the graph's rows are not the nodes' rows.
    """
    entities = {p["domain"]: _load_entities(nodes, p["domain"]) for p in nodes.partitions()}
    users, items = (
        int(max((of_domain[kind].max(initial=-1) for of_domain in entities.values()), default=-1)) + 1
        for kind in (0, 1)
    )
    domains = tuple(
        _build_domain(name, of_domain, load_train_graph(graph, name, allocator), users)
        for name, of_domain in entities.items()
    )
    return MultiDomainData(domains, users, items)


def load_interactions(interactions: Artifact, domain: DomainData, dataset: MultiDomainData) -> Interactions:
    """Read a domain's interactions; zero rows if it has none.

    Raises:
        ValueError: an interaction's user or item is no node of the domain.
    """
    table = interactions.read(["user", "item", "split", "count"], domain=domain.name)
    user, item = _ints(table["user"]), _ints(table["item"])
    code = pc.index_in(table["split"], pa.array(SPLITS))
    users = _domain_numbers(domain, domain.union_nodes[: domain.users], user, dataset.users)
    items = _domain_numbers(domain, domain.union_nodes[domain.users :] - dataset.users, item, dataset.items)
    return Interactions(users, items, user, item, _ints(code).astype(np.int8), _ints(table["count"]))


def load_train_graph(graph: Artifact, domain: str, allocator: Allocator = IN_MEMORY) -> tuple[Longs, Ints]:
    """A domain's train graph in CSR form: indptr and, from the allocator, the neighbours."""
    columns = (rows["neighbours"] for rows in read_blocks(graph, ["neighbours"], domain=domain))
    lists = ((_ints(pc.list_value_length(column)), _ints(pc.list_flatten(column))) for column in columns)
    return concat_rows(lists, allocator)


def _shared_share(domain: DomainData, is_shared: NDArray[np.bool_]) -> float:
    users = np.repeat(np.arange(domain.users), np.diff(domain.indptr[: domain.users + 1]))
    is_touching = is_shared[users] | is_shared[domain.indices[: users.size]]
    return float(is_touching.mean()) if is_touching.size else 0.0


def _load_entities(nodes: Artifact, name: str) -> tuple[Ints, Ints]:
    """The numbers over all domains of a domain's users and of its items."""
    entities: dict[str, list[Ints]] = {USER: [np.empty(0, np.int32)], ITEM: [np.empty(0, np.int32)]}
    rows = 0
    for table in read_blocks(nodes, ["kind", "node", "entity"], domain=name):
        if not np.array_equal(_ints(table["node"]), np.arange(rows, rows + table.num_rows)):
            raise ValueError(f"nodes: domain {name!r} is not numbered from 0 on in order; make nodes again")
        rows += table.num_rows
        for kind, blocks in entities.items():
            blocks.append(_ints(table.filter(pc.equal(table["kind"], kind))["entity"]))
    users, items = (np.concatenate(blocks) for blocks in entities.values())
    return users, items


def _build_domain(name: str, entities: tuple[Ints, Ints], graph: tuple[Longs, Ints], all_users: int) -> DomainData:
    (users, items), (indptr, indices) = entities, graph
    union_nodes = np.concatenate([users, items + np.int32(all_users)])
    if indptr.size != union_nodes.size + 1:
        raise ValueError(
            f"graph: domain {name!r} has {indptr.size - 1} rows, must be the {union_nodes.size} of nodes; make it again"
        )
    return DomainData(name, users.size, items.size, union_nodes, indptr, indices)


def _domain_numbers(domain: DomainData, entities: Ints, wanted: Ints, size: int) -> Ints:
    """Numbers in the domain of the wanted entities, which are numbers below `size` over all domains."""
    number = np.full(size + 1, -1, np.int32)  # the last is for numbers that are no entity's
    number[entities] = np.arange(entities.size, dtype=np.int32)
    numbers: Ints = number[np.minimum(wanted, size)]
    if numbers.min(initial=0) < 0:
        stranger = wanted[int(np.argmin(numbers))]
        raise ValueError(f"interactions: {stranger} is no node of domain {domain.name!r}; make nodes again")
    return numbers


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.ascontiguousarray(single_array(column).to_numpy(zero_copy_only=False), dtype=np.int32)
