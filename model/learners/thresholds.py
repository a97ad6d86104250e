"""The thresholds of SL@K: each user's K-th best score, estimated every few epochs from positives and sampled items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from data_contracts.seeding import generator
from model.compute.column_parallel import ColumnParallel
from model.compute.threads import torch_threads
from model.data.batches import Positives
from model.sparse.rows import Floats32, Longs, block_height

K = 20
"""The rank at which lists are cut, as in the score that selects epochs."""
_EPOCHS = 5
"""Epochs between two estimates."""
_SAMPLED_ITEMS = 1000
"""Items of a domain, at most, among which users' best are looked for."""


def are_due(epoch: int) -> bool:
    """Whether thresholds are estimated before an epoch, counted from 1."""
    return (epoch - 1) % _EPOCHS == 0


def estimate_thresholds(
    domains: Sequence[Positives], vectors: Iterable[Tensor], seed: int, epoch: int, processes: ColumnParallel
) -> list[Tensor]:
    """Each domain's thresholds, float32 (users).

    As in the authors' code, a threshold is the K-th best score among the user's positives and items that were drawn;
    -inf if there are less than K.

    Args:
        domains: their positives.
        vectors: final vectors of each domain, this process's columns.
        seed, epoch: of the draws.
        processes: the processes that hold the columns.
    """
    thresholds = []
    for positives, domain_vectors in zip(domains, vectors, strict=True):
        items = generator(seed, "thresholds", positives.domain, epoch).permutation(positives.offered)
        sampled = np.sort(items[:_SAMPLED_ITEMS])
        with torch_threads(1):  # BLAS may add up in another order on several
            kept = _estimate(positives, domain_vectors, sampled, processes)
        thresholds.append(torch.from_numpy(kept).to(domain_vectors.device))
    return thresholds


def _estimate(positives: Positives, vectors: Tensor, sampled: Longs, processes: ColumnParallel) -> Floats32:
    order = np.argsort(positives.users, kind="stable")
    users, items = positives.users[order].astype(np.int64), positives.items[order].astype(np.int64)
    users_vectors, item_vectors = vectors[: positives.offset], vectors[positives.offset :]
    sampled_vectors = item_vectors[torch.from_numpy(sampled).to(vectors.device)]
    slots = np.minimum(np.searchsorted(sampled, items), sampled.size - 1)
    kept = np.empty(positives.offset, np.float32)
    height = block_height(sampled.size)
    for start in range(0, positives.offset, height):
        stop = min(start + height, positives.offset)
        scores = processes.all_reduce(users_vectors[start:stop] @ sampled_vectors.T).cpu().numpy()
        rows = slice(*np.searchsorted(users, [start, stop]))
        chosen = [torch.from_numpy(numbers[rows]).to(vectors.device) for numbers in (users, items)]
        of_positives = (users_vectors[chosen[0]] * item_vectors[chosen[1]]).sum(dim=1)
        best = processes.all_reduce(of_positives).cpu().numpy()
        is_sampled = sampled[slots[rows]] == items[rows]
        scores[users[rows][is_sampled] - start, slots[rows][is_sampled]] = -np.inf  # they count as positives
        kept[start:stop] = _kth_best(scores, users[rows] - start, best)
    return kept


def _kth_best(scores: Floats32, rows: Longs, further: Floats32) -> Floats32:
    """The K-th best of each row's scores (rows, n) and of further ones, of which `rows`, ascending, are the rows."""
    height, width = scores.shape
    counts = np.bincount(rows, minlength=height)
    padded = np.full((height, max(width, K) + int(counts.max(initial=0))), -np.inf, np.float32)
    padded[:, :width] = scores
    firsts = np.cumsum(counts) - counts
    padded[rows, max(width, K) + np.arange(rows.size) - firsts[rows]] = further
    best: Floats32 = np.partition(padded, padded.shape[1] - K, axis=1)[:, padded.shape[1] - K]
    return best
