"""How the items of a domain are scored for users: vectors, and evidence beside them where a run has it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from data_contracts.contracts import BLEND, EMBEDDINGS, GRAPH, NEIGHBOURS, NODES
from data_contracts.store.artifact import Artifact
from model.evidence.user_evidence import UserEvidence
from model.serving.catalogue import Catalogue, domains_of, open_catalogue
from model.sparse.rows import Floats32, Ints, Longs, pick_rows

if TYPE_CHECKING:
    from model.evidence.blend import Blend
    from model.evidence.domain_evidence import Histories


@dataclass(frozen=True)
class Query:
    """Users with vectors, for whom the best items of a domain are sought.

    Attributes:
        vectors: float32 (users, width).
        histories: the items that each knows, over all domains; None where the run has no evidence.
        indptr, left_out: the items that are no answer, by user, in compressed rows of the domain's numbers.
    """

    vectors: Floats32
    histories: Histories | None
    indptr: Longs
    left_out: Ints

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, users: slice) -> Query:
        """Consecutive users."""
        start, stop, _ = users.indices(len(self))
        part = slice(self.indptr[start], self.indptr[stop])
        histories = self.histories[users] if self.histories else None
        return Query(
            self.vectors[users], histories, self.indptr[start : stop + 1] - self.indptr[start], self.left_out[part]
        )


@dataclass(frozen=True)
class DomainScorer:
    """One domain: its ids and vectors, and the blend that its items are scored by.

    Attributes:
        catalogue: ids, train rows, vectors.
        blend: evidence and its weight; None where the run ranks by vectors alone.
    """

    catalogue: Catalogue
    blend: Blend | None

    def query(self, users: Longs) -> Query:
        """Trained users by their numbers; their train items of the domain are left out."""
        histories = self.blend.evidence.histories_of(users) if self.blend else None
        left_out = pick_rows(self.catalogue.indptr, self.catalogue.known, users)
        return Query(self.catalogue.users[users], histories, *left_out)

    def score(self, query: Query) -> Floats32:
        """The served score of every item of the domain: float32 (users, items)."""
        scores: Floats32 = query.vectors @ self.catalogue.items.T
        if self.blend and query.histories:
            self.blend.add_to(scores, query.histories)
        return scores

    def evidence_of(self, query: Query) -> UserEvidence:
        """The evidence of the one user of a query; none where the run has none."""
        if self.blend and query.histories:
            return self.blend.of_user(query.histories.items)
        return UserEvidence.none()


class DomainScorers:
    """The domains of a run, each opened when it is first asked for; safe to use from several threads.

    Args:
        artifacts: the run's, by role: `embeddings`, `graph`, and with evidence what else `served_artifacts` names.
    """

    def __init__(self, artifacts: Mapping[str, Artifact]) -> None:
        self.domains = domains_of(artifacts)
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
                self._open[domain] = self._opened(domain)
            return self._open[domain]

    @property
    def have_evidence(self) -> bool:
        """Whether the run ranks by walks from a user's items too."""
        return NEIGHBOURS.name in self._artifacts

    def _opened(self, domain: str) -> DomainScorer:
        if self._blends is None:
            self._blends = _load_blends(self._artifacts) if self.have_evidence else {}
        return DomainScorer(open_catalogue(self._artifacts, domain), self._blends.get(domain))


def served_artifacts(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """What a run's lists depend on, by role, of everything that the run has.

    Returns:
        `embeddings` and `graph`; with evidence also `nodes`, `neighbours` and the blend that was fitted to the
        checkpoint behind the embeddings.
    """
    roles = [EMBEDDINGS.name, GRAPH.name]
    checkpoints = [role for role in artifacts[EMBEDDINGS.name].manifest.parents if role.startswith("checkpoint")]
    blends = [role.replace("checkpoint", BLEND.name, 1) for role in checkpoints]
    of_blend = [NODES.name, NEIGHBOURS.name, *blends[:1]]
    if blends and all(role in artifacts for role in of_blend):
        roles += of_blend
    return {role: artifacts[role] for role in roles}


def _load_blends(artifacts: Mapping[str, Artifact]) -> dict[str, Blend]:
    from model.evidence.blend import load_blends  # noqa: PLC0415 - imports numba, which vectors alone do not need

    return load_blends(artifacts)
