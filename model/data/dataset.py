"""The world as the model sees it: domains, their numbers, their train graphs, and who interacted with what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import ITEM, SPLITS, USER
from data_contracts.store.artifact import Artifact, read_blocks
from model.compute.allocator import MEMORY, Room
from model.sparse.rows import Ints, Longs, joined_rows


@dataclass(frozen=True)
class Domain:
    """One domain.

    Attributes:
        name: its name.
        users, items: how many; node numbers are users first.
        union: int32 (users + items), each node's number among the nodes of all domains, users before items.
        indptr, indices: int64 (nodes + 1) and int32, the train graph in compressed rows, ascending in each row.
    """

    name: str
    users: int
    items: int
    union: Ints
    indptr: Longs
    indices: Ints

    @property
    def nodes(self) -> int:
        """Users and items."""
        return self.users + self.items


@dataclass(frozen=True)
class World:
    """All domains, in the order in which they are visited, and the sizes of their union."""

    domains: tuple[Domain, ...]
    users: int
    items: int

    @property
    def nodes(self) -> int:
        """Users and items of all domains."""
        return self.users + self.items

    @cached_property
    def shared(self) -> tuple[float, ...]:
        """By domain, the share of its train interactions whose user or item another domain has too."""
        homes = np.zeros(self.nodes, np.int32)
        for domain in self.domains:
            homes[domain.union] += 1
        return tuple(_shared(domain, homes[domain.union] > 1) for domain in self.domains)


@dataclass(frozen=True)
class Rows:
    """Interactions of one domain in its own numbers, sorted by user, item, split.

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

    def of(self, split: str) -> Rows:
        """The rows of one split."""
        wanted = self.split == SPLITS.index(split)
        return Rows(*(getattr(self, name)[wanted] for name in self.__dataclass_fields__))


def load_world(nodes: Artifact, graph: Artifact, room: Room = MEMORY) -> World:
    """Read every domain's numbers and train graph.

    Args:
        nodes, graph: the artifacts.
        room: for the graphs' edges.

    Raises:
        ValueError: the graph's rows are not the nodes' rows.
    """
    entities = {p["domain"]: _numbered(nodes, p["domain"]) for p in nodes.partitions()}
    users, items = (max((own[kind].max(initial=-1) for own in entities.values()), default=-1) + 1 for kind in (0, 1))
    domains = tuple(_domain(name, own, compressed(graph, name, room), int(users)) for name, own in entities.items())
    return World(domains, int(users), int(items))


def _shared(domain: Domain, is_shared: NDArray[np.bool_]) -> float:
    users = np.repeat(np.arange(domain.users), np.diff(domain.indptr[: domain.users + 1]))
    touching = is_shared[users] | is_shared[domain.indices[: users.size]]
    return float(touching.mean()) if touching.size else 0.0


def load_rows(interactions: Artifact, domain: Domain, world: World) -> Rows:
    """Read a domain's interactions; zero rows where it has none.

    Raises:
        ValueError: an interaction's user or item is no node of the domain.
    """
    table = interactions.read(["user", "item", "split", "count"], domain=domain.name)
    user, item = _ints(table["user"]), _ints(table["item"])
    code = pc.index_in(table["split"], pa.array(SPLITS))
    users = _number(domain, domain.union[: domain.users], user, world.users)
    items = _number(domain, domain.union[domain.users :] - world.users, item, world.items)
    return Rows(users, items, user, item, _ints(code).astype(np.int8), _ints(table["count"]))


def compressed(graph: Artifact, domain: str, room: Room = MEMORY) -> tuple[Longs, Ints]:
    """A domain's train graph in compressed rows: indptr and neighbours, these where there is room."""
    lists = (rows["neighbours"] for rows in read_blocks(graph, ["neighbours"], domain=domain))
    return joined_rows(((_ints(pc.list_value_length(own)), _ints(pc.list_flatten(own))) for own in lists), room)


def _numbered(nodes: Artifact, name: str) -> tuple[Ints, Ints]:
    """Entities of a domain's users and of its items."""
    entities: dict[str, list[Ints]] = {USER: [np.empty(0, np.int32)], ITEM: [np.empty(0, np.int32)]}
    rows = 0
    for table in read_blocks(nodes, ["kind", "node", "entity"], domain=name):
        if not np.array_equal(_ints(table["node"]), np.arange(rows, rows + table.num_rows)):
            raise ValueError(f"nodes: domain {name!r} is not numbered from 0 on in order; make nodes again")
        rows += table.num_rows
        for kind, parts in entities.items():
            parts.append(_ints(table.filter(pc.equal(table["kind"], kind))["entity"]))
    users, items = (np.concatenate(parts) for parts in entities.values())
    return users, items


def _domain(name: str, entities: tuple[Ints, Ints], rows: tuple[Longs, Ints], world_users: int) -> Domain:
    (users, items), (indptr, indices) = entities, rows
    union = np.concatenate([users, items + np.int32(world_users)])
    if indptr.size != union.size + 1:
        raise ValueError(
            f"graph: domain {name!r} has {indptr.size - 1} rows, must be the {union.size} of nodes; make it again"
        )
    return Domain(name, users.size, items.size, union, indptr, indices)


def _number(domain: Domain, entities: Ints, wanted: Ints, size: int) -> Ints:
    number = np.full(size, -1, np.int32)
    number[entities] = np.arange(entities.size, dtype=np.int32)
    found = np.where(wanted < size, number[np.minimum(wanted, size - 1)], -1) if size else np.full(wanted.size, -1)
    if found.min(initial=0) < 0:
        stranger = wanted[int(np.argmin(found))]
        raise ValueError(f"interactions: {stranger} is no node of domain {domain.name!r}; make nodes again")
    return found.astype(np.int32)


def _ints(column: Any) -> Ints:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False), dtype=np.int32)
