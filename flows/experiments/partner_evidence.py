"""Aligned partners' histories as evidence, in the score of a trained run.

    E'(u, i) = E(u, i) + a · Σ over partners v of u of similarity(u, v) · E(v, i)

In matrices, with histories R, item weights S and similarities M of partners in other domains: (R + a M R) S in place of
R S. Another use of partners is the filter of `flows.experiments.bridge_filter`, which changes S. The blend of evidence
and vectors is fitted again for each weight a, and the weight that validates best is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import CHECKPOINT, INTERACTIONS, NODES, TEST, USER
from data_contracts.roles import Role
from data_contracts.settings.ranking import BlendSettings
from data_contracts.store.artifact import Artifact
from model.compute.column_parallel import SINGLE_PROCESS
from model.data.dataset import DomainData, Interactions, MultiDomainData, load_dataset, load_interactions
from model.edda.checkpoint import load_checkpoint
from model.evaluation.fit import CUTOFF, ValidationUsers, blend_curve, choose_blends, validation_users
from model.evaluation.metrics import user_values
from model.evaluation.ranking import rank_held_out
from model.evaluation.validation import NDCG, vector_scorer
from model.evidence.blend import Blend
from model.evidence.domain_evidence import DomainEvidence, Histories, load_evidence
from model.sparse.rows import Floats32, Ints

WEIGHTS = (0.0, 0.1, 0.3, 1.0)
"""Weights of the partners' evidence that are tried."""

Weighed = Callable[[float], Sequence[DomainEvidence]]
"""The evidence of all domains with that of partners beside it, by its weight."""

UsePartners = Callable[[Sequence[DomainEvidence], sp.csr_array, Histories], Weighed]
"""A use of partners: from the evidence of all domains, similarities [users, users] and histories of all users."""


@dataclass(frozen=True)
class _HistoriesOfUsers(Histories):
    """Histories that know whose they are.

    Attributes:
        users: int32, the users' numbers over all domains.
    """

    users: Ints


@dataclass(frozen=True)
class PartnerEvidence(DomainEvidence):
    """Evidence from the histories of users and of their partners.

    Attributes:
        partners: float32 [users, users] over all domains, similarities of each row's partners, times their weight.
    """

    partners: sp.csr_array

    @classmethod
    def beside(cls, evidence: DomainEvidence, partners: sp.csr_array) -> PartnerEvidence:
        """A domain's evidence with that of the partners."""
        return cls(evidence.neighbours, evidence.histories, evidence.union_users, evidence.union_items, partners)

    def user_histories(self, users: NDArray[np.integer]) -> Histories:
        """Histories of some of the domain's users."""
        numbers = self.union_users[users]
        histories = self.histories.pick(numbers)
        return _HistoriesOfUsers(histories.indptr, histories.items, numbers)

    def sum(self, histories: Histories) -> Floats32:
        """E' of histories that `user_histories` has returned: float32 (histories, items of the domain)."""
        evidence = super().sum(histories)
        if isinstance(histories, _HistoriesOfUsers):
            rows = self.partners[histories.users]
            known, columns = np.unique(rows.indices, return_inverse=True)
            weights = sp.csr_array((rows.data, columns, rows.indptr), shape=(rows.shape[0], known.size))
            evidence += weights @ super().sum(self.histories.pick(known))
        return evidence


def partner_matrix(pairs: pa.Table, nodes: Artifact, users: int) -> sp.csr_array:
    """Similarities of partners: float32 [users, users] over all domains; of several pairs of two users the largest.

    Args:
        pairs: source_id, target_id, similarity, of users.
        nodes: the artifact that numbers them.
        users: number of users over all domains.
    """
    names = nodes.read(["kind", "id", "entity"])
    names = names.filter(pc.equal(names["kind"], USER)).group_by(["id", "entity"]).aggregate([])
    numbers = dict(zip(names["id"].to_pylist(), names["entity"].to_pylist(), strict=True))
    largest = pairs.group_by(["source_id", "target_id"], use_threads=False).aggregate([("similarity", "max")])
    ends = [[numbers[name] for name in largest[side].to_pylist()] for side in ("source_id", "target_id")]
    similarity = largest["similarity_max"].to_numpy().astype(np.float32)
    return sp.csr_array((similarity, (np.array(ends[0], np.int64), np.array(ends[1], np.int64))), shape=(users, users))


