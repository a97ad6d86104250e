"""Full ranking: all items of a domain for one block of users after another, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_contracts.contracts import TEST
from model.compute.ranking_kernels import count_at_least
from model.data.candidates import known_items
from model.data.dataset import Domain, Rows
from model.evidence.blend import Blend
from model.sparse.rows import Floats32, Ints, block_height, pick_rows


def rank_held_out(
    vectors: Tensor, domain: Domain, part: tuple[Rows, str], candidates: Ints, blend: Blend | None = None
) -> tuple[Floats32, Ints, NDArray[np.int64]]:
    """Score every held-out item of a split with its candidates, and rank it among all items its user may be shown.

    Left out of the ranking are the user's train items, for test its validation items too; a held-out row that repeats
    one of them is left out as well. A tie ranks the item last of the tied.

    Args:
        vectors: final vectors of the domain's nodes.
        domain: the domain.
        part: all its interactions, and the held-out split.
        candidates: int32 (held-out rows, candidates), numbers of items, -1 where there is none.
        blend: adds evidence to the vectors' scores; None ranks by vectors alone.

    Returns:
        Scores (held-out rows, 1 + candidates), the item's own first, NaN where there is no candidate; user and rank,
        from 1, of each held-out row that `are_ranked`, sorted by user.
    """
    rows, split = part
    held, (indptr, masked) = rows.of(split), _masked(domain, rows, split)
    new = np.flatnonzero(_are_new(held, indptr, masked, domain))
    wanted = np.concatenate([held.items[:, None], candidates], axis=1)
    distinct, place = np.unique(held.users, return_inverse=True)
    among, ranks = np.empty(wanted.shape, np.float32), np.empty(new.size, np.int64)
    for block, scores in _scored(vectors, domain, distinct, blend):
        mine = slice(*np.searchsorted(place, [block.start, block.stop]))
        among[mine] = scores[place[mine, None] - block.start, np.maximum(wanted[mine], 0)]
        to_rank = slice(*np.searchsorted(place[new], [block.start, block.stop]))
        ranked = new[to_rank]
        masks = pick_rows(indptr, masked, distinct[block])
        count_at_least(scores, place[ranked] - block.start, held.items[ranked], *masks, ranks[to_rank])
    among[wanted < 0] = np.nan
    return among, held.users[new], ranks


def are_ranked(domain: Domain, rows: Rows, split: str) -> NDArray[np.bool_]:
    """Which held-out rows of a split `rank_held_out` ranks: those that repeat nothing that is left out."""
    return _are_new(rows.of(split), *_masked(domain, rows, split), domain)


def _are_new(held: Rows, indptr: NDArray[np.int64], masked: Ints, domain: Domain) -> NDArray[np.bool_]:
    return ~np.isin(_pairs(held.users, held.items, domain), _pairs(_owners(indptr), masked, domain))


def _masked(domain: Domain, rows: Rows, split: str) -> tuple[NDArray[np.int64], Ints]:
    return known_items(rows, domain.users, (0, 1) if split == TEST else (0,))


def _scored(vectors: Tensor, domain: Domain, users: Ints, blend: Blend | None) -> Iterator[tuple[slice, Floats32]]:
    """Blocks of `users` with their scores (block, items) of every item, which the next block overwrites."""
    items = vectors[domain.users :].T
    height = block_height(domain.items)
    buffer = torch.empty(min(height, users.size), domain.items, device=vectors.device)
    for start in range(0, users.size if domain.items else 0, height):
        block = slice(start, min(start + height, users.size))
        chosen = torch.from_numpy(users[block].astype(np.int64)).to(vectors.device)
        scores = torch.mm(vectors[chosen], items, out=buffer[: chosen.numel()]).cpu().numpy()
        if blend:
            blend.add(scores, users[block])
        yield block, scores


def _owners(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(indptr.size - 1), np.diff(indptr))


def _pairs(users: NDArray[np.integer], items: Ints, domain: Domain) -> NDArray[np.int64]:
    return users.astype(np.int64) * domain.items + items
