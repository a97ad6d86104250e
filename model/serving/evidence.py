"""Evidence: what walks from the items a user knows, in every domain, say for the items of one domain.

    E(u, i) = Σ over j in u's train items of S[j, i]

S is the `neighbours` artifact, a sparse item-to-item matrix over the union of all domains; so a film counts as evidence
for a book. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.artifact import Artifact
from data_contracts.contracts import NEIGHBOURS
from model.ragged import pick_rows
from model.serving.evidence_kernels import single_weights, sum_neighbours
from model.serving.neighbours import ItemNeighbours, open_neighbours
from model.world import Domain, Ints, Longs, World

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
        position: int32 (items of the union), number of each item in the domain, -1 where it is not in it.
    """

    neighbours: ItemNeighbours
    histories: Histories
    union_users: Ints
    union_items: Ints
    position: Ints

    def histories_of(self, users: NDArray[np.integer]) -> Histories:
        """Histories of some of the domain's users."""
        return self.histories.pick(self.union_users[users])

    def sum(self, histories: Histories) -> Floats32:
        """E of some histories: float32 (histories, items of the domain), 0 where no walk leads."""
        evidence = np.zeros((histories.indptr.size - 1, self.union_items.size), np.float32)
        sum_neighbours((histories.indptr, histories.items), self.neighbours.rows, self.position, evidence)
        return evidence

    def contributions(self, items: Ints, target: int) -> Floats32:
        """S[j, target] of each item j, numbers over all domains; a target is a number in the domain."""
        weights = np.zeros(items.size, np.float32)
        single_weights(items, self.union_items[target], self.neighbours.rows, weights)
        return weights


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
    position = np.full(world.items, -1, np.int32)
    position[items] = np.arange(domain.items, dtype=np.int32)
    return DomainEvidence(neighbours, histories, users, items, position)
