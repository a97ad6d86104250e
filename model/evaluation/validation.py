"""Validation after an epoch: the metrics of a model, and the score that epochs are selected by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import MACRO
from model.compute.column_parallel import ColumnParallel
from model.data.candidates import HeldOut, score_candidates
from model.data.dataset import DomainData
from model.evaluation.fit import CUTOFF, BlendCurve, Scorer, ValidationUsers, blend_curve, choose_blends, vectors_curve
from model.evaluation.metrics import candidate_statistics
from model.evidence.domain_evidence import DomainEvidence
from model.sparse.rows import Ints

NDCG = f"full_ndcg@{CUTOFF}"
EVIDENCE_SHARE = "evidence share"
"""The metric of the blend that an epoch was scored by: its share of evidence."""

_HALF_TRUSTED_ROWS = 1000
"""Held-out rows with which a domain has half the weight of a large one when epochs are selected."""

DomainMeasure = tuple[str, str, float]
"""Domain, metric, value."""


@dataclass(frozen=True)
class DomainValidation:
    """The held-out rows, users and evidence on which one domain's vectors are validated.

    Attributes:
        domain: the domain.
        candidates: its held-out validation rows with their candidates.
        users: users whose held-out items are ranked among all items; None if epochs are selected by AUC.
        evidence: blended with the vectors' scores in that ranking; None for vectors alone.
    """

    domain: DomainData
    candidates: HeldOut
    users: ValidationUsers | None
    evidence: DomainEvidence | None

    def candidate_metrics(
        self, vectors: Tensor, recall_at: tuple[int, ...], processes: ColumnParallel
    ) -> dict[str, float]:
        """auc and recall@k of vectors (this process's columns); empty if there are no held-out rows."""
        scores = score_candidates(self.candidates, vectors, self.domain.users, processes)
        weights = np.ones(self.candidates.users.size)
        return {name: statistic(weights) for name, statistic in candidate_statistics(*scores, recall_at).items()}

    def curve(self, vectors: Tensor, processes: ColumnParallel) -> BlendCurve | None:
        """NDCG@20 of every blend of these vectors that is tried; None if epochs are selected by AUC."""
        if self.users is None:
            return None
        score = vector_scorer(vectors, self.domain, processes)
        if self.evidence is None:
            return vectors_curve(self.users, score, self.domain.items)
        return blend_curve(self.users, score, self.evidence)


def vector_scorer(vectors: Tensor, domain: DomainData, processes: ColumnParallel) -> Scorer:
    """A function that computes dot products of users with all items of a domain, summed over the processes."""
    items = vectors[domain.users :].T

    def score(users: Ints) -> NDArray[np.float32]:
        chosen = torch.from_numpy(users.astype(np.int64)).to(vectors.device)
        return processes.all_reduce(vectors[chosen] @ items).cpu().numpy()

    return score


def validate(
    domains: Sequence[DomainValidation],
    vectors: Iterable[Tensor],
    recall_at: tuple[int, ...],
    processes: ColumnParallel,
) -> tuple[list[DomainMeasure], float | None]:
    """The metrics of each domain and their means, and the score that epochs are selected by.

    The score is the mean over domains of the served score's NDCG@20, or of AUC if that is not measured, weighted by
    rows / (rows + 1000): a domain with few held-out rows has a noisy metric, which should not choose the epoch.

    Returns:
        Metrics and score; None if no domain has validation rows that can be ranked.
    """
    measured: dict[str, dict[str, float]] = {}
    curves: dict[str, BlendCurve] = {}
    for held, domain_vectors in zip(domains, vectors, strict=True):
        measured[held.domain.name] = held.candidate_metrics(domain_vectors, recall_at, processes)
        if curve := held.curve(domain_vectors, processes):
            curves[held.domain.name] = curve
    for domain, point in choose_blends(curves).items() if curves else ():
        if curves[domain].users:
            share = {EVIDENCE_SHARE: point.share} if len(curves[domain].points) > 1 else {}
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
