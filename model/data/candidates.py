"""Candidates: items that each held-out item is ranked against; the same in training, evaluation and every run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import SPLITS
from data_contracts.resources import require_memory
from data_contracts.seeding import draw_key, generator
from data_contracts.settings.ranking import EvaluateSettings
from model.compute.column_parallel import SINGLE_PROCESS, ColumnParallel
from model.data.dataset import DomainData, Interactions
from model.data.sampling_kernels import derive_row_keys, draw_candidates
from model.sparse.rows import Ints, Longs

_BLOCK = 4096
"""Held-out interactions scored at once."""
_CANDIDATE_BYTES = 8
"""A candidate's number and its score."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out interactions of one domain and split with their candidates.

    Attributes:
        users: int32 (rows), nodes of the users.
        items: int32 (rows), numbers of the items among the domain's items.
        candidates: int32 (rows, candidates), likewise, padded with -1 if the domain has too few items.
    """

    users: Ints
    items: Ints
    candidates: Ints


def build_held_out(interactions: Interactions, domain: DomainData, split: str, settings: EvaluateSettings) -> HeldOut:
    """Draw the candidates of a split: uniform without replacement, a function of seed, domain, split, user and item.

    clean: items that the user knows in no split; all of them if they are fewer than wanted.
    released: any item but the held-out one [EDDA].
    """
    held = interactions.for_split(split)
    require_memory(
        held.users.size * settings.candidates * _CANDIDATE_BYTES,
        f"{held.users.size:,} {split} rows of {domain.name} with evaluate.candidates {settings.candidates:,} each",
        "lower evaluate.candidates",
    )
    indptr, known, owners = _excluded_items(interactions, held, domain, settings)
    keys = np.empty(held.users.size, np.uint64)
    derive_row_keys(
        draw_key(settings.candidate_seed, "candidates", domain.name, split), held.union_users, held.union_items, keys
    )
    candidates = np.empty((held.users.size, settings.candidates), np.int32)
    draw_candidates(indptr, known, owners, keys, domain.items, np.zeros(domain.items, np.int64), candidates)
    return HeldOut(held.users, held.items, candidates)


def of_drawn_users(interactions: Interactions, domain: DomainData, split: str, most: int, seed: int) -> Interactions:
    """Without the split's interactions of all but `most` of its users, drawn by domain, split and seed."""
    is_held = interactions.split == SPLITS.index(split)
    users = np.unique(interactions.users[is_held])
    if users.size <= most:
        return interactions
    drawn = generator(seed, f"{split} users", domain.name).choice(users, most, replace=False)
    return interactions.take(~is_held | np.isin(interactions.users, drawn))


def score_candidates(
    held: HeldOut, vectors: Tensor, users: int, processes: ColumnParallel = SINGLE_PROCESS
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores of the held-out items (rows,) and of their candidates (rows, candidates); NaN for missing ones.

    Args:
        held: the held-out items and their candidates.
        vectors: final vectors of the domain's nodes, the columns of this process.
        users: number of users of the domain, which is the node of item 0.
        processes: the processes that hold the columns.
    """
    wanted = np.concatenate([held.items[:, None], held.candidates], axis=1)
    scores = np.empty(wanted.shape, np.float32)
    for start in range(0, wanted.shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        nodes = torch.from_numpy(np.maximum(wanted[block], 0).astype(np.int64) + users).to(vectors.device)
        user = torch.from_numpy(held.users[block].astype(np.int64)).to(vectors.device)
        dots = processes.all_reduce((vectors[nodes.T] * vectors[user]).sum(dim=2))
        scores[block] = dots.T.cpu().numpy()
    scores[wanted < 0] = np.nan
    return scores[:, 0], scores[:, 1:]


def known_items(interactions: Interactions, users: int, splits: tuple[int, ...]) -> tuple[Longs, Ints]:
    """Distinct items that each user has in any of the splits (positions in SPLITS), ascending, in compressed rows."""
    chosen = np.isin(interactions.split, splits)
    offered = int(interactions.items.max(initial=0)) + 1
    pairs = np.unique(interactions.users[chosen].astype(np.int64) * offered + interactions.items[chosen])
    counts = np.bincount(pairs // offered, minlength=users)
    return np.concatenate([[0], np.cumsum(counts)]), (pairs % offered).astype(np.int32)


def _excluded_items(
    interactions: Interactions, held: Interactions, domain: DomainData, settings: EvaluateSettings
) -> tuple[Longs, Ints, Longs]:
    """Items that are no candidates, in compressed rows, and for each held-out interaction its row of these."""
    if settings.protocol == "released":
        numbers = np.arange(held.items.size + 1)
        return numbers, held.items, numbers[:-1]
    indptr, known = known_items(interactions, domain.users, (0, 1, 2))
    return indptr, known, held.users.astype(np.int64)
