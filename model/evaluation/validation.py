"""Validation after an epoch: what the measures of a model are, and the score that epochs are selected by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import MACRO
from model.compute.column_parallel import Columns
from model.data.candidates import HeldOut, score_candidates
from model.data.dataset import Domain
from model.evaluation.fit import AT, Curve, Scorer, ValidationUsers, blend_curve, choose, vectors_curve
from model.evaluation.metrics import candidate_statistics
from model.evidence.domain_evidence import DomainEvidence
from model.sparse.rows import Ints

NDCG = f"full_ndcg@{AT}"
SHARE = "evidence share"
"""Of the blend that an epoch was scored by."""

_HALF_TRUSTED_ROWS = 1000
"""Held-out rows with which a domain counts half as much as a large one when epochs are selected."""

DomainMeasure = tuple[str, str, float]
"""Domain, metric, value."""


@dataclass(frozen=True)
class DomainValidation:
    """What one domain's vectors are validated on.

    Attributes:
        domain: the domain.
        candidates: its held-out validation rows with their candidates.
        users: whose items are ranked among all items; None where epochs are selected by AUC.
        evidence: what the ranking blends the vectors' scores with; None for vectors alone.
    """

    domain: Domain
    candidates: HeldOut
    users: ValidationUsers | None
    evidence: DomainEvidence | None

    def among_candidates(self, vectors: Tensor, recall_at: tuple[int, ...], columns: Columns) -> dict[str, float]:
        """auc and recall@k of vectors, of which this process holds columns; empty without rows."""
        scores = score_candidates(self.candidates, vectors, self.domain.users, columns)
        weights = np.ones(self.candidates.users.size)
        return {name: of(weights) for name, of in candidate_statistics(*scores, recall_at).items()}

    def curve(self, vectors: Tensor, columns: Columns) -> Curve | None:
        """NDCG@20 of every blend of these vectors that is tried; None where nothing is ranked among all items."""
        if self.users is None:
            return None
        score = vector_scorer(vectors, self.domain, columns)
        if self.evidence is None:
            return vectors_curve(self.users, score, self.domain.items)
        return blend_curve(self.users, score, self.evidence)


def vector_scorer(vectors: Tensor, domain: Domain, columns: Columns) -> Scorer:
    """Dot products of users with all items of a domain, in memory, summed over the processes that hold columns."""
    items = vectors[domain.users :].T

    def score(users: Ints) -> NDArray[np.float32]:
        chosen = torch.from_numpy(users.astype(np.int64)).to(vectors.device)
        return columns.total(vectors[chosen] @ items).cpu().numpy()

    return score


def validate(
    domains: Sequence[DomainValidation],
    vectors: Iterable[Tensor],
    recall_at: tuple[int, ...],
    columns: Columns,
) -> tuple[list[DomainMeasure], float | None]:
    """Measures of each domain and their mean, and the score that epochs are selected by.

    The score is the mean of the domains' NDCG@20 of the served score, or AUC where that is not measured, each weighed
    by rows / (rows + 1000): where a domain has so few held-out rows that its measure is mostly chance, chance shall not
    choose the epoch.

    Returns:
        Measures and score; None where no domain has validation rows that can be ranked.
    """
    measured: dict[str, dict[str, float]] = {}
    curves: dict[str, Curve] = {}
    for held, of_domain in zip(domains, vectors, strict=True):
        measured[held.domain.name] = held.among_candidates(of_domain, recall_at, columns)
        if curve := held.curve(of_domain, columns):
            curves[held.domain.name] = curve
    for domain, point in choose(curves).items() if curves else ():
        if curves[domain].users:
            share = {SHARE: point.share} if len(curves[domain].points) > 1 else {}
            measured[domain] |= {NDCG: point.ndcg, **share}
    return _with_score(measured, domains, NDCG if curves else "auc")


def _with_score(
    measured: Mapping[str, Mapping[str, float]], domains: Sequence[DomainValidation], selected: str
) -> tuple[list[DomainMeasure], float | None]:
    measures = [(domain, metric, value) for domain, values in measured.items() for metric, value in values.items()]
    by_metric: dict[str, list[float]] = {}
    for _, metric, value in measures:
        by_metric.setdefault(metric, []).append(value)
    measures += [(MACRO, metric, math.fsum(values) / len(values)) for metric, values in by_metric.items()]
    if selected not in by_metric:
        return measures, None
    rows = [held.candidates.users.size for held in domains if selected in measured[held.domain.name]]
    score = float(np.average(by_metric[selected], weights=[size / (size + _HALF_TRUSTED_ROWS) for size in rows]))
    return [*measures, (MACRO, "score", score)], score
