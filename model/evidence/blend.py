"""The served score: the dot product of two vectors, plus evidence that weighs more the more a user has done.

    s(u, i) = scale_u · (vectors · ⟨x_u, x_i⟩ + evidence · n_u^growth · E(u, i))

n_u is how many train items the user has, over all domains. Vectors speak for users of whom little is known, walks from
their own items for the others. The weights are fitted for each domain on the validation split (`model.evaluation.fit`).
A user without train items has no evidence and is ranked by vectors alone.

scale_u = 1 / (1 + spread of the user's weighted evidence / spread of vectors' scores), where spreads are standard
deviations over the domain's items. It changes no ranking: it keeps scores of different users comparable, which evidence
that grows with a history would not be. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import BLEND, GRAPH, NODES
from data_contracts.store.artifact import Artifact
from model.compute.allocator import MEMORY, Room
from model.data.dataset import load_world
from model.evidence.domain_evidence import DomainEvidence, Histories, load_evidence
from model.evidence.kernels import blend_rows
from model.evidence.user_evidence import UserEvidence
from model.sparse.rows import Ints, Longs

Floats32 = NDArray[np.float32]

GROWTH = 0.5
"""Power of the number of a user's train items by which the weight of the evidence grows."""


@dataclass(frozen=True)
class BlendWeights:
    """How much vectors and evidence weigh in one domain.

    Attributes:
        vectors: 1, or 0 where evidence alone ranks better.
        evidence: weight of the evidence of a user with one train item; 0 where vectors alone rank better.
        spread: standard deviation of the vectors' scores over the domain's items, the median over users.
        growth: the power of the number of a user's train items by which the evidence's weight grows.
    """

    vectors: float
    evidence: float
    spread: float
    growth: float = GROWTH

    def factors(self, lengths: Longs) -> tuple[Floats32, Floats32]:
        """What the vectors' and the evidence's scores are multiplied by, for users with so many train items."""
        evidence = self.evidence * np.where(lengths > 0, np.maximum(lengths, 1).astype(np.float64) ** self.growth, 0.0)
        return np.where(lengths > 0, self.vectors, 1.0).astype(np.float32), evidence.astype(np.float32)


@dataclass(frozen=True)
class Blend:
    """One domain's evidence and how much it weighs: turns scores of vectors into the served ones."""

    weights: BlendWeights
    evidence: DomainEvidence

    def add(self, scores: Floats32, users: NDArray[np.integer]) -> None:
        """Blend dot products (users, items of the domain) of some of the domain's users with evidence, in place."""
        self.add_to(scores, self.evidence.histories_of(users))

    def add_to(self, scores: Floats32, histories: Histories) -> None:
        """As `add`, for any histories: those of users who are not in the domain, or in no domain."""
        if self.weights.evidence:
            factors = self.weights.factors(histories.lengths)
            blend_rows(scores, self.evidence.sum(histories), factors, self.weights.spread)

    def of_user(self, history: Ints) -> UserEvidence:
        """The same for one user and some items at a time, without a score of every item.

        Args:
            history: item numbers over all domains, ascending.
        """
        items, sums = np.empty(0, np.int32), np.empty(0, np.float32)
        if self.weights.evidence:
            items, sums = self.evidence.sum_sparsely(history)
        of_vectors, of_evidence = self.weights.factors(np.array([history.size]))
        weighted, size = of_evidence * sums, max(self.evidence.union_items.size, 1)
        mean, mean_square = (float(values.sum(dtype=np.float64)) / size for values in (weighted, np.square(weighted)))
        deviation = max(mean_square - mean**2, 0.0) ** 0.5
        scale = np.float32(1.0 / (1.0 + deviation / self.weights.spread))
        return UserEvidence(items, weighted, of_vectors[0], scale)

    def without_vectors(self) -> Blend:
        """The blend for users who have no vector: evidence alone, even where vectors alone are served to the others."""
        return replace(self, weights=replace(self.weights, vectors=0.0, evidence=self.weights.evidence or 1.0))

    def for_spread(self, spread: float) -> Blend:
        """The same blend beside other scores than dot products, whose standard deviation over the items is given."""
        evidence = self.weights.evidence * spread / self.weights.spread
        return replace(self, weights=replace(self.weights, evidence=evidence, spread=spread))


def read_weights(blend: Artifact) -> dict[str, BlendWeights]:
    """The chosen weights of every domain of a `blend` artifact.

    Raises:
        ValueError: a domain has not exactly one chosen row.
    """
    table = blend.read(["domain", "vectors", "evidence", "spread", "growth", "chosen"])
    rows = table.filter(pc.field("chosen")).to_pylist()
    weights = {
        row["domain"]: BlendWeights(row["vectors"], row["evidence"], row["spread"], row["growth"]) for row in rows
    }
    if len(rows) != len(weights) or set(weights) != set(table["domain"].to_pylist()):
        raise ValueError(f"{blend.path}: every domain must have exactly one chosen row; delete it and evaluate again")
    return weights


def load_blends(parents: Mapping[str, Artifact], room: Room = MEMORY) -> dict[str, Blend]:
    """Every domain's blend by its name; none where vectors rank alone.

    Args:
        parents: `nodes`, `graph`, and for blends `neighbours` and one `blend-<seed>`.
        room: for the train graphs.
    """
    roles = [role for role in parents if role.split("-", 1)[0] == BLEND.name]
    if not roles:
        return {}
    (role,) = roles
    world = load_world(parents[NODES.name], parents[GRAPH.name], room)
    weights = read_weights(parents[role])
    evidence = zip(world.domains, load_evidence(parents, world), strict=True)
    return {domain.name: Blend(weights[domain.name], of_domain) for domain, of_domain in evidence}
