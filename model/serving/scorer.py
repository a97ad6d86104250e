"""Scores of a domain's items for users, from vectors and, if a run has it, evidence. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import BLEND, CHECKPOINT, EMBEDDINGS, GRAPH, NEIGHBOURS, NODES
from data_contracts.roles import Role
from data_contracts.store.artifact import Artifact
from model.evidence.user_evidence import UserEvidence
from model.serving.catalogue import Catalogue, exported_domains, open_catalogue
from model.sparse.rows import Floats32, Ints, Longs, pick_rows

if TYPE_CHECKING:
    from model.evidence.blend import Blend
    from model.evidence.domain_evidence import Histories


ItemMask = NDArray[np.bool_]
"""bool (items), whether each item of a domain may be recommended."""


@dataclass(frozen=True)
class Query:
    """Users with vectors, for whom the best items of a domain are to be found.

    Attributes:
        vectors: float32 (users, width).
        histories: the train items of each, over all domains; None if the run has no evidence.
        indptr, excluded: the items that each must not get, in compressed rows of the domain's numbers.
        allowed: the items that all may get; None: every item of the domain.
    """

    vectors: Floats32
    histories: Histories | None
    indptr: Longs
    excluded: Ints
    allowed: ItemMask | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, users: slice) -> Query:
        """Consecutive users."""
        start, stop, _ = users.indices(len(self))
        return Query(
            vectors=self.vectors[users],
            histories=self.histories[users] if self.histories else None,
            indptr=self.indptr[start : stop + 1] - self.indptr[start],
            excluded=self.excluded[self.indptr[start] : self.indptr[stop]],
            allowed=self.allowed,
        )


@dataclass(frozen=True)
class DomainScorer:
    """One domain: its ids and vectors, and the blend that scores its items.

    Attributes:
        catalogue: ids, train rows, vectors.
        blend: evidence and its weights; None if the run ranks by vectors alone.
    """

    catalogue: Catalogue
    blend: Blend | None

    def query(self, users: Longs) -> Query:
        """A query for trained users, by their numbers; their train items in the domain are excluded."""
        histories = self.blend.evidence.user_histories(users) if self.blend else None
        indptr, excluded = pick_rows(self.catalogue.indptr, self.catalogue.known, users)
        return Query(self.catalogue.users[users], histories, indptr, excluded)

    def score(self, query: Query) -> Floats32:
        """The served score of every item of the domain: float32 (users, items)."""
        scores: Floats32 = query.vectors @ self.catalogue.items.T
        if self.blend and query.histories:
            self.blend.apply(scores, query.histories)
        return scores

    def user_evidence(self, query: Query) -> UserEvidence:
        """The evidence of the one user of a query; empty if the run has none."""
        if self.blend and query.histories:
            return self.blend.for_one_user(query.histories.items)
        return UserEvidence.empty()


class DomainScorers:
    """The domains of a run, each opened when it is first used; may be used from several threads.

    Args:
        artifacts: the run's, by role: `embeddings`, `graph`, and with evidence the others of `served_artifacts`.
    """

    def __init__(self, artifacts: Mapping[str, Artifact]) -> None:
        self.domains = exported_domains(artifacts)
        self._artifacts = served_artifacts(artifacts)
        self._open: dict[str, DomainScorer] = {}
        self._blends: dict[str, Blend] | None = None
        self._opening = Lock()

    def __getitem__(self, domain: str) -> DomainScorer:
        """The scorer of one of the domains.

        Raises:
            ValueError: embeddings, graph and nodes do not fit together.
        """
        with self._opening:
            if domain not in self._open:
                if self._blends is None:
                    self._blends = _load_blends(self._artifacts) if self.have_evidence else {}
                catalogue = open_catalogue(self._artifacts, domain)
                self._open[domain] = DomainScorer(catalogue, self._blends.get(domain))
            return self._open[domain]

    @property
    def have_evidence(self) -> bool:
        """Whether the run also ranks by evidence."""
        return NEIGHBOURS.name in self._artifacts


def served_artifacts(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts of a run that its recommendations depend on, by role.

    Args:
        artifacts: all of the run's.

    Returns:
        `embeddings` and `graph`; with evidence also `nodes`, `neighbours` and the blend that was fitted to the
        checkpoint of the embeddings.
    """
    roles = [EMBEDDINGS.name, GRAPH.name]
    parents = map(Role.parse, artifacts[EMBEDDINGS.name].manifest.parents)
    seeds = [role.seed for role in parents if role.contract is CHECKPOINT]
    evidence_roles = [NODES.name, NEIGHBOURS.name, *(str(Role(BLEND, seed)) for seed in seeds[:1])]
    if seeds and all(role in artifacts for role in evidence_roles):
        roles += evidence_roles
    return {role: artifacts[role] for role in roles}


def _load_blends(artifacts: Mapping[str, Artifact]) -> dict[str, Blend]:
    from model.evidence.blend import load_blends  # noqa: PLC0415 - loads numba (130 MiB), which vectors alone do not need

    return load_blends(artifacts)
