"""A domain as recommending reads it: ids, train graph and final vectors, the vectors mapped from files. No torch."""

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
from model.compute.allocator import MEMORY, Room
from model.compute.mapped_tensors import mapped_tensors
from model.data.dataset import compressed
from model.sparse.rows import Floats32, Ints, Longs

_BLOCK = 65_536
"""Vectors in memory at once."""
_FITTED = 10_000
"""Trained users, at most, by whom the length of new users' vectors is found."""


@dataclass(frozen=True)
class Catalogue:
    """One domain's users and items, each numbered from 0: in the order of their ids or, after updates, as they came.

    Attributes:
        domain: its name.
        user_ids, item_ids: the logs' own ids, by number.
        users, items: float32 (users, width) and (items, width), final vectors, mapped from files.
        indptr, known: int64 (users + 1) and int32, the items each user was trained on, ascending, in compressed rows.
        degrees: int64 (items), users who were trained on each item.
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
        return _order(self.user_ids)

    @cached_property
    def item_order(self) -> Longs:
        """int64 (items), the items' numbers by ascending id."""
        return _order(self.item_ids)

    @cached_property
    def norms(self) -> Floats32:
        """Length of each item's vector, at least the smallest normal number, so that it can divide."""
        starts = range(0, len(self.items), _BLOCK)
        blocks = [np.linalg.norm(self.items[start : start + _BLOCK], axis=1) for start in starts]
        lengths: Floats32 = np.concatenate([np.zeros(0, np.float32), *blocks])
        return np.maximum(lengths, np.finfo(np.float32).tiny, out=lengths)

    @cached_property
    def step_length(self) -> float:
        """How much longer trained users' vectors are than one step from their items: the least squares fit."""
        known = np.flatnonzero(np.diff(self.indptr))
        users = known[:: -(-known.size // _FITTED) or 1]
        stepped = self.step([self.known[self.indptr[user] : self.indptr[user + 1]] for user in users])
        squares = float(np.vdot(stepped, stepped))
        return float(np.vdot(stepped, self.users[users])) / squares if squares else 1.0

    def are_known(self, users: Longs, items: Ints) -> NDArray[np.bool_]:
        """Whether each user was trained on the item beside it, by bisection of all users' rows at once."""
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
        """One propagation step from the items that each user knows: the sum of x_i / sqrt(d_u d_i), (users, width)."""
        stepped = np.empty((len(histories), self.items.shape[1]), np.float32)
        for row, items in enumerate(histories):
            weights = 1.0 / np.sqrt(max(items.size, 1) * np.maximum(self.degrees[items], 1))
            stepped[row] = weights.astype(np.float32) @ self.items[items]
        return stepped


def vectors_file(domain: str) -> str:
    """Path of a domain's tensors in an `embeddings` artifact."""
    return f"vectors/{quote(domain, safe='')}.safetensors"


def domains_of(artifacts: Mapping[str, Artifact]) -> list[str]:
    """Names of the domains that an `embeddings` artifact has, ascending."""
    return sorted(partition["domain"] for partition in artifacts[EMBEDDINGS.name].partitions())


def open_catalogue(artifacts: Mapping[str, Artifact], domain: str, room: Room = MEMORY) -> Catalogue:
    """Open one domain of a run.

    Args:
        artifacts: `embeddings` and the `graph` that was trained on.
        domain: one of `domains_of`.
        room: for the train graph.

    Raises:
        ValueError: graph and embeddings are of different nodes.
    """
    embeddings = artifacts[EMBEDDINGS.name]
    tensors = mapped_tensors(embeddings.path / vectors_file(domain))
    users, items = (_ids(embeddings, domain, kind) for kind in (USER, ITEM))
    indptr, nodes = compressed(artifacts[GRAPH.name], domain, room)
    found = (len(users), len(items), indptr.size - 1)
    expected = (len(tensors["users"]), len(tensors["items"]), len(users) + len(items))
    if found != expected:
        raise ValueError(
            f"domain {domain!r}: users, items and graph rows are {found}, must be {expected}; export the run again"
        )
    last = indptr[len(users)]
    degrees = np.diff(indptr[len(users) :])
    known = np.subtract(nodes[:last], np.int32(len(users)), out=room.empty((int(last),), np.int32))
    return Catalogue(domain, users, items, tensors["users"], tensors["items"], indptr[: len(users) + 1], known, degrees)


def numbers_of(ids: pa.LargeStringArray, order: Longs, wanted: Sequence[str]) -> Longs:
    """Numbers of ids, -1 where there is no such id, by the order of all."""
    found = np.full(len(wanted), -1, np.int64)
    for row, name in enumerate(wanted):
        place = place_of(ids, order, name)
        if place < len(ids) and ids[int(order[place])].as_py() == name:
            found[row] = order[place]
    return found


def place_of(ids: pa.LargeStringArray, order: Longs, name: str) -> int:
    """Where an id stands, or would stand, among the ascending ones."""
    return bisect_left(order, name, key=lambda number: ids[int(number)].as_py())


def _order(ids: pa.LargeStringArray) -> Longs:
    order: Longs = pc.sort_indices(ids).to_numpy().astype(np.int64)
    return order


def _ids(embeddings: Artifact, domain: str, kind: str) -> pa.LargeStringArray:
    """One array, large because ids of millions of users may pass 2 GiB."""
    tables = read_blocks(embeddings, ["kind", "id"], domain=domain)
    parts = [
        table.filter(pc.equal(table["kind"], kind))["id"].cast(pa.large_string()).combine_chunks() for table in tables
    ]
    return pa.chunked_array(parts, pa.large_string()).combine_chunks()
