"""A domain as it is served: ids, train graph and memory-mapped final vectors. Needs no torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import EMBEDDINGS, GRAPH, ITEM, USER
from data_contracts.store.artifact import Artifact, read_blocks
from data_contracts.store.files import single_array
from model.compute.allocator import IN_MEMORY, Allocator
from model.compute.mapped_tensors import open_tensors
from model.data.dataset import load_train_graph
from model.serving.coarse import CoarseVectors
from model.sparse.rows import Floats32, Ints, Longs

_BLOCK = 65_536
"""Vectors read into memory at once."""
_FITTED_USERS = 10_000
"""Trained users, at most, to whom the length of new users' vectors is fitted."""


@dataclass(frozen=True)
class Catalogue:
    """One domain's users and items, each numbered from 0: in the order of their ids, after updates the new ones last.

    Attributes:
        domain: its name.
        user_ids, item_ids: the logs' own ids, by number.
        users, items: float32 (users, width) and (items, width), final vectors, mapped from files.
        indptr, known: int64 (users + 1) and int32, the train items of each user, ascending, in compressed rows.
        degrees: int64 (items), the number of train users of each item.
    """

    domain: str
    user_ids: pa.LargeStringArray
    item_ids: pa.LargeStringArray
    users: Floats32
    items: Floats32
    indptr: Longs
    known: Ints
    degrees: Longs

    @cached_property
    def user_order(self) -> Longs:
        """int64 (users), the users' numbers by ascending id."""
        return _sort_ids(self.user_ids)

    @cached_property
    def item_order(self) -> Longs:
        """int64 (items), the items' numbers by ascending id."""
        return _sort_ids(self.item_ids)

    @cached_property
    def coarse_items(self) -> CoarseVectors:
        """The items' vectors in a quarter of the bytes."""
        return CoarseVectors.build(self.items)

    @cached_property
    def norms(self) -> Floats32:
        """Length of each item's vector, but at least the smallest normal number, so that it can be divided by."""
        starts = range(0, len(self.items), _BLOCK)
        blocks = [np.linalg.norm(self.items[start : start + _BLOCK], axis=1) for start in starts]
        lengths: Floats32 = np.concatenate([np.zeros(0, np.float32), *blocks])
        return np.maximum(lengths, np.finfo(np.float32).tiny, out=lengths)

    @cached_property
    def step_length(self) -> float:
        """The ratio of trained users' vectors to one step from their items, by least squares."""
        with_items = np.flatnonzero(np.diff(self.indptr))
        users = with_items[:: -(-with_items.size // _FITTED_USERS) or 1]
        stepped = self.step([self.known[self.indptr[user] : self.indptr[user + 1]] for user in users])
        squares = float(np.vdot(stepped, stepped))
        return float(np.vdot(stepped, self.users[users])) / squares if squares else 1.0

    def are_known(self, users: Longs, items: Ints) -> NDArray[np.bool_]:
        """Whether each user has the item at the same position as a train item; bisects all users' rows at once."""
        if not self.known.size:
            return np.zeros(users.size, np.bool_)
        low, end, last = self.indptr[users], self.indptr[users + 1], self.known.size - 1
        high = end
        for _ in range(int((end - low).max(initial=0)).bit_length()):
            middle = (low + high) // 2
            is_before = (low < high) & (self.known[np.minimum(middle, last)] < items)
            low, high = np.where(is_before, middle + 1, low), np.where(is_before, high, middle)
        known: NDArray[np.bool_] = (low < end) & (self.known[np.minimum(low, last)] == items)
        return known

    def step(self, histories: Sequence[Longs | Ints]) -> Floats32:
        """One propagation step from each user's items: the sum of x_i / sqrt(d_u d_i), float32 (users, width)."""
        stepped = np.empty((len(histories), self.items.shape[1]), np.float32)
        for row, items in enumerate(histories):
            weights = 1.0 / np.sqrt(max(items.size, 1) * np.maximum(self.degrees[items], 1))
            stepped[row] = weights.astype(np.float32) @ self.items[items]
        return stepped


def vectors_file(domain: str) -> str:
    """Path of a domain's tensors in an `embeddings` artifact."""
    return f"vectors/{quote(domain, safe='')}.safetensors"


def exported_domains(artifacts: Mapping[str, Artifact]) -> list[str]:
    """Names of the domains that an `embeddings` artifact has, ascending."""
    return sorted(partition["domain"] for partition in artifacts[EMBEDDINGS.name].partitions())


def open_catalogue(artifacts: Mapping[str, Artifact], domain: str, allocator: Allocator = IN_MEMORY) -> Catalogue:
    """Open one domain of a run.

    Args:
        artifacts: `embeddings` and the `graph` that was trained on.
        domain: one of `exported_domains`.
        allocator: of the train graph.

    Raises:
        ValueError: graph and embeddings have different nodes.
    """
    embeddings = artifacts[EMBEDDINGS.name]
    tensors = open_tensors(embeddings, vectors_file(domain), dict.fromkeys(("users", "items"), (None, None)))
    users, items = (_load_ids(embeddings, domain, kind) for kind in (USER, ITEM))
    indptr, nodes = load_train_graph(artifacts[GRAPH.name], domain, allocator)
    sizes = (len(users), len(items), indptr.size - 1)
    expected = (len(tensors["users"]), len(tensors["items"]), len(users) + len(items))
    if sizes != expected:
        raise ValueError(
            f"domain {domain!r}: users, items and graph rows are {sizes}, must be {expected}; export the run again"
        )
    last = int(indptr[len(users)])
    return Catalogue(
        domain=domain,
        user_ids=users,
        item_ids=items,
        users=tensors["users"],
        items=tensors["items"],
        indptr=indptr[: len(users) + 1],
        known=np.subtract(nodes[:last], np.int32(len(users)), out=allocator.empty((last,), np.int32)),
        degrees=np.diff(indptr[len(users) :]),
    )


def find_numbers(ids: pa.LargeStringArray, order: Longs, wanted: Sequence[str]) -> Longs:
    """The numbers of wanted ids, -1 for unknown ones.

    Args:
        ids: of all numbers.
        order: int64, the numbers by ascending id.
        wanted: ids.
    """
    numbers = np.full(len(wanted), -1, np.int64)
    for row, name in enumerate(wanted):
        position = find_position(ids, order, name)
        if position < len(ids) and ids[int(order[position])].as_py() == name:
            numbers[row] = order[position]
    return numbers


def find_position(ids: pa.LargeStringArray, order: Longs, name: str) -> int:
    """The position of an id among the ascending ones, or the one at which it would be inserted."""
    return bisect_left(order, name, key=lambda number: ids[int(number)].as_py())


def _sort_ids(ids: pa.LargeStringArray) -> Longs:
    order: Longs = pc.sort_indices(ids).to_numpy().astype(np.int64)
    return order


def _load_ids(embeddings: Artifact, domain: str, kind: str) -> pa.LargeStringArray:
    """The ids of a kind as one array, a large one because ids of millions of users may exceed 2 GiB."""
    tables = read_blocks(embeddings, ["kind", "id"], domain=domain)
    columns = [table.filter(pc.equal(table["kind"], kind))["id"].cast(pa.large_string()) for table in tables]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return single_array(pa.chunked_array(chunks, pa.large_string()))
