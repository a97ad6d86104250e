"""Evidence: what walks from the items a user knows, in every domain, say for the items of one domain.

    E(u, i) = Σ over j in u's train items of S[j, i]

S is the `neighbours` artifact, a sparse item-to-item matrix over the union of all domains; so a film counts as evidence
for a book. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import NEIGHBOURS
from data_contracts.store.artifact import Artifact
from model.data.dataset import Domain, World
from model.evidence.kernels import strongest_items, sum_neighbours, sum_neighbours_sparsely
from model.evidence.neighbours import ItemNeighbours, open_neighbours
from model.sparse.rows import Ints, Longs, pick_rows

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Histories:
    """The distinct train items of users, in compressed rows.

    Attributes:
        indptr: int64 (users + 1).
        items: int32, item numbers over all domains, ascending within a user.
    """

    indptr: Longs
    items: Ints

    @classmethod
    def build(cls, world: World, domains: tuple[Domain, ...]) -> Histories:
        """Histories of all users of the union, by their number over all domains, from the train rows of domains."""
        pairs = [np.empty(0, np.int64)]
        for domain in domains:
            edges = int(domain.indptr[domain.users])
            users = np.repeat(domain.union[: domain.users], np.diff(domain.indptr[: domain.users + 1]))
            items = domain.union[domain.indices[:edges]] - world.users
            pairs.append(users.astype(np.int64) * world.items + items)
        distinct = np.unique(np.concatenate(pairs))
        counts = np.bincount(distinct // max(world.items, 1), minlength=world.users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return cls(indptr, (distinct % max(world.items, 1)).astype(np.int32))

    def pick(self, users: NDArray[np.integer]) -> Histories:
        """The histories of some users, in their order."""
        return Histories(*pick_rows(self.indptr, self.items, users))

    def __getitem__(self, users: slice) -> Histories:
        """The histories of consecutive users, without a copy of their items."""
        start, stop, _ = users.indices(self.indptr.size - 1)
        part = slice(self.indptr[start], self.indptr[stop])
        return Histories(self.indptr[start : stop + 1] - self.indptr[start], self.items[part])

    @property
    def lengths(self) -> Longs:
        """int64 (users), train items of each."""
        return np.diff(self.indptr)


@dataclass(frozen=True)
class DomainEvidence:
    """Evidence for the items of one domain.

    Attributes:
        neighbours: S, by item number over all domains.
        histories: of all users of the union.
        union_users: int32 (users), the domain's users' numbers over all domains.
        union_items: int32 (items), the domain's items' numbers over all domains.
    """

    neighbours: ItemNeighbours
    histories: Histories
    union_users: Ints
    union_items: Ints

    @cached_property
    def position(self) -> Ints:
        """int32 (items of the union), number of each item in the domain, -1 where it is not in it."""
        position = np.full(self.neighbours.indptr.size - 1, -1, np.int32)
        position[self.union_items] = np.arange(self.union_items.size, dtype=np.int32)
        return position

    @cached_property
    def user_order(self) -> Longs:
        """int64 (users), the domain's users by ascending number over all domains."""
        return np.argsort(self.union_users, kind="stable")

    def numbers_of_users(self, users: Ints) -> Longs:
        """Numbers in the domain of users by their numbers over all domains; -1 for those of other domains."""
        if not self.union_users.size:
            return np.full(users.size, -1, np.int64)
        place = np.searchsorted(self.union_users, users, sorter=self.user_order)
        number = self.user_order[np.minimum(place, self.union_users.size - 1)]
        return np.where(self.union_users[number] == users, number, -1)

    def has_neighbours(self, item: int) -> bool:
        """Whether walks lead from an item, a number over all domains, to any other."""
        indptr = self.neighbours.indptr
        return bool(indptr[item] < indptr[item + 1])

    def histories_of(self, users: NDArray[np.integer]) -> Histories:
        """Histories of some of the domain's users."""
        return self.histories.pick(self.union_users[users])

    def history(self, items: NDArray[np.integer]) -> Histories:
        """The history of a user who is in no domain, from distinct item numbers over all domains, in any order."""
        return Histories(np.array([0, items.size]), np.sort(items).astype(np.int32))

    def sum(self, histories: Histories) -> Floats32:
        """E of some histories: float32 (histories, items of the domain), 0 where no walk leads."""
        evidence = np.zeros((histories.indptr.size - 1, self.union_items.size), np.float32)
        sum_neighbours((histories.indptr, histories.items), self.neighbours.rows, self.position, evidence)
        return evidence

    def sum_sparsely(self, items: Ints) -> tuple[Ints, Floats32]:
        """E of one history where it is not 0, in time that does not grow with the items of the domain.

        Args:
            items: numbers over all domains, ascending.

        Returns:
            Numbers of the domain's items, ascending, and the same sums as `sum` has.
        """
        indptr = self.neighbours.indptr
        most = min(int((indptr[items.astype(np.int64) + 1] - indptr[items]).sum()), self.union_items.size)
        size = 1 << int(2 * most).bit_length()
        columns, sums = np.full(size, -1, np.int32), np.zeros(size, np.float32)
        sum_neighbours_sparsely(items, self.neighbours.rows, self.position, columns, sums)
        filled = np.flatnonzero(columns >= 0)
        filled = filled[np.argsort(columns[filled])]
        return columns[filled], sums[filled]

    def strongest(
        self, histories: Histories, owners: Longs, targets: NDArray[np.integer], most: int
    ) -> tuple[Ints, Floats32, Floats32]:
        """The items of a history that say most for each target.

        Args:
            histories: any.
            owners: int64 (targets), row of `histories` behind each target.
            targets: numbers of the domain's items.
            most: items to find for a target.

        Returns:
            Item numbers over all domains (targets, most), the largest weight S[j, target] first, equal ones by number,
            -1 where none is left; their weights; and E of every target, the sum of all its weights.
        """
        shape = (targets.size, most)
        items, weights = np.empty(shape, np.int32), np.zeros(shape, np.float32)
        totals = np.zeros(targets.size, np.float32)
        history = histories.indptr, histories.items
        wanted = self.union_items[targets]
        strongest_items(history, owners, wanted, self.neighbours.rows, items, weights, totals)
        return items, weights, totals


def load_evidence(parents: Mapping[str, Artifact], world: World) -> tuple[DomainEvidence, ...]:
    """The evidence of every domain, in the world's order; none where there is no `neighbours` among the parents.

    Raises:
        ValueError: neighbours were made of other nodes than the world's.
    """
    if NEIGHBOURS.name not in parents:
        return ()
    artifact = parents[NEIGHBOURS.name]
    by_domain = artifact.manifest.settings["scope"] == "domain"
    union = None if by_domain else (open_neighbours(artifact, world.items), Histories.build(world, world.domains))
    return tuple(
        domain_evidence(
            world,
            domain,
            *(union or (open_neighbours(artifact, world.items, domain.name), Histories.build(world, (domain,)))),
        )
        for domain in world.domains
    )


def domain_evidence(world: World, domain: Domain, neighbours: ItemNeighbours, histories: Histories) -> DomainEvidence:
    """The evidence for a domain of the world, by neighbours and histories of all users of the union."""
    users, items = domain.union[: domain.users], domain.union[domain.users :] - np.int32(world.users)
    return DomainEvidence(neighbours, histories, users, items)
