"""Positives, negatives and their order: the batches that training steps learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from data_contracts.contracts import TRAIN
from data_contracts.seeding import draw_key, generator
from data_contracts.settings.base import Protocol
from data_contracts.settings.train import TrainSettings
from model.data.dataset import DomainData, Interactions
from model.data.sampling_kernels import draw_negatives, mark_known, share_negatives
from model.sparse.batch_scores import ScorePattern, score_pattern
from model.sparse.group_scores import GroupPattern, group_pattern, group_windows
from model.sparse.kernels import renumber
from model.sparse.rows import Ints, Longs

BATCHES = 32
"""Batches of an epoch where their size is "auto"; rounding adds one at most for each domain."""


@dataclass(frozen=True)
class Positives:
    """A domain's train interactions, and the items that may not be drawn as their negatives.

    Attributes:
        domain: the domain's name.
        users: int32, nodes of the users.
        items: int32, numbers among the domain's items.
        offset: node of item 0.
        offered: number of items of the domain.
        indptr, known: int64 (offset + 1) and int32, for each user the items that are no negatives, ascending.
    """

    domain: str
    users: Ints
    items: Ints
    offset: int
    offered: int
    indptr: Longs
    known: Ints


class Batching(NamedTuple):
    """How an epoch is cut into batches.

    Attributes:
        triples: in a batch, at most.
        negatives: that each positive is compared with.
        mixed: the batches of all domains come in random order, not domain after domain.
        grouped: as many neighbouring positives as there are negatives share these; else each positive has others.
    """

    triples: int
    negatives: int
    mixed: bool = False
    grouped: bool = False

    @classmethod
    def from_settings(cls, settings: TrainSettings, positives: Sequence[Positives]) -> Self:
        """The settings' batching; the batch size "auto" is an equal share of all domains' positives."""
        share = -(-sum(of_domain.users.size for of_domain in positives) // BATCHES)
        size = max(1, share) if settings.batch_size == "auto" else settings.batch_size
        return cls(size, settings.negatives, settings.order == "mixed", settings.shares_negatives)


@dataclass(frozen=True)
class Batch:
    """The triples (user, positive, negative) of one step, and the negatives that they share.

    Attributes:
        nodes: int32, the distinct nodes of the domain's graph in the triples, ascending.
        counts: float32 (nodes), how often each occurs in the triples.
        pattern: scores each triple's user with its positive, its own negative and those of other triples.
    """

    nodes: Ints
    counts: Tensor
    pattern: ScorePattern | GroupPattern

    @property
    def size(self) -> int:
        """Number of triples."""
        return self.pattern.rows


def build_positives(interactions: Interactions, domain: DomainData, protocol: Protocol) -> Positives:
    """The positives that a domain trains on.

    clean: each train pair once, negatives are items without a train interaction of the user; positives of a user who
    knows every item have no negative and are left out. released: each pair as often as the logs repeat it,
    negatives are any item [EDDA]. A domain without train interactions has zero positives.
    """
    train = interactions.for_split(TRAIN)
    if protocol == "released":
        users, items = np.repeat(train.users, train.count), np.repeat(train.items, train.count)
        indptr, known = np.zeros(domain.users + 1, np.int64), np.zeros(0, np.int32)
    else:
        indptr = domain.indptr[: domain.users + 1]
        known = domain.indices[: indptr[-1]] - np.int32(domain.users)
        has_negative = np.diff(indptr)[train.users] < domain.items
        users, items = train.users[has_negative], train.items[has_negative]
    return Positives(domain.name, users, items, domain.users, domain.items, indptr, known)


def sample_negatives(positives: Positives, seed: int, epoch: int) -> Ints:
    """One uniform negative item for every positive, drawn anew in each epoch."""
    negatives = np.empty(positives.users.size, np.int32)
    key = draw_key(seed, "negatives", positives.domain, epoch)
    draw_negatives(positives.indptr, positives.known, positives.users, positives.offered, key, negatives)
    return negatives


def build_batches(positives: Positives, seed: int, epoch: int, batching: Batching) -> Iterator[Batch]:
    """An epoch of one domain in random order; no batch if the domain has no positives.

    Beyond its own negative, a positive is compared with negatives drawn for others of its batch: more comparisons
    without more nodes to propagate to.
    """
    order = generator(seed, "order", positives.domain, epoch).permutation(positives.users.size)
    negatives = sample_negatives(positives, seed, epoch)
    for number, start in enumerate(range(0, order.size, batching.triples)):
        chosen = order[start : start + batching.triples]
        if batching.grouped:
            yield _build_grouped_batch(positives, chosen, negatives[chosen], batching.negatives)
            continue
        draws = generator(seed, "shared", positives.domain, epoch, number)
        shifts = draws.integers(0, chosen.size, batching.negatives - 1)
        yield _build_batch(positives, chosen, negatives[chosen], shifts)


def mixed_batches(
    positives: Sequence[Positives], seed: int, epoch: int, batching: Batching
) -> Iterator[tuple[int, int, Batch]]:
    """An epoch of all domains: (index of the domain, number of the batch in its domain from 0, the batch)."""
    batches = [enumerate(build_batches(of_domain, seed, epoch, batching)) for of_domain in positives]
    counts = [-(-of_domain.users.size // batching.triples) for of_domain in positives]
    turns = np.repeat(np.arange(len(batches)), counts)
    if batching.mixed:
        turns = generator(seed, "turns", epoch).permutation(turns)
    for index in turns.tolist():
        number, batch = next(batches[index])
        yield index, number, batch


def _build_batch(positives: Positives, chosen: Longs, negatives: Ints, shifts: Longs) -> Batch:
    nodes, counts, positions = _number_nodes(positives, chosen, negatives)
    owners = np.empty((chosen.size, 1 + shifts.size), np.int32)
    share_negatives(positives.indptr, positives.known, positives.users[chosen], negatives, shifts, owners)
    user, positive, negative = positions
    items = np.concatenate([positive[:, None], negative[owners]], axis=1)
    return Batch(nodes, counts, score_pattern(user, items, nodes.size))


def _build_grouped_batch(positives: Positives, chosen: Longs, negatives: Ints, size: int) -> Batch:
    nodes, counts, positions = _number_nodes(positives, chosen, negatives)
    users, starts = positives.users[chosen], np.empty(chosen.size, np.int64)
    for rows, window in group_windows(chosen.size, size):
        starts[rows] = window.start
    known = np.zeros((chosen.size, min(size, chosen.size)), np.bool_)
    mark_known(positives.indptr, positives.known, users, negatives, starts, known)
    return Batch(nodes, counts, group_pattern(positions, nodes.size, users, known))


def _number_nodes(positives: Positives, chosen: Longs, negatives: Ints) -> tuple[Ints, Tensor, Ints]:
    """The distinct nodes of triples, how often each occurs, and positions among them (3, triples)."""
    offset = np.int32(positives.offset)
    nodes = np.concatenate([positives.users[chosen], positives.items[chosen] + offset, negatives + offset])
    distinct = renumber(nodes[:0], nodes, positives.offset + positives.offered)
    counts = np.bincount(nodes, minlength=distinct.size)
    return distinct, torch.from_numpy(counts.astype(np.float32)), nodes.reshape(3, -1)
