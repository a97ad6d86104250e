"""Sums of neighbour weights compared with dense matrices."""

import numpy as np
import pytest

from model.evidence.kernels import blend_rows, strongest_items, sum_neighbours, sum_neighbours_sparsely

ITEMS, USERS = 15, 6


def _world(seed):
    """Weights between items (whole numbers over 8, so sums are exact), and histories, dense and in compressed rows."""
    random = np.random.default_rng(seed)
    dense = random.integers(0, 4, (ITEMS, ITEMS)) * (random.random((ITEMS, ITEMS)) < 0.4) / 8
    np.fill_diagonal(dense, 0)
    rows = [np.flatnonzero(row) for row in dense]
    weights = np.concatenate([dense[item, row] for item, row in enumerate(rows)]).astype(np.float32)
    neighbours = np.cumsum([0, *(row.size for row in rows)]), np.concatenate(rows).astype(np.int32), weights
    histories = [random.permutation(ITEMS)[: random.integers(0, 7)] for _ in range(USERS)]
    history = np.cumsum([0, *(items.size for items in histories)]), np.concatenate(histories).astype(np.int32)
    return dense, neighbours, histories, history


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_the_sum_of_the_historys_rows(seed):
    dense, rows, histories, history = _world(seed)
    column_of_item = np.array([item // 2 if item % 2 else -1 for item in range(ITEMS)], np.int32)
    expected = np.array([dense[items].sum(axis=0)[1::2] for items in histories])
    evidence = np.zeros((USERS, ITEMS // 2), np.float32)
    sum_neighbours(history, rows, column_of_item, evidence)
    assert evidence.tolist() == expected.tolist()
    for user, items in enumerate(histories):
        columns, sums = np.full(8, -1, np.int32), np.zeros(8, np.float32)
        sum_neighbours_sparsely(items.astype(np.int32), rows, column_of_item, columns, sums)
        found = {int(column): float(value) for column, value in zip(columns, sums, strict=True) if column >= 0}
        assert found == {column: value for column, value in enumerate(expected[user]) if value}
        assert (columns >= 0).sum() == len(found)


@pytest.mark.parametrize("most", [1, 2, 9])
@pytest.mark.parametrize("seed", range(4))
def test_strongest_items_are_the_first_of_the_sorted_history(seed, most):
    dense, rows, histories, history = _world(seed)
    histories = [np.sort(items) for items in histories]
    history = history[0], np.concatenate(histories).astype(np.int32)
    owners = np.repeat(np.arange(USERS), ITEMS)
    targets = np.tile(np.arange(ITEMS), USERS).astype(np.int32)
    items, weights = np.empty((owners.size, most), np.int32), np.zeros((owners.size, most), np.float32)
    totals = np.zeros(owners.size, np.float32)
    strongest_items(history, owners, targets, rows, items, weights, totals)
    for n, (owner, target) in enumerate(zip(owners, targets, strict=True)):
        pairs = sorted((-dense[item, target], item) for item in histories[owner] if dense[item, target])[:most]
        absent = most - len(pairs)
        assert items[n].tolist() == [item for _, item in pairs] + [-1] * absent
        assert weights[n].tolist() == [-weight for weight, _ in pairs] + [0] * absent
        assert totals[n] == dense[histories[owner], target].sum()


def test_blended_rows_are_scaled_by_the_spread_of_their_evidence():
    random = np.random.default_rng(1)
    scores, evidence = random.normal(size=(2, 3, 8)).astype(np.float32)
    evidence[1] = 2.0  # no spread
    factors = np.array([0.5, 2.0, 1.0], np.float32), np.array([3.0, 1.0, 0.25], np.float32)
    blended = scores.copy()
    blend_rows(blended, evidence, factors, 0.7)
    weighted = factors[1][:, None] * evidence
    scale = 1 / (1 + weighted.std(axis=1, keepdims=True) / 0.7)
    np.testing.assert_allclose(blended, (factors[0][:, None] * scores + weighted) * scale, rtol=2e-6)
