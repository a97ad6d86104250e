"""Where scores come from: how much of their spread over a domain's items each part of them has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import SHARE
from data_contracts.seeding import generator
from model.data.dataset import Domain, Rows
from model.evidence.blend import Blend
from model.sparse.rows import Ints, block_height

EVIDENCE = "evidence"
"""The part of a score that comes from walks; the others are parts of the final vectors."""

_USERS = 1_000
"""Users of a domain and split whose scores are taken apart, at most."""

Floats = NDArray[np.float64]


def measured_users(rows: Rows, domain: Domain, split: str, seed: int) -> Ints:
    """Users with held-out rows of a split, ascending; of more than a thousand, so many drawn."""
    users: Ints = np.unique(rows.of(split).users)
    if users.size > _USERS:
        users = np.sort(generator(seed, "score parts", domain.name, split).choice(users, _USERS, replace=False))
    return users


def spread_shares(
    vectors: Tensor, domain: Domain, users: Ints, columns: Mapping[str, slice], blend: Blend | None
) -> dict[str, Floats]:
    """What share of a user's scores' spread each part has: standard deviations over the items, divided by their sum.

    Args:
        vectors: final vectors of the domain's nodes.
        domain: the domain.
        users: whose scores.
        columns: the columns of the vectors, by part.
        blend: adds evidence to the vectors' scores; None for vectors alone.

    Returns:
        By `share_<part>`, float64 (users whose scores differ at all), the parts of each user adding up to 1.
    """
    deviations: dict[str, list[Floats]] = {part: [] for part in (*columns, *([EVIDENCE] if blend else []))}
    height = block_height(domain.items)
    for start in range(0, users.size, height):
        block = users[start : start + height]
        of_vectors = np.ones(block.size, np.float32)
        if blend:
            histories = blend.evidence.histories_of(block)
            of_vectors, of_evidence = blend.weights.factors(histories.lengths)
            deviations[EVIDENCE].append(_deviation(blend.evidence.sum(histories)) * of_evidence)
        for part, chosen in columns.items():
            deviations[part].append(_deviation(_products(vectors[:, chosen], domain, block)) * of_vectors)
    known = {part: np.concatenate([np.empty(0), *of_part]) for part, of_part in deviations.items()}
    total = np.sum(list(known.values()), axis=0)
    return {f"{SHARE}{part}": of_part[total > 0] / total[total > 0] for part, of_part in known.items()}


def _products(vectors: Tensor, domain: Domain, users: Ints) -> NDArray[np.float32]:
    chosen = torch.from_numpy(users.astype(np.int64)).to(vectors.device)
    products: NDArray[np.float32] = (vectors[chosen] @ vectors[domain.users :].T).cpu().numpy()
    return products


def _deviation(scores: NDArray[np.float32]) -> Floats:
    deviations: Floats = scores.std(axis=1, dtype=np.float64)
    return deviations
