"""The served score: the dot product of two vectors, plus evidence whose weight grows with the user's history.

    s(u, i) = scale_u · (vectors · ⟨x_u, x_i⟩ + evidence · n_u^growth · E(u, i))

n_u is the number of the user's train items, over all domains. Vectors rank better for users with short histories, walks
from their own items for the others. The weights are fitted for each domain on the validation split
(`model.evaluation.fit`). A user without train items has no evidence and is ranked by vectors alone.

scale_u = 1 / (1 + spread of the user's weighted evidence / spread of vectors' scores), where spreads are standard
deviations over the domain's items. It changes no ranking, but keeps scores of different users comparable although
evidence grows with the history. This module needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from data_contracts.contracts import BLEND, GRAPH, NODES
from data_contracts.roles import Role
from data_contracts.store.artifact import Artifact
from model.compute.allocator import IN_MEMORY, Allocator
from model.data.dataset import load_dataset
from model.evidence.domain_evidence import DomainEvidence, Histories, load_evidence
from model.evidence.kernels import blend_rows
from model.evidence.user_evidence import UserEvidence
from model.sparse.rows import Floats32, Ints, Longs

GROWTH = 0.5
"""The weight of the evidence grows with this power of the number of a user's train items."""


@dataclass(frozen=True)
class BlendWeights:
    """The weights of vectors and evidence in one domain.

    Attributes:
        vectors: 1, or 0 if evidence alone ranks better.
        evidence: weight of the evidence of a user with one train item; 0 if vectors alone rank better.
        spread: standard deviation of the vectors' scores over the domain's items, the median over users.
        growth: exponent of the number of a user's train items in the weight of the evidence.
    """

    vectors: float
    evidence: float
    spread: float
    growth: float = GROWTH

    def factors(self, lengths: Longs) -> tuple[Floats32, Floats32]:
        """Factors (of dot products, of evidence) for users with so many train items."""
        evidence = self.evidence * np.where(lengths > 0, np.maximum(lengths, 1).astype(np.float64) ** self.growth, 0.0)
        return np.where(lengths > 0, self.vectors, 1.0).astype(np.float32), evidence.astype(np.float32)


@dataclass(frozen=True)
class Blend:
    """One domain's evidence and its weights: turns dot products into served scores."""

    weights: BlendWeights
    evidence: DomainEvidence

    def apply(self, scores: Floats32, histories: Histories) -> None:
        """Turn dot products (histories, items of the domain) into served scores, in place.

        Args:
            scores: of any users, also of those who are not in the domain or in no domain.
            histories: of these users, in the same order.
        """
        if self.weights.evidence:
            factors = self.weights.factors(histories.lengths)
            blend_rows(scores, self.evidence.sum(histories), factors, self.weights.spread)

    def for_one_user(self, history: Ints) -> UserEvidence:
        """The blend of one user, to score some items without scoring all.

        Args:
            history: item numbers over all domains, ascending.
        """
        items, sums = np.empty(0, np.int32), np.empty(0, np.float32)
        if self.weights.evidence:
            items, sums = self.evidence.sum_sparsely(history)
        vector_factors, evidence_factors = self.weights.factors(np.array([history.size]))
        weighted, size = evidence_factors * sums, max(self.evidence.union_items.size, 1)
        mean, mean_square = (float(values.sum(dtype=np.float64)) / size for values in (weighted, np.square(weighted)))
        deviation = max(mean_square - mean**2, 0.0) ** 0.5
        scale = np.float32(1.0 / (1.0 + deviation / self.weights.spread))
        return UserEvidence(items, weighted, vector_factors[0], scale)

    def without_vectors(self) -> Blend:
        """The blend for users who have no vector: evidence alone, even if the others are ranked by vectors alone."""
        return replace(self, weights=replace(self.weights, vectors=0.0, evidence=self.weights.evidence or 1.0))

    def for_spread(self, spread: float) -> Blend:
        """The blend with other scores than dot products, whose standard deviation over the items is given."""
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


def load_blends(parents: Mapping[str, Artifact], allocator: Allocator = IN_MEMORY) -> dict[str, Blend]:
    """Every domain's blend by its name; empty if vectors rank alone.

    Args:
        parents: `nodes`, `graph`, and for blends `neighbours` and one `blend-<seed>`.
        allocator: of the train graphs.
    """
    roles = [role for role in parents if Role.parse(role).contract is BLEND]
    if not roles:
        return {}
    (role,) = roles
    dataset = load_dataset(parents[NODES.name], parents[GRAPH.name], allocator)
    weights = read_weights(parents[role])
    by_domain = zip(dataset.domains, load_evidence(parents, dataset), strict=True)
    return {domain.name: Blend(weights[domain.name], evidence) for domain, evidence in by_domain}
