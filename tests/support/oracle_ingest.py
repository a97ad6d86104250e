"""A slow and obvious ingest of logs that are already split, by dictionaries of raw rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

ORDER = ("train", "valid", "test")


@dataclass(frozen=True)
class Row:
    """One valid raw row of logs that are already split."""

    domain: str
    user: str
    item: str
    split: str


Key = tuple[str, str, str, str]


def ingest_given(rows: list[Row], protocol: str, cold: str) -> tuple[dict[Key, int], dict[str, int]]:
    """Merge rows that are already split and drop those that leaked or are cold.

    Returns:
        (domain, user id, item id, split) → raw rows merged; reason → raw rows dropped.
    """
    counts: dict[Key, int] = defaultdict(int)
    for row in rows:
        counts[row.domain, row.user, row.item, row.split] += 1
    split_pairs = {key[1:] for key in counts}
    leaked = {key for key in counts if protocol == "clean" and _is_in_an_earlier_split(key, split_pairs)}
    kept = {key: count for key, count in counts.items() if key not in leaked}
    train = [key for key in kept if key[3] == "train"]
    users, items = {key[:2] for key in train}, {(key[0], key[2]) for key in train}
    cold_keys = {
        key
        for key in kept
        if cold == "drop" and key[3] != "train" and (key[:2] not in users or (key[0], key[2]) not in items)
    }
    dropped = {"leaked": sum(counts[key] for key in leaked), "cold": sum(counts[key] for key in cold_keys)}
    return {key: count for key, count in kept.items() if key not in cold_keys}, dropped


def _is_in_an_earlier_split(key: Key, split_pairs: set[tuple[str, ...]]) -> bool:
    """Whether an earlier split has the pair, in any domain."""
    return any((*key[1:3], earlier) in split_pairs for earlier in ORDER[: ORDER.index(key[3])])
