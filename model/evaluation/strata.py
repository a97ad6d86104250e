"""Strata of held-out rows: by the length of the user's history, and by whether users and items live in one domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import HISTORY_ENDS, HISTORY_STRATA, ITEM_STRATA, USER_STRATA
from model.data.dataset import Interactions, MultiDomainData
from model.sparse.rows import Longs


@dataclass(frozen=True)
class Strata:
    """What the stratum of a held-out row depends on.

    Attributes:
        history_lengths: int64 (users of the union), train rows of each user in all domains together: an item that the
            user has in two domains counts twice.
        domain_counts: int64 (nodes of the union), in how many domains each user and each item lives, users first; a
            node lives where it has interactions of any split.
    """

    history_lengths: Longs
    domain_counts: Longs

    @classmethod
    def build(cls, dataset: MultiDomainData) -> Strata:
        """Count rows and domains of all users and items."""
        history_lengths, domain_counts = np.zeros(dataset.users, np.int64), np.zeros(dataset.nodes, np.int64)
        for domain in dataset.domains:
            domain_counts[domain.union_nodes] += 1
            history_lengths[domain.union_nodes[: domain.users]] += np.diff(domain.indptr[: domain.users + 1])
        return cls(history_lengths, domain_counts)

    def split(self, rows: Interactions) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Which rows are in each stratum: its name and bool (rows), strata without a row left out.

        Strata of histories share out the rows, and so do those of users and those of items.
        """
        users, items = rows.union_users, rows.union_items.astype(np.int64) + self.history_lengths.size
        groups = (
            (HISTORY_STRATA, np.digitize(self.history_lengths[users], HISTORY_ENDS)),
            (USER_STRATA, self.domain_counts[users] > 1),
            (ITEM_STRATA, self.domain_counts[items] > 1),
        )
        for names, number in groups:
            for index, name in enumerate(names):
                is_inside = number == index
                if is_inside.any():
                    yield name, is_inside
