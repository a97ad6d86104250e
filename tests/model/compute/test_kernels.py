"""Random numbers compared with published ones, ranks and top-k with sorting."""

import numpy as np
import pytest

from model.compute.random_kernels import below, mix
from model.compute.ranking_kernels import count_at_least, top_k_rows

SPLITMIX64_OF_1234567 = [
    6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
]  # fmt: skip


def test_mix_is_splitmix64():
    assert [int(mix(np.uint64(1234567), number)) for number in range(5)] == SPLITMIX64_OF_1234567


@pytest.mark.parametrize("bound", [1, 3, 1000, 2**32 - 1])
def test_below_takes_the_upper_32_bits(bound):
    for bits in (0, 2**32 - 1, 2**63, 2**64 - 1, SPLITMIX64_OF_1234567[2]):
        assert below(np.uint64(bits), bound) == (bits >> 32) * bound >> 32


def _masked(random, rows, columns):
    masks = [np.flatnonzero(random.random(columns) < 0.3) for _ in range(rows)]
    return np.cumsum([0, *(mask.size for mask in masks)]), np.concatenate(masks).astype(np.int32), masks


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_best_columns_are_those_of_sorting(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(-3, 4, (7, 12)).astype(np.float32)
    indptr, masked, masks = _masked(random, 7, 12)
    free = [np.setdiff1d(np.arange(12), mask) for mask in masks]
    rows = np.array([row for row in range(7) for _ in free[row]])
    items = np.concatenate(free).astype(np.int32)
    ranks = np.zeros(rows.size, np.int64)
    count_at_least(scores, rows, items, indptr, masked, ranks)
    for row, item, rank in zip(rows, items, ranks, strict=True):
        assert rank == sum(scores[row, column] >= scores[row, item] for column in free[row])
    for k in (1, 3, 20):
        best, values = np.full((7, k), 99, np.int32), np.full((7, k), 99, np.float32)
        top_k_rows(scores.copy(), indptr, masked, best, values)
        for row in range(7):
            expected = sorted(free[row], key=lambda column: (-scores[row, column], column))[:k]
            absent = k - len(expected)
            assert best[row].tolist() == expected + [-1] * absent
            assert values[row].tolist() == [scores[row, column] for column in expected] + [0] * absent
