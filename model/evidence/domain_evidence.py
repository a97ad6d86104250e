"""Evidence: scores of a domain's items by walks from the user's train items in all domains.

    E(u, i) = Σ over j in u's train items of S[j, i]

S is the `neighbours` artifact, a sparse item-to-item matrix over the union of all domains; so a film counts as evidence
for a book. This module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import NEIGHBOURS
from data_contracts.store.artifact import Artifact
from model.data.dataset import DomainData, MultiDomainData
from model.evidence.kernels import strongest_items, sum_neighbours, sum_neighbours_sparsely
from model.evidence.neighbours import ItemNeighbours, open_neighbours
from model.sparse.rows import Floats32, Ints, Longs, pick_rows


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
    def build(cls, dataset: MultiDomainData, domains: tuple[DomainData, ...]) -> Histories:
        """Histories of all users of the union, by their numbers over all domains, from the train graphs of domains."""
        pairs = [np.empty(0, np.int64)]
        for domain in domains:
            edges = int(domain.indptr[domain.users])
            users = np.repeat(domain.union_nodes[: domain.users], np.diff(domain.indptr[: domain.users + 1]))
            items = domain.union_nodes[domain.indices[:edges]] - dataset.users
            pairs.append(users.astype(np.int64) * dataset.items + items)
        distinct = np.unique(np.concatenate(pairs))
        counts = np.bincount(distinct // max(dataset.items, 1), minlength=dataset.users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return cls(indptr, (distinct % max(dataset.items, 1)).astype(np.int32))

    def pick(self, users: NDArray[np.integer]) -> Histories:
        """The histories of some users, in their order."""
        return Histories(*pick_rows(self.indptr, self.items, users))

    def __getitem__(self, users: slice) -> Histories:
        """The histories of consecutive users, without a copy of their items."""
        start, stop, _ = users.indices(self.indptr.size - 1)
        items = self.items[self.indptr[start] : self.indptr[stop]]
        return Histories(self.indptr[start : stop + 1] - self.indptr[start], items)

    @property
    def lengths(self) -> Longs:
        """int64 (users), the number of train items of each."""
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
    def domain_numbers(self) -> Ints:
        """int32 (items of the union), the number of each item in the domain, -1 for those of other domains."""
        numbers = np.full(self.neighbours.indptr.size - 1, -1, np.int32)
        numbers[self.union_items] = np.arange(self.union_items.size, dtype=np.int32)
        return numbers

    @cached_property
    def user_order(self) -> Longs:
        """int64 (users), the domain's users by ascending number over all domains."""
        return np.argsort(self.union_users, kind="stable")

    def find_users(self, users: Ints) -> Longs:
        """The numbers in the domain of users given by their numbers over all domains; -1 for those of other domains."""
        if not self.union_users.size:
            return np.full(users.size, -1, np.int64)
        positions = np.searchsorted(self.union_users, users, sorter=self.user_order)
        numbers = self.user_order[np.minimum(positions, self.union_users.size - 1)]
        return np.where(self.union_users[numbers] == users, numbers, -1)

    def has_neighbours(self, item: int) -> bool:
        """Whether an item, given by its number over all domains, has neighbours."""
        indptr = self.neighbours.indptr
        return bool(indptr[item] < indptr[item + 1])

    def user_histories(self, users: NDArray[np.integer]) -> Histories:
        """Histories of some of the domain's users."""
        return self.histories.pick(self.union_users[users])

    def history(self, items: NDArray[np.integer]) -> Histories:
        """The history of a user who is in no domain, from distinct item numbers over all domains, in any order."""
        return Histories(np.array([0, items.size]), np.sort(items).astype(np.int32))

    def sum(self, histories: Histories) -> Floats32:
        """E of some histories: float32 (histories, items of the domain)."""
        evidence = np.zeros((histories.indptr.size - 1, self.union_items.size), np.float32)
        sum_neighbours((histories.indptr, histories.items), self.neighbours.rows, self.domain_numbers, evidence)
        return evidence

    def sum_sparsely(self, items: Ints) -> tuple[Ints, Floats32]:
        """The nonzero entries of E of one history, in time that does not depend on the number of the domain's items.

        Args:
            items: numbers over all domains, ascending.

        Returns:
            Numbers of the domain's items, ascending, and the same sums as in `sum`.
        """
        indptr = self.neighbours.indptr
        most = min(int((indptr[items.astype(np.int64) + 1] - indptr[items]).sum()), self.union_items.size)
        size = 1 << int(2 * most).bit_length()
        columns, sums = np.full(size, -1, np.int32), np.zeros(size, np.float32)
        sum_neighbours_sparsely(items, self.neighbours.rows, self.domain_numbers, columns, sums)
        filled = np.flatnonzero(columns >= 0)
        filled = filled[np.argsort(columns[filled])]
        return columns[filled], sums[filled]

    def strongest(
        self, histories: Histories, owners: Longs, targets: NDArray[np.integer], most: int
    ) -> tuple[Ints, Floats32, Floats32]:
        """The items of a history with the largest weights for each target.

        Args:
            histories: any.
            owners: int64 (targets), the row of `histories` of each target.
            targets: numbers of the domain's items.
            most: items for each target.

        Returns:
            Item numbers over all domains (targets, most), in descending order of S[j, target], equal ones by number, -1
            if none is left; their weights; and E of every target, the sum of all its weights.
        """
        shape = (targets.size, most)
        items, weights = np.empty(shape, np.int32), np.zeros(shape, np.float32)
        totals = np.zeros(targets.size, np.float32)
        history = histories.indptr, histories.items
        wanted = self.union_items[targets]
        strongest_items(history, owners, wanted, self.neighbours.rows, items, weights, totals)
        return items, weights, totals


def load_evidence(parents: Mapping[str, Artifact], dataset: MultiDomainData) -> tuple[DomainEvidence, ...]:
    """The evidence of every domain, in their order; empty if there is no `neighbours` among the parents.

    Raises:
        ValueError: the neighbours were made from other nodes than the data set's.
    """
    if NEIGHBOURS.name not in parents:
        return ()
    artifact = parents[NEIGHBOURS.name]
    if artifact.manifest.settings["scope"] == "domain":
        return tuple(
            build_evidence(
                dataset,
                domain,
                open_neighbours(artifact, dataset.items, domain.name),
                Histories.build(dataset, (domain,)),
            )
            for domain in dataset.domains
        )
    neighbours, histories = open_neighbours(artifact, dataset.items), Histories.build(dataset, dataset.domains)
    return tuple(build_evidence(dataset, domain, neighbours, histories) for domain in dataset.domains)


def build_evidence(
    dataset: MultiDomainData, domain: DomainData, neighbours: ItemNeighbours, histories: Histories
) -> DomainEvidence:
    """The evidence for one domain, from neighbours and histories by numbers over all domains."""
    users, items = domain.union_nodes[: domain.users], domain.union_nodes[domain.users :] - np.int32(dataset.users)
    return DomainEvidence(neighbours, histories, users, items)
