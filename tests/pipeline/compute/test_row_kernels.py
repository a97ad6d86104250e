"""Kernels on compressed rows compared with the same in plain Python."""

import numpy as np
import pytest

from pipeline.compute.row_kernels import (
    build_marks,
    fill_unit_rows,
    group_rows,
    keep_largest,
    largest_columns,
    mix,
    unit_lengths,
)


def _rows(*rows):
    """Compressed rows of (index, weight)."""
    indptr = np.cumsum([0, *map(len, rows)])
    entries = [entry for row in rows for entry in row]
    return (
        indptr,
        np.array([index for index, _ in entries], np.int32),
        np.array([weight for _, weight in entries], np.float32),
    )


def _random_rows(seed, count=40, columns=9):
    """Few distinct weights, so that equal rows and equal weights occur; some rows are empty."""
    random = np.random.default_rng(seed)
    return [
        [(int(column), float(random.integers(1, 4)))
         for column in np.flatnonzero(random.random(columns) < random.choice([0.0, 0.2, 0.9]))]
        for _ in range(count)
    ]  # fmt: skip


def _groups(rows):
    indptr, indices, weights = _rows(*rows)
    slots, first = np.full(1 << len(rows).bit_length(), -1), np.full(len(rows), -1)
    group_of = np.full(len(rows), -1)
    count = group_rows(indptr, indices, weights.view(np.uint32), slots, first, group_of)
    return count, first[:count].tolist(), group_of.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_equal_rows_share_a_group_numbered_by_first_occurrence(seed):
    rows = _random_rows(seed, 60, 3)
    first: dict[tuple, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(tuple(row), number)
    order = list(first)
    assert _groups(rows) == (len(first), list(first.values()), [order.index(tuple(row)) for row in rows])
    assert 3 < len(first) < 60


def test_rows_that_differ_in_one_index_or_weight_or_length_are_in_groups_of_their_own():
    rows = [[(1, 1.0), (2, 2.0)], [(1, 1.0), (3, 2.0)], [(1, 1.0), (2, 3.0)], [(1, 1.0)], [(0, 1.0), (2, 2.0)], []]
    assert _groups(rows) == (6, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("limit", [1, 2, 4, 9])
def test_the_largest_weights_stay_in_the_rows_order(limit):
    rows = _random_rows(5)
    indptr, indices, weights = _rows(*rows)
    kept = np.full(len(rows) + 1, -1), np.empty(indices.size, np.int32), np.empty(indices.size, np.float32)
    keep_largest(indptr, indices, weights, limit, *kept)
    expected = [sorted(sorted(row, key=lambda entry: -entry[1])[:limit]) for row in rows]
    assert kept[0].tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    entries = zip(kept[1][: kept[0][-1]].tolist(), kept[2][: kept[0][-1]].tolist(), strict=True)
    assert list(entries) == [entry for row in expected for entry in row]


def test_unit_rows_have_length_one_over_the_chosen_columns():
    rows = _rows([(0, 3.0), (1, 7.0), (2, 4.0)], [(1, 5.0)], [], [(2, 2.0), (3, 1.0)])
    column_of = np.array([1, -1, 0, -1], np.int32)
    lengths, norms = np.full(4, -1), np.full(4, -1.0)
    unit_lengths(*rows, column_of, lengths, norms)
    assert (lengths.tolist(), norms.tolist()) == ([2, 0, 0, 1], [5.0, 0.0, 0.0, 2.0])
    starts = np.cumsum([0, *lengths])
    unit = np.full(3, -1, np.int32), np.full(3, -1, np.float32)
    fill_unit_rows(rows, column_of, norms, starts, *unit)
    assert unit[0].tolist() == [1, 0, 0]
    assert unit[1].tolist() == pytest.approx([0.6, 0.8, 1.0])


@pytest.mark.parametrize("limit", [1, 3, 50, 300, 1000])
@pytest.mark.parametrize("kinds", [1, 5, 10_000])
@pytest.mark.parametrize("columns", [3, 200, 9000])
def test_largest_columns_are_those_of_sorting_by_value_and_column(limit, kinds, columns):
    random = np.random.default_rng(limit * kinds + columns)
    marks, bins = build_marks(columns), np.empty(2048, np.int64)
    for count in (0, 1, columns // 3, min(columns, 400)):
        touched = random.permutation(columns)[:count].astype(np.int32)
        touched[:1] = columns - 1 if columns - 1 not in touched else touched[:1]
        weights = (10.0 ** random.integers(-6, 6, kinds) * random.random(kinds)).astype(np.float32)
        values = random.choice(weights, count).view(np.uint32)
        found = np.full(columns + 1, -1, np.int32)
        size = largest_columns(values, touched, count, limit, bins, np.empty(columns + 1, np.uint32), marks, found)
        expected = sorted(range(count), key=lambda j: (-values[j].view(np.float32), touched[j]))[:limit]
        assert found[:size].tolist() == sorted(touched[expected].tolist())
        assert (found[size:] == -1).all()
        assert not marks[0].any()
        assert not marks[1].any()


def test_mix_is_the_finaliser_of_splitmix64():
    """The first numbers of the stream 1234567: https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64."""
    golden = 0x9E3779B97F4A7C15
    state = [np.uint64((1234567 + golden * number) % 2**64) for number in (1, 2, 3)]
    assert [mix(each) for each in state] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
