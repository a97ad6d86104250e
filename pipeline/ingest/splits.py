"""Splits of one domain's interactions into training, validation and test.

Every function takes all distinct (user, item) pairs of some of a domain's users, sorted by user, then item, and gives
each an index into SPLITS. The result does not depend on the order of raw rows, on other users or domains, or threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_contracts.contracts import SPLITS, TEST, TRAIN, VALID
from data_contracts.settings.cut_offs import parse_duration, parse_moment
from data_contracts.settings.ingest import IngestSettings, SplitSettings
from pipeline.compute.dtypes import Longs, Mask
from pipeline.compute.hashing import Words, hash_strings, mix_words
from pipeline.logs.discovery import LogError

log = logging.getLogger(__name__)

TRAIN_CODE, VALID_CODE, TEST_CODE = (SPLITS.index(split) for split in (TRAIN, VALID, TEST))

Codes = npt.NDArray[np.int8]

_LAST = np.uint64(1 << 63)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SINCE_1970 = 10**8
"""Seconds from 1970 to 1973: smaller times may count from anything."""


@dataclass(frozen=True)
class PairsOfUsers:
    """Distinct pairs of some of a domain's users, sorted by user, then item.

    Attributes:
        domain: its name.
        user, item: ranks among `user_ids` and `item_ids`.
        byte_rank: ranks of the item ids in the byte order of UTF-8.
        timestamp: earliest time of the pair; read only by the methods that need it.
        is_trained: whether the pair was trained on before; a random split keeps it in training.
        user_ids, item_ids: distinct ids, of these pairs and possibly of others.
    """

    domain: str
    user: Longs
    item: Longs
    byte_rank: Longs
    timestamp: Longs
    is_trained: Mask
    user_ids: pa.StringArray
    item_ids: pa.StringArray


def with_resolved_cut_offs(settings: IngestSettings, times: Sequence[tuple[int, int]]) -> IngestSettings:
    """Settings with cut-offs in the unit of the logs, which some times should lie before.

    Args:
        settings: with method time.
        times: earliest and latest times of parts of the logs; without any, settings stay as they are.

    Raises:
        LogError: no time lies before the cut-offs; or as `resolve_cut_offs`.
    """
    if not times:
        return settings
    earliest, latest = min(first for first, _ in times), max(last for _, last in times)
    split = resolve_cut_offs(settings.split, earliest, latest)
    assert isinstance(split.valid_from, int)
    if earliest >= split.valid_from and settings.kept_share_at_least > 0:
        raise LogError(
            f"all times of the logs, {earliest} to {latest}, are from ingest.split.valid_from "
            f"({settings.split.valid_from}) on, so that nothing is left to train on; is its unit that of the logs? A "
            "date such as 2026-11-15 fits every unit"
        )
    if latest < split.valid_from:
        log.warning(
            "all times of the logs, %s to %s, are before ingest.split.valid_from (%s): nothing is held out",
            *(earliest, latest, settings.split.valid_from),
        )
    return settings.model_copy(update={"split": split})


def resolve_cut_offs(settings: SplitSettings, earliest: int, latest: int) -> SplitSettings:
    """Settings of method time with cut-offs in the unit of the log.

    Args:
        settings: cut-offs may be dates, or durations before the log's last time.
        earliest: time of the log.
        latest: time of the log. Dates and durations need times since 1970: seconds have 9 or 10 digits, milliseconds
            12 or 13, and so on.

    Raises:
        LogError: the times are not since 1970 where they have to be, or valid_from is later than test_from.
    """
    cut_offs = {"valid_from": settings.valid_from, "test_from": settings.test_from}
    units = (ticks for ticks in (1, 10**3, 10**6, 10**9) if 1 <= latest // (_SINCE_1970 * ticks) < 1000)
    ticks_per_second = next(units, 0)
    for name, value in cut_offs.items():
        if isinstance(value, str):
            if not ticks_per_second:
                raise LogError(
                    f"ingest.split.{name} is {value!r}, but the times of the logs, {earliest} to {latest}, do not "
                    "count from 1970 in seconds, milliseconds, microseconds or nanoseconds; give a number in their unit"
                )
            duration = parse_duration(value)
            since_1970 = parse_moment(value) - _EPOCH if duration is None else duration
            ticks = since_1970 // timedelta(microseconds=1) * ticks_per_second // 10**6
            cut_offs[name] = ticks if duration is None else latest - ticks
    resolved = settings.model_copy(update=cut_offs)
    assert isinstance(resolved.valid_from, int)
    assert isinstance(resolved.test_from, int)
    if resolved.valid_from > resolved.test_from:
        raise LogError(
            f"ingest.split.valid_from is {settings.valid_from!r}, must be ≤ test_from ({settings.test_from!r}); in the "
            f"logs' unit these are {resolved.valid_from} and {resolved.test_from}"
        )
    return resolved


def assign_splits(pairs: PairsOfUsers, settings: SplitSettings) -> Codes:
    """The split of every pair, as an index into SPLITS; empty for no pairs."""
    if settings.method == "random":
        return random_split(pairs, settings)
    if settings.method == "time":
        return time_split(pairs, settings)
    return leave_last_out(pairs, settings.seed)


def random_split(pairs: PairsOfUsers, settings: SplitSettings) -> Codes:
    """A share of each user's pairs for test, another for validation, in the order of a draw per pair.

    With n pairs, ⌊n·test_share + ½⌋ are for test and ⌊n·(test_share + valid_share) + ½⌋ for test and validation
    together, but at least one stays for training. The draw is a hash of (seed, domain, user id, item id); pairs that
    draw the same are ordered by item id. Pairs trained on before come behind all others and stay in training.
    """
    draws = _draws(pairs, settings.seed, pairs.domain)
    draws = np.where(pairs.is_trained, draws | _LAST, draws >> np.uint64(1)) if pairs.is_trained.any() else draws
    order = order_by_draws(pairs.user, draws, pairs.byte_rank)
    position, size = _positions(pairs.user)  # each user's rows stay together
    held_out = np.minimum(_rounded(size, settings.test_share + settings.valid_share), size - 1)
    test = np.minimum(_rounded(size, settings.test_share), held_out)
    codes = np.where(position < test, TEST_CODE, np.where(position < held_out, VALID_CODE, TRAIN_CODE))
    return _in_original_order(np.where(pairs.is_trained[order], TRAIN_CODE, codes), order)


def time_split(pairs: PairsOfUsers, settings: SplitSettings) -> Codes:
    """Test from `test_from` on, validation from `valid_from` on, training before."""
    assert isinstance(settings.valid_from, int)
    assert isinstance(settings.test_from, int)
    held_out = np.where(pairs.timestamp >= settings.valid_from, VALID_CODE, TRAIN_CODE)
    return np.where(pairs.timestamp >= settings.test_from, TEST_CODE, held_out).astype(np.int8)


def leave_last_out(pairs: PairsOfUsers, seed: int) -> Codes:
    """A user's last pair for test, the last but one for validation; a user with fewer than three keeps all in train.

    Pairs at the same time are in the order of a draw, a hash of (seed, user id, item id): by item id, the test split
    would be the end of the alphabet. The draw is the same in all domains, because a pair is held out where all agree.
    """
    order = np.lexsort((pairs.timestamp, pairs.user))
    is_same = (np.diff(pairs.user[order]) == 0) & (np.diff(pairs.timestamp[order]) == 0)
    is_tied = np.append(is_same, False) | np.append(False, is_same) if len(order) else np.zeros(0, dtype=bool)
    if is_tied.any():
        order[is_tied] = _order_ties(pairs, order[is_tied], seed)
    position, size = _positions(pairs.user[order])
    from_end = np.where(size >= 3, size - 1 - position, -1)
    codes = np.where(from_end == 0, TEST_CODE, np.where(from_end == 1, VALID_CODE, TRAIN_CODE))
    return _in_original_order(codes, order)


def _order_ties(pairs: PairsOfUsers, rows: Longs, seed: int) -> Longs:
    """Rows of equal times, which are sorted by user and time, in the order of draws."""
    names = ("user", "item", "byte_rank", "timestamp", "is_trained")
    tied = replace(pairs, **{name: getattr(pairs, name)[rows] for name in names})
    draws = _draws(tied, seed, "")
    ordered: Longs = rows[np.lexsort((tied.byte_rank, draws, tied.timestamp, tied.user))]
    return ordered


def order_by_draws(user: Longs, draw: Words, item: Longs) -> Longs:
    """The order of rows by user, draw and item; the rows are sorted by user.

    One sort of words that hold the user's position and the leading bits of the draw; only where two such words are
    equal, which is rare, the rows are sorted by all three keys.
    """
    position = np.cumsum(np.diff(user, prepend=user[:1]) != 0)
    bits = max(int(position[-1]).bit_length(), 1) if len(position) else 1
    word = (position.astype(np.uint64) << np.uint64(64 - bits)) | (draw >> np.uint64(bits))
    order: Longs = np.argsort(word)
    if (np.diff(word[order]) == 0).any():
        order = np.lexsort((item, draw, user))
    return order


def _positions(user: Longs) -> tuple[Longs, Longs]:
    """Of each row of sorted users: its position among the user's rows, and the number of these."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    sizes = np.diff(starts, append=len(user))
    return np.arange(len(user)) - np.repeat(starts, sizes), np.repeat(sizes, sizes)