def partner_histories(evidence: Sequence[DomainEvidence], partners: sp.csr_array, _histories: Histories) -> Weighed:
    """Partners' histories beside a user's own."""
    return lambda weight: [PartnerEvidence.beside(each, partners * np.float32(weight)) for each in evidence]


@dataclass(frozen=True)
class _Ranked:
    """What vectors are ranked on.

    Attributes:
        dataset: the domains.
        vectors: final vectors of each, of one seed.
        interactions, held, evidence: of each.
    """

    dataset: MultiDomainData
    vectors: Sequence[Tensor]
    interactions: Sequence[Interactions]
    held: Sequence[ValidationUsers]
    evidence: Sequence[DomainEvidence]

    @classmethod
    def load(cls, artifacts: Mapping[str, Artifact], blend: BlendSettings) -> _Ranked:
        """Read a run's artifacts, without vectors: `interactions`, `nodes`, `graph`, `neighbours`."""
        dataset = load_dataset(artifacts["nodes"], artifacts["graph"])
        interactions = [load_interactions(artifacts[INTERACTIONS.name], domain, dataset) for domain in dataset.domains]
        by_domain = list(zip(interactions, dataset.domains, strict=True))
        held = [validation_users(rows, domain, blend.users, blend.seed) for rows, domain in by_domain]
        return cls(dataset, (), interactions, held, load_evidence(artifacts, dataset))

    def fit(self) -> tuple[float, list[Blend]]:
        """The blends that validate best, and their NDCG@20, the mean over the validation users of all domains."""
        curves = {
            domain.name: blend_curve(held, vector_scorer(vectors, domain, SINGLE_PROCESS), evidence)
            for domain, vectors, held, evidence in zip(
                self.dataset.domains, self.vectors, self.held, self.evidence, strict=True
            )
        }
        chosen = choose_blends(curves)
        users = [held.users.size for held in self.held]
        score = float(np.average([chosen[domain].ndcg for domain in curves], weights=users)) if any(users) else 0.0
        return score, [
            Blend(chosen[domain].weights, evidence) for domain, evidence in zip(curves, self.evidence, strict=True)
        ]

    def test_ndcg(self, blends: Sequence[Blend]) -> Iterator[tuple[DomainData, Ints, NDArray[np.float64]]]:
        """Each domain's test users, by their numbers over all domains, and their NDCG@20."""
        for domain, vectors, rows, blend in zip(
            self.dataset.domains, self.vectors, self.interactions, blends, strict=True
        ):
            none = np.empty((rows.for_split(TEST).users.size, 0), np.int32)
            ranking = rank_held_out(vectors, domain, rows, TEST, none, blend)
            values = user_values(ranking.users, ranking.ranks, (CUTOFF,))
            if values:
                yield domain, domain.union_nodes[np.unique(ranking.users)], values[NDCG]


def rank_with_partners(
    artifacts: Mapping[str, Artifact], seeds: Sequence[int], pairs: pa.Table, use: UsePartners, blend: BlendSettings
) -> Iterator[tuple[int, float, dict[tuple[str, str], float]]]:
    """Fit the weight of partners' evidence on validation, and measure it on test.

    Args:
        artifacts: of a run that was evaluated with evidence.
        seeds: of its checkpoints.
        pairs: source_id, target_id, similarity.
        use: how their partners' rows become evidence.
        blend: how validation users are drawn.

    Yields:
        Each seed, its weight, and (domain, user id) → NDCG@20 of the user's test rows.
    """
    ranked = _Ranked.load(artifacts, blend)
    histories = Histories.build(ranked.dataset, ranked.dataset.domains)
    weighed = use(ranked.evidence, partner_matrix(pairs, artifacts[NODES.name], ranked.dataset.users), histories)
    names = artifacts[NODES.name].read(["kind", "id", "entity"])
    names = names.filter(pc.equal(names["kind"], USER))
    ids = dict(zip(names["entity"].to_pylist(), names["id"].to_pylist(), strict=True))
    for seed in seeds:
        checkpoint = load_checkpoint(artifacts[str(Role(CHECKPOINT, seed))], ranked.dataset)
        of_seed = replace(ranked, vectors=list(checkpoint.vectors(ranked.dataset)))
        fitted = {weight: replace(of_seed, evidence=weighed(weight)).fit() for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: fitted[weight][0])
        values = {
            (domain.name, ids[user]): float(value)
            for domain, users, ndcg in of_seed.test_ndcg(fitted[best][1])
            for user, value in zip(users.tolist(), ndcg, strict=True)
        }
        yield seed, best, values
