"""Shares of the parts of a score (tables, evidence) in the spread of scores over a domain's items."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import SHARE
from data_contracts.seeding import generator
from model.data.dataset import DomainData, Interactions
from model.evidence.blend import Blend
from model.sparse.rows import Ints, block_height

EVIDENCE = "evidence"
"""The part of a score that comes from walks; the other parts are columns of the final vectors."""

_USERS = 1_000
"""Users of a domain and split, at most, whose scores are decomposed."""

Floats = NDArray[np.float64]


def measured_users(interactions: Interactions, domain: DomainData, split: str, seed: int) -> Ints:
    """Users with held-out rows of a split, ascending; a thousand of them drawn if there are more."""
    users: Ints = np.unique(interactions.for_split(split).users)
    if users.size > _USERS:
        users = np.sort(generator(seed, "score parts", domain.name, split).choice(users, _USERS, replace=False))
    return users


def spread_shares(
    vectors: Tensor, domain: DomainData, users: Ints, columns: Mapping[str, slice], blend: Blend | None
) -> dict[str, Floats]:
    """Each part's share of the spread of a user's scores: standard deviations over the items, divided by their sum.

    Args:
        vectors: final vectors of the domain's nodes.
        domain: the domain.
        users: numbers of users.
        columns: the columns of the vectors, by part.
        blend: adds evidence to the vectors' scores; None for vectors alone.

    Returns:
        By `share_<part>`, float64 (users whose scores are not all equal); the parts of each user add up to 1.
    """
    deviations: dict[str, list[Floats]] = {part: [] for part in (*columns, *([EVIDENCE] if blend else []))}
    height = block_height(domain.items)
    for start in range(0, users.size, height):
        block = users[start : start + height]
        vector_factors = np.ones(block.size, np.float32)
        if blend:
            histories = blend.evidence.user_histories(block)
            vector_factors, evidence_factors = blend.weights.factors(histories.lengths)
            deviations[EVIDENCE].append(_deviations(blend.evidence.sum(histories)) * evidence_factors)
        for part, part_columns in columns.items():
            chosen = torch.from_numpy(block.astype(np.int64)).to(vectors.device)
            part_vectors = vectors[:, part_columns]
            dots = (part_vectors[chosen] @ part_vectors[domain.users :].T).cpu().numpy()
            deviations[part].append(_deviations(dots) * vector_factors)
    joined = {part: np.concatenate([np.empty(0), *blocks]) for part, blocks in deviations.items()}
    total = np.sum(list(joined.values()), axis=0)
    return {f"{SHARE}{part}": of_part[total > 0] / total[total > 0] for part, of_part in joined.items()}


def _deviations(scores: NDArray[np.float32]) -> Floats:
    deviations: Floats = scores.std(axis=1, dtype=np.float64)
    return deviations
