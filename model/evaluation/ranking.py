"""Full ranking: scores of all items of a domain, for one block of users after another, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import TEST
from model.compute.ranking_kernels import count_at_least, top_k_rows
from model.data.candidates import known_items
from model.data.dataset import DomainData, Interactions
from model.evidence.blend import Blend
from model.sparse.rows import Floats32, Ints, Longs, block_height, pick_rows

TOP = 20
"""Items of a list of recommendations."""


@dataclass(frozen=True)
class FullRanking:
    """A split's held-out rows among all items of the domain, and what their users would be recommended.

    Attributes:
        scores: float32 (held-out rows, 1 + candidates), the item's own first, NaN for missing candidates.
        is_ranked: bool (held-out rows), as in `are_ranked`.
        users, ranks: int32 and int64 (ranked rows), user and rank, from 1, sorted by user.
        lists: int32 (users with held-out rows, TOP), the items with the highest scores but for the user's train items,
            equal ones by number, padded with -1.
    """

    scores: Floats32
    is_ranked: NDArray[np.bool_]
    users: Ints
    ranks: Longs
    lists: Ints


def rank_held_out(
    vectors: Tensor,
    domain: DomainData,
    interactions: Interactions,
    split: str,
    candidates: Ints,
    blend: Blend | None = None,
) -> FullRanking:
    """Score every held-out item of a split and its candidates, and rank it among all items its user may be shown.

    The user's train items, and for test the validation items too, are left out of the ranking, and so are held-out
    interactions that repeat one of them. A tie ranks the item last of the tied. Lists leave out train items only, as
    served.

    Args:
        vectors: final vectors of the domain's nodes.
        domain: the domain.
        interactions: all of the domain's.
        split: the held-out one.
        candidates: int32 (held-out rows, candidates), numbers of items, -1 for missing ones.
        blend: adds evidence to the vectors' scores; None ranks by vectors alone.
    """
    held, (indptr, masked) = interactions.for_split(split), _masked_items(domain, interactions, split)
    train = known_items(interactions, domain.users, (0,)) if split == TEST else (indptr, masked)
    is_ranked = _are_new(held, indptr, masked, domain)
    new = np.flatnonzero(is_ranked)
    wanted = np.concatenate([held.items[:, None], candidates], axis=1)
    users, owner = np.unique(held.users, return_inverse=True)
    wanted_scores, ranks = np.empty(wanted.shape, np.float32), np.empty(new.size, np.int64)
    lists, list_scores = np.full((users.size, TOP), -1, np.int32), np.empty((users.size, TOP), np.float32)
    for block, scores in _score_blocks(vectors, domain, users, blend):
        held_of_block = slice(*np.searchsorted(owner, [block.start, block.stop]))
        block_rows = owner[held_of_block, None] - block.start
        wanted_scores[held_of_block] = scores[block_rows, np.maximum(wanted[held_of_block], 0)]
        new_of_block = slice(*np.searchsorted(owner[new], [block.start, block.stop]))
        to_rank = new[new_of_block]
        block_indptr, block_masked = pick_rows(indptr, masked, users[block])
        count_at_least(
            scores, owner[to_rank] - block.start, held.items[to_rank], block_indptr, block_masked, ranks[new_of_block]
        )
        top_k_rows(scores, *pick_rows(*train, users[block]), lists[block], list_scores[block])  # overwrites scores
    wanted_scores[wanted < 0] = np.nan
    return FullRanking(wanted_scores, is_ranked, held.users[new], ranks, lists)


def are_ranked(domain: DomainData, interactions: Interactions, split: str) -> NDArray[np.bool_]:
    """Which held-out rows of a split `rank_held_out` ranks: those that repeat no masked item."""
    return _are_new(interactions.for_split(split), *_masked_items(domain, interactions, split), domain)


def _are_new(held: Interactions, indptr: NDArray[np.int64], masked: Ints, domain: DomainData) -> NDArray[np.bool_]:
    owners = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    return ~np.isin(_pair_codes(held.users, held.items, domain), _pair_codes(owners, masked, domain))


def _masked_items(domain: DomainData, interactions: Interactions, split: str) -> tuple[NDArray[np.int64], Ints]:
    return known_items(interactions, domain.users, (0, 1) if split == TEST else (0,))


def _score_blocks(
    vectors: Tensor, domain: DomainData, users: Ints, blend: Blend | None
) -> Iterator[tuple[slice, Floats32]]:
    """Blocks of `users` and their scores of every item (users of the block, items), overwritten by the next block."""
    items = vectors[domain.users :].T
    height = block_height(domain.items)
    buffer = torch.empty(min(height, users.size), domain.items, device=vectors.device)
    for start in range(0, users.size if domain.items else 0, height):
        block = slice(start, min(start + height, users.size))
        chosen = torch.from_numpy(users[block].astype(np.int64)).to(vectors.device)
        scores = torch.mm(vectors[chosen], items, out=buffer[: chosen.numel()]).cpu().numpy()
        if blend:
            blend.apply(scores, blend.evidence.user_histories(users[block]))
        yield block, scores


def _pair_codes(users: NDArray[np.integer], items: Ints, domain: DomainData) -> NDArray[np.int64]:
    return users.astype(np.int64) * domain.items + items
