"""Splits: which of a domain's interactions are for training, validation and test.

Every function sees all distinct (user, item) pairs of some of a domain's users, sorted by user, then item, and gives
each an index into SPLITS. Nothing depends on the order of raw rows, on other users or domains, or on threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.contracts import SPLITS, TEST, TRAIN, VALID
from data_contracts.settings import SplitSettings
from pipeline.ingest.hashing import Words, _mixed, hashed

TRAIN_CODE, VALID_CODE, TEST_CODE = (SPLITS.index(split) for split in (TRAIN, VALID, TEST))

Codes = npt.NDArray[np.int8]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_LAST = np.uint64(1 << 63)


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs of some of a domain's users, sorted by user, then item.

    Attributes:
        domain: its name.
        user, item: ranks among `user_ids` and `item_ids`.
        place: the item ids' places in the byte order of UTF-8.
        timestamp: earliest time of the pair; only read by the methods that need it.
        trained: whether the pair was trained on before; only a random split looks at it, and keeps it in training.
        user_ids, item_ids: distinct ids, these pairs' and maybe others.
    """

    domain: str
    user: Numbers
    item: Numbers
    place: Numbers
    timestamp: Numbers
    trained: Mask
    user_ids: pa.StringArray
    item_ids: pa.StringArray


def assign_splits(pairs: Pairs, settings: SplitSettings) -> Codes:
    """The split of every pair, as an index into SPLITS; empty for no pairs."""
    if settings.method == "random":
        return random_split(pairs, settings)
    if settings.method == "time":
        return time_split(pairs, settings)
    return leave_last_out(pairs)


def random_split(pairs: Pairs, settings: SplitSettings) -> Codes:
    """A share of each user's pairs for test, another for validation, in the order of a draw per pair.

    With n pairs, ⌊n·test_share + ½⌋ are for test and ⌊n·(test_share + valid_share) + ½⌋ for test and validation
    together, but at least one stays for training. The draw is a hash of (seed, domain, user id, item id); pairs that
    draw the same are ordered by item id. Pairs trained on before come behind all others and stay for training.
    """
    draws = _draws(pairs, settings.seed)
    draws = np.where(pairs.trained, draws | _LAST, draws >> np.uint64(1)) if pairs.trained.any() else draws
    order = in_order_of_draws(pairs.user, draws, pairs.place)
    position, size = _places(pairs.user)  # the order leaves every user's rows where they are
    held_out = np.minimum(_rounded(size, settings.test_share + settings.valid_share), size - 1)
    test = np.minimum(_rounded(size, settings.test_share), held_out)
    codes = np.where(position < test, TEST_CODE, np.where(position < held_out, VALID_CODE, TRAIN_CODE))
    return _back(np.where(pairs.trained[order], TRAIN_CODE, codes), order)


def time_split(pairs: Pairs, settings: SplitSettings) -> Codes:
    """Test from `test_from` on, validation from `valid_from` on, training before."""
    assert settings.valid_from is not None
    assert settings.test_from is not None
    held_out = np.where(pairs.timestamp >= settings.valid_from, VALID_CODE, TRAIN_CODE)
    return np.where(pairs.timestamp >= settings.test_from, TEST_CODE, held_out).astype(np.int8)


def leave_last_out(pairs: Pairs) -> Codes:
    """A user's last pair for test, the last but one for validation; a user with fewer than three keeps all in train.

    Of pairs at the same time the one with the larger item id is later.
    """
    order = np.lexsort((pairs.place, pairs.timestamp, pairs.user))
    position, size = _places(pairs.user[order])
    from_end = np.where(size >= 3, size - 1 - position, -1)
    codes = np.where(from_end == 0, TEST_CODE, np.where(from_end == 1, VALID_CODE, TRAIN_CODE))
    return _back(codes, order)


def in_order_of_draws(user: Numbers, draw: Words, item: Numbers) -> Numbers:
    """Rows by user, draw and item, where they are sorted by user.

    One sort of words that hold the user's position and the leading bits of the draw; only where two such words are
    equal, which is rare, the three keys are sorted by.
    """
    position = np.cumsum(np.diff(user, prepend=user[:1]) != 0)
    bits = max(int(position[-1]).bit_length(), 1) if len(position) else 1
    word = (position.astype(np.uint64) << np.uint64(64 - bits)) | (draw >> np.uint64(bits))
    order: Numbers = np.argsort(word)
    if (np.diff(word[order]) == 0).any():
        order = np.lexsort((item, draw, user))
    return order


def _places(user: Numbers) -> tuple[Numbers, Numbers]:
    """Of each row of sorted users: its position among the user's rows, and how many there are."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    sizes = np.diff(starts, append=len(user))
    return np.arange(len(user)) - np.repeat(starts, sizes), np.repeat(sizes, sizes)


def _rounded(size: Numbers, share: float) -> Numbers:
    """size · share, halves up; the small addend lets products such as 5 · 0.3 round as written."""
    rounded: Numbers = np.floor(size * share + 0.5 + 1e-9).astype(np.int64)
    return rounded


def _back(codes: npt.NDArray[np.int64], order: Numbers) -> Codes:
    original = np.empty(len(order), np.int8)
    original[order] = codes
    return original


def _draws(pairs: Pairs, seed: int) -> Words:
    """One 64-bit word per pair, a function of seed, domain, user id and item id alone."""
    user_key, item_key = (_key(f"{seed}/{kind}/{pairs.domain}") for kind in ("user", "item"))
    starts = np.flatnonzero(np.diff(pairs.user, prepend=-1))
    user_words = hashed(pairs.user_ids.take(pa.array(pairs.user[starts])), user_key)
    users = np.repeat(user_words, np.diff(starts, append=len(pairs.user)))
    occurs = np.zeros(len(pairs.item_ids), dtype=bool)
    occurs[pairs.item] = True
    items = np.flatnonzero(occurs)
    place = np.empty(len(occurs), np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    item_words = _mixed(hashed(pairs.item_ids.take(pa.array(items)), item_key))
    return _mixed(users + item_words.take(place.take(pairs.item)))


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
