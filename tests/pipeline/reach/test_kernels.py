"""Walks compared with the same hashes in plain Python, expected ends with dense products."""

import numpy as np
import pytest

from pipeline.reach import walk_kernels
from pipeline.reach.expected_kernels import fill_expected_rows
from pipeline.reach.walk_kernels import walk_counts, walk_paths

MASK = 2**64 - 1


def _graph(seed: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every node has at least one neighbour."""
    random = np.random.default_rng(seed)
    edges = random.random((nodes, nodes)) < 0.2
    edges |= edges.T | np.roll(np.eye(nodes, dtype=bool), 1, 0) | np.roll(np.eye(nodes, dtype=bool), 1, 1)
    return np.cumsum([0, *edges.sum(axis=1)]), np.nonzero(edges)[1].astype(np.int32)


def _mix(value: int) -> int:
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31


def _draw(seed: int, source: int, step: int, walk: int) -> int:
    key = _mix((_mix((seed + 0x9E3779B97F4A7C15 * (source + 1)) & MASK) + step) & MASK)
    value = ((walk * 0x9E3779B1) & 0xFFFFFFFF) ^ (key & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = ((value ^ value >> shift) * factor & 0xFFFFFFFF) ^ key >> 32
    return value ^ value >> 16


def _walk(graph: tuple[np.ndarray, np.ndarray], seed: int, source: int, walk: int, steps: int) -> list[int]:
    path = [source]
    for step in range(1, steps + 1):
        low, high = graph[0][path[-1]], graph[0][path[-1] + 1]
        path.append(int(graph[1][low + (_draw(seed, source, step, walk) * int(high - low) >> 32)]))
    return path


@pytest.mark.parametrize(("nodes", "walks"), [(9, 3), (40, 30), (300, 200)])
@pytest.mark.parametrize("counted", [(3,), (1, 3, 4), (2,)])
def test_walks_are_those_of_the_hashes_and_are_counted_on_anchors(nodes, walks, counted):
    graph, seed = _graph(nodes, nodes), 12345678901234567
    sources = np.array([5, 0, 8], np.int32)
    expected = [[_walk(graph, seed, int(source), walk, 5) for walk in range(walks)] for source in sources]
    paths = np.zeros((3, walks, 6), np.int32)
    paths[:, :, 0] = sources[:, None]
    walk_paths(*graph, np.uint64(seed), paths)
    assert paths.tolist() == expected
    is_anchor = np.arange(nodes) % 3 != 1
    counts_step = np.isin(np.arange(6), counted)
    rows, anchors, counts = np.full(4, -1), np.empty(3 * nodes, np.int32), np.empty(3 * nodes, np.int32)
    walk_counts(*graph, is_anchor, counts_step, sources, walks, np.uint64(seed), rows, anchors, counts)
    for i in range(3):
        ends = paths[i][:, list(counted)].ravel()
        distinct, often = np.unique(ends[is_anchor[ends]], return_counts=True)
        assert anchors[rows[i] : rows[i + 1]].tolist() == distinct.tolist()
        assert counts[rows[i] : rows[i + 1]].tolist() == often.tolist()
    assert rows[0] == 0


def test_a_source_without_a_neighbour_stays_as_it_is():
    paths = np.array([[[1, 7, 7]], [[0, 7, 7]]], np.int32)
    walk_paths(np.array([0, 1, 1, 2]), np.array([2, 0], np.int32), np.uint64(1), paths)
    assert paths.tolist() == [[[1, 7, 7]], [[0, 2, 0]]]


@pytest.mark.parametrize("limit", [2, 100])
@pytest.mark.parametrize("with_self", [False, True])
def test_expected_ends_are_means_of_the_neighbours_rows_cut_to_the_largest(limit, with_self):
    nodes, columns = 12, 7
    indptr, indices = _graph(2, nodes)
    random = np.random.default_rng(3)
    ends = random.integers(0, 3, (nodes, columns)) / 2
    rows = [np.flatnonzero(row) for row in ends]
    compressed = (
        np.cumsum([0, *(row.size for row in rows)]),
        np.concatenate(rows).astype(np.int32),
        np.concatenate([ends[node, row] for node, row in enumerate(rows)]).astype(np.float32),
    )
    self_column = np.array([-1, 3, 0, *[-1] * 8, 6], np.int32) if with_self else np.empty(0, np.int32)
    wanted, sums = np.array([11, 1, 2, 5, 0]), np.zeros(columns, np.float32)
    kept = np.full(6, -1), np.empty(50, np.int32), np.empty(50, np.float32)
    fill_expected_rows((indptr, indices), compressed, self_column, wanted, limit, sums, kept)
    assert not sums.any()
    assert kept[0][0] == 0
    for i, node in enumerate(wanted):
        expected = ends[indices[indptr[node] : indptr[node + 1]]].mean(axis=0)
        if with_self and self_column[node] >= 0:
            expected[self_column[node]] += 1
        largest = sorted(np.flatnonzero(expected), key=lambda column: (-np.float32(expected[column]), column))[:limit]
        found = slice(kept[0][i], kept[0][i + 1])
        assert kept[1][found].tolist() == sorted(largest)
        assert kept[2][found].tolist() == pytest.approx(expected[sorted(largest)].tolist())


@pytest.mark.parametrize("largest", [200, 60_000, 2**16, 2**24 + 5, 2**31 - 1])
@pytest.mark.parametrize("size", [3, 500])
def test_ends_of_walks_are_sorted_in_as_many_passes_as_their_numbers_need(largest: int, size: int) -> None:
    draws = np.random.default_rng(size)
    values = np.append(draws.integers(0, largest, size - 1), largest).astype(np.int32)
    found, counts = values.copy(), np.empty((2, 256), np.int64)
    walk_kernels._sort(found, np.empty(size + 7, np.int32), counts, largest)
    assert found.tolist() == sorted(values.tolist())
