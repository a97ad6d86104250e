"""Positives, negatives and their order: what each training step of a domain looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from data_contracts.contracts import TRAIN
from data_contracts.seeding import draw_key, generator
from data_contracts.settings import Protocol
from data_contracts.train_settings import TrainSettings
from model.data.dataset import Domain, Rows
from model.data.sampling_kernels import draw_negatives, share_negatives
from model.sparse.batch_scores import Pairing, pairing_of
from model.sparse.kernels import number_distinct
from model.sparse.rows import Ints, Longs

BATCHES = 32
"""Batches of an epoch, and one more at most for each domain, where their size is left open."""


@dataclass(frozen=True)
class Positives:
    """A domain's train interactions and what may not be drawn as their negatives.

    Attributes:
        domain: the domain's name.
        users: int32, nodes of the users.
        items: int32, numbers among the domain's items.
        offset: node of item 0.
        offered: items of the domain.
        indptr, known: int64 (offset + 1) and int32, ascending items that are no negatives of each user.
    """

    domain: str
    users: Ints
    items: Ints
    offset: int
    offered: int
    indptr: Longs
    known: Ints


class Batching(NamedTuple):
    """Triples of a batch, at most; negatives that each is compared with; domains in random order or one by one."""

    triples: int
    negatives: int
    mixed: bool = False

    @classmethod
    def of(cls, settings: TrainSettings, positives: Sequence[Positives]) -> Self:
        """As set; batches of a size that is left open have an equal share of all domains' positives."""
        share = -(-sum(of.users.size for of in positives) // BATCHES)
        size = max(1, share) if settings.batch_size == "auto" else settings.batch_size
        return cls(size, settings.negatives, settings.order == "mixed")


@dataclass(frozen=True)
class Batch:
    """One step's triples (user, positive, negative), and the negatives that they share.

    Attributes:
        nodes: int32, the distinct nodes of the domain's graph among them, ascending.
        counts: float32 (nodes), how often each occurs in the triples.
        pairing: each triple's user with its positive, its own negative and those of other triples, among `nodes`.
    """

    nodes: Ints
    counts: Tensor
    pairing: Pairing

    @property
    def size(self) -> int:
        """Number of triples."""
        return self.pairing.rows


def positives_of(rows: Rows, domain: Domain, protocol: Protocol) -> Positives:
    """What a domain trains on.

    clean: each train pair once, negatives are items without a train interaction of the user; positives of a user who
    knows every item have no negative and are left out. released: each pair as often as the logs repeat it,
    negatives are any item [EDDA]. A domain without train rows has zero positives.
    """
    train = rows.of(TRAIN)
    if protocol == "released":
        users, items = np.repeat(train.users, train.count), np.repeat(train.items, train.count)
        indptr, known = np.zeros(domain.users + 1, np.int64), np.zeros(0, np.int32)
    else:
        indptr = domain.indptr[: domain.users + 1]
        known = domain.indices[: indptr[-1]] - np.int32(domain.users)
        has_negative = np.diff(indptr)[train.users] < domain.items
        users, items = train.users[has_negative], train.items[has_negative]
    return Positives(domain.name, users, items, domain.users, domain.items, indptr, known)


def negatives_of(positives: Positives, seed: int, epoch: int) -> Ints:
    """One uniform negative item for every positive, redrawn each epoch."""
    negatives = np.empty(positives.users.size, np.int32)
    key = draw_key(seed, "negatives", positives.domain, epoch)
    draw_negatives(positives.indptr, positives.known, positives.users, positives.offered, key, negatives)
    return negatives


def batches_of(positives: Positives, seed: int, epoch: int, batching: Batching) -> Iterator[Batch]:
    """An epoch of a domain in its own random order; nothing where the domain has no positives.

    Beyond its own negative, a positive is compared with negatives drawn for others of its batch: more comparisons
    without more nodes to propagate to.
    """
    order = generator(seed, "order", positives.domain, epoch).permutation(positives.users.size)
    negatives = negatives_of(positives, seed, epoch)
    for place, start in enumerate(range(0, order.size, batching.triples)):
        chosen = order[start : start + batching.triples]
        draws = generator(seed, "shared", positives.domain, epoch, place)
        shifts = draws.integers(0, chosen.size, batching.negatives - 1)
        yield _batch(positives, chosen, negatives[chosen], shifts)


def mixed_batches(
    positives: Sequence[Positives], seed: int, epoch: int, batching: Batching
) -> Iterator[tuple[int, int, Batch]]:
    """An epoch of all domains: (position of the domain, which of its batches, from 0, the batch)."""
    batches = [enumerate(batches_of(of, seed, epoch, batching)) for of in positives]
    turns = np.repeat(np.arange(len(batches)), [-(-of.users.size // batching.triples) for of in positives])
    if batching.mixed:
        turns = generator(seed, "turns", epoch).permutation(turns)
    for number in turns.tolist():
        place, batch = next(batches[number])
        yield number, place, batch


def _batch(positives: Positives, chosen: Longs, negatives: Ints, shifts: Longs) -> Batch:
    users, offset = positives.users[chosen], np.int32(positives.offset)
    places = np.concatenate([users, positives.items[chosen] + offset, negatives + offset])
    distinct = number_distinct(places[:0], places, positives.offset + positives.offered)
    counts = np.bincount(places, minlength=distinct.size)
    owners = np.empty((chosen.size, 1 + shifts.size), np.int32)
    share_negatives(positives.indptr, positives.known, users, negatives, shifts, owners)
    user, positive, negative = places.reshape(3, -1)
    items = np.concatenate([positive[:, None], negative[owners]], axis=1)
    return Batch(distinct, torch.from_numpy(counts.astype(np.float32)), pairing_of(user, items, distinct.size))
