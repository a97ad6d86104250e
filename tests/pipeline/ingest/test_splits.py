"""Who is held out: by draw, by time, or last."""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.settings.ingest import SplitSettings
from pipeline.compute.hashing import hash_strings
from pipeline.ingest.splits import PairsOfUsers, leave_last_out, order_by_draws, random_split, time_split

TRAIN, VALID, TEST = 0, 1, 2


def pairs(rows: list[tuple[str, str, int]], domain: str = "d", trained: list[bool] | None = None) -> PairsOfUsers:
    """Pairs of (user id, item id, time), sorted as the ingest sorts them, and which were trained on before."""
    rows = sorted(rows)
    users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    return PairsOfUsers(
        domain,
        np.array([users.index(row[0]) for row in rows], np.int64),
        *[np.array([items.index(row[1]) for row in rows], np.int64)] * 2,  # sorted ids: number and byte rank are one
        np.array([row[2] for row in rows], np.int64),
        np.zeros(len(rows), dtype=bool) if trained is None else np.array(trained),
        pa.array(users, pa.string()),
        pa.array(items, pa.string()),
    )


def splits(rows: list[tuple[str, str, int]], **settings: float) -> dict[tuple[str, str], int]:
    codes = random_split(pairs(rows), SplitSettings(**settings))  # type: ignore[arg-type]
    return {row[:2]: int(code) for row, code in zip(sorted(rows), codes, strict=True)}


def many(users: int, items: int) -> list[tuple[str, str, int]]:
    return [(f"u{u}", f"i{i}", 0) for u in range(users) for i in range(items)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (2, 0, 1)), (5, (3, 1, 1)), (10, (7, 1, 2)), (15, (10, 2, 3))],
)
def test_random_split_rounds_shares_per_user(rows: int, expected: tuple[int, int, int]) -> None:
    counts = Counter(splits(many(1, rows), valid_share=0.1, test_share=0.2).values())
    assert (counts[TRAIN], counts[VALID], counts[TEST]) == expected


@given(st.integers(1, 40), st.floats(0, 0.99), st.floats(0, 1))
def test_every_user_keeps_a_train_row(rows: int, held_out: float, of_which_test: float) -> None:
    test = held_out * of_which_test
    found = splits(many(2, rows), valid_share=held_out - test, test_share=test)
    assert {user for (user, _), code in found.items() if code == TRAIN} == {"u0", "u1"}


def test_random_split_differs_by_seed_and_by_domain() -> None:
    rows = many(20, 10)
    first = random_split(pairs(rows), SplitSettings(seed=1))
    assert not np.array_equal(first, random_split(pairs(rows), SplitSettings(seed=2)))
    assert not np.array_equal(first, random_split(pairs(rows, "other"), SplitSettings(seed=1)))


def test_random_split_of_a_user_ignores_everybody_else() -> None:
    alone = splits([row for row in many(20, 10) if row[0] == "u7"])
    together = splits([*many(20, 10), ("a new one", "a new item", 0)])
    assert {pair: together[pair] for pair in alone} == alone


def test_random_split_draws_items_evenly() -> None:
    """400 users hold out 2 of 10 items each: 80 times an item, standard deviation 8."""
    found = splits(many(400, 10))
    counts = Counter(item for (_, item), code in found.items() if code == TEST)
    assert sum(counts.values()) == 800
    assert all(48 <= counts[f"i{i}"] <= 112 for i in range(10))


def test_time_split_cuts_at_the_given_times() -> None:
    rows = [("u", f"i{time}", time) for time in (9, 10, 19, 20, 21)]
    settings = SplitSettings(method="time", valid_from=10, test_from=20)
    codes = dict(zip([row[1] for row in sorted(rows)], time_split(pairs(rows), settings), strict=True))
    assert codes == {"i9": TRAIN, "i10": VALID, "i19": VALID, "i20": TEST, "i21": TEST}


def test_last_is_test_and_last_but_one_is_valid() -> None:
    rows = [("u", "a", 3), ("u", "b", 1), ("u", "c", 2), ("v", "a", 1), ("v", "b", 2), ("w", "a", 1)]
    for seed in range(9):
        assert leave_last_out(pairs(rows), seed).tolist() == [TEST, TRAIN, VALID, TRAIN, TRAIN, TRAIN]


def test_of_equal_times_a_draw_says_which_are_last() -> None:
    """400 users hold out 1 of 10 items each: 40 times an item, standard deviation 6."""
    rows = many(400, 10)
    drawn = leave_last_out(pairs(rows), 1)
    for split in (VALID, TEST):
        counts = Counter(item for (_, item, _), code in zip(sorted(rows), drawn, strict=True) if code == split)
        assert sum(counts.values()) == 400
        assert all(16 <= counts[f"i{i}"] <= 64 for i in range(10))
    assert not np.array_equal(drawn, leave_last_out(pairs(rows), 2))


def test_the_draw_of_equal_times_is_the_same_in_all_domains_and_whoever_else_is_there() -> None:
    rows, others = many(20, 10), [*many(20, 10), ("a", "a new item", 0), ("a", "i0", 0), ("a", "i1", 0)]
    drawn = leave_last_out(pairs(rows), 1).tolist()
    assert leave_last_out(pairs(rows, "other"), 1).tolist() == drawn
    assert leave_last_out(pairs(others), 1).tolist()[3:] == drawn


def test_draws_do_not_reorder_different_times() -> None:
    """The two items of time 1 are before, and those of time 2 held out, in one order or the other."""
    rows = [("u", "a", 2), ("u", "b", 1), ("u", "c", 2), ("u", "d", 1)]
    drawn = {tuple(leave_last_out(pairs(rows), seed).tolist()) for seed in range(20)}
    assert drawn == {(TEST, TRAIN, VALID, TRAIN), (VALID, TRAIN, TEST, TRAIN)}


def test_no_pairs_give_no_splits() -> None:
    assert len(random_split(pairs([]), SplitSettings())) == len(leave_last_out(pairs([]), 1)) == 0


user_and_draw = st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 2, 2**63, 2**64 - 2, 2**64 - 1]))


@given(st.lists(user_and_draw, max_size=30))
def test_draws_order_the_rows_of_a_user_even_where_leading_bits_are_equal(rows: list[tuple[int, int]]) -> None:
    keys = [(user, draw, -n) for n, (user, draw) in enumerate(sorted(rows, key=lambda row: row[0]))]
    user, draw, item = (np.array([key[n] for key in keys], kind) for n, kind in enumerate((np.int64, np.uint64, "i8")))
    assert order_by_draws(user, draw, item).tolist() == sorted(range(len(keys)), key=keys.__getitem__)


def slow_hash(text: str, key: int) -> int:
    word = key ^ len(text.encode())
    for byte in text.encode():
        word = (word ^ byte) * 0x100000001B3 % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


@given(st.lists(st.text(max_size=12)), st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_hash_equals_the_slow_hash_of_each_string(texts: list[str], key: int, skipped: int) -> None:
    ids = pa.array(texts, pa.string()).slice(skipped)
    assert hash_strings(ids, key).tolist() == [slow_hash(text, key) for text in texts[skipped:]]


def test_hash_is_stable_over_versions() -> None:
    """Keys of artifacts do not name the hash, so it must not drift."""
    words = hash_strings(pa.array(["", "u1", "größe"]), 2022)
    assert hashlib.sha256(words.astype("<u8").tobytes()).hexdigest()[:16] == "5ceddb42e8157248"