def _rounded(size: Longs, share: float) -> Longs:
    """size · share, halves rounded up; the small addend makes products such as 5 · 0.3 round as their decimals do."""
    rounded: Longs = np.floor(size * share + 0.5 + 1e-9).astype(np.int64)
    return rounded


def _in_original_order(codes: npt.NDArray[np.int64], order: Longs) -> Codes:
    original = np.empty(len(order), np.int8)
    original[order] = codes
    return original


def _draws(pairs: PairsOfUsers, seed: int, domain: str) -> Words:
    """One 64-bit word per pair, a function of seed, domain, user id and item id alone."""
    names = (f"{seed}/{kind}/{domain}".encode() for kind in ("user", "item"))
    digests = (hashlib.blake2b(name, digest_size=8).digest() for name in names)
    user_key, item_key = (int.from_bytes(digest, "little") for digest in digests)
    starts = np.flatnonzero(np.diff(pairs.user, prepend=-1))
    user_words = hash_strings(pairs.user_ids.take(pa.array(pairs.user[starts])), user_key)
    users = np.repeat(user_words, np.diff(starts, append=len(pairs.user)))
    occurs = np.zeros(len(pairs.item_ids), dtype=bool)
    occurs[pairs.item] = True
    items = np.flatnonzero(occurs)
    index = np.empty(len(occurs), np.int32)
    index[items] = np.arange(len(items), dtype=np.int32)
    item_words = mix_words(hash_strings(pairs.item_ids.take(pa.array(items)), item_key))
    return mix_words(users + item_words.take(index.take(pairs.item)))
