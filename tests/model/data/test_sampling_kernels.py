"""Negatives and candidates compared with sets in plain Python."""

import numpy as np
import pytest

from model.compute.random_kernels import below, mix
from model.data.sampling_kernels import (
    derive_row_keys,
    draw_candidates,
    draw_negatives,
    mark_known,
    share_negatives,
    unknown_item,
)

ITEMS = 12
KEY = np.uint64(5)


def _below(key, number, bound):
    return below(np.uint64(mix(np.uint64(key), number)), bound)


def _known(seed):
    """Known items of six users, in compressed rows and by user; the second knows none, the third all but one."""
    random = np.random.default_rng(seed)
    by_user = [np.flatnonzero(random.random(ITEMS) < 0.4) for _ in range(6)]
    by_user[1], by_user[2] = np.arange(0), np.delete(np.arange(ITEMS), 7)
    return np.cumsum([0, *(items.size for items in by_user)]), np.concatenate(by_user).astype(np.int32), by_user


@pytest.mark.parametrize("seed", range(4))
def test_the_unknown_item_of_a_rank_is_that_of_the_complement(seed):
    indptr, known, by_user = _known(seed)
    for user, items in enumerate(by_user):
        complement = np.setdiff1d(np.arange(ITEMS), items)
        found = [unknown_item(known, indptr[user], indptr[user + 1], rank) for rank in range(complement.size)]
        assert found == complement.tolist()


def test_negatives_are_the_unknown_items_of_drawn_ranks():
    indptr, known, by_user = _known(1)
    users = np.array([0, 1, 2, 3, 4, 5] * 20, np.int32)
    negatives = np.empty(users.size, np.int32)
    draw_negatives(indptr, known, users, ITEMS, KEY, negatives)
    for number, (user, negative) in enumerate(zip(users, negatives, strict=True)):
        complement = np.setdiff1d(np.arange(ITEMS), by_user[user])
        assert negative == complement[_below(KEY, number, complement.size)]
    assert len(set(negatives[users == 1])) > 6


def test_shared_negatives_that_the_user_knows_are_replaced_by_the_own():
    indptr, known, by_user = _known(2)
    users = np.array([0, 1, 2, 3, 4, 5, 0, 3], np.int32)
    negatives = np.empty(users.size, np.int32)
    draw_negatives(indptr, known, users, ITEMS, KEY, negatives)
    shifts = np.array([1, 3, 7, 8])
    owners = np.full((8, 5), 99, np.int32)
    share_negatives(indptr, known, users, negatives, shifts, owners)
    for triple in range(8):
        others = [(triple + shift) % 8 for shift in shifts]
        mine = set(by_user[users[triple]].tolist())
        assert owners[triple].tolist() == [triple, *(triple if negatives[o] in mine else o for o in others)]
    assert (owners[:, 1:] == np.arange(8)[:, None]).any()
    assert (owners[:, 1:] != np.arange(8)[:, None]).any()


@pytest.mark.parametrize("first", [0, 1])
def test_known_negatives_of_a_group_are_marked(first):
    indptr, known, by_user = _known(3)
    users = np.array([0, 1, 2, 3, 4, 5], np.int32)
    starts = np.array([first, first, first, 5, 5, 5])
    negatives = np.array([7, 2, 2, 11, 0, 3, 3, 1, 9, 7], np.int32)
    marks = np.zeros((6, 5), bool)
    mark_known(indptr, known, users, negatives, starts, marks)
    for row in range(6):
        window = negatives[starts[row] : starts[row] + 5]
        assert marks[row].tolist() == [item in set(by_user[users[row]].tolist()) for item in window]
    assert 0 < marks.sum() < marks.size


def _floyd(complement, wanted, key):
    """Floyd's algorithm on a list of the items that may be drawn."""
    drawn, taken = [], min(wanted, len(complement))
    for number in range(taken):
        top = len(complement) - taken + number
        rank = _below(key, number, top + 1)
        drawn.append(top if rank in drawn else rank)
    return [complement[rank] for rank in drawn] + [-1] * (wanted - taken)


@pytest.mark.parametrize("wanted", [1, 4, 9])
def test_candidates_are_those_of_floyds_algorithm(wanted):
    indptr, known, by_user = _known(1)
    rows = np.array([0, 1, 2, 3, 4, 5, 1, 1])
    keys = np.empty(rows.size, np.uint64)
    derive_row_keys(KEY, rows.astype(np.int32), np.arange(8, dtype=np.int32), keys)
    assert keys.tolist() == [mix(np.uint64(mix(KEY, user)), item) for item, user in enumerate(rows)]
    candidates = np.full((rows.size, wanted), 99, np.int32)
    draw_candidates(indptr, known, rows, keys, ITEMS, np.zeros(ITEMS, np.int64), candidates)
    for row, user in enumerate(rows):
        complement = np.setdiff1d(np.arange(ITEMS), by_user[user]).tolist()
        assert candidates[row].tolist() == _floyd(complement, wanted, keys[row])
