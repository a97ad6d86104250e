"""Loops over CSR rows compared with SciPy and with the same in plain Python."""

import numpy as np
import pytest
from scipy import sparse

from model.compute.random_kernels import mix
from model.sparse.kernels import cut_rows, renumber, transpose
from model.sparse.product_kernel import multiply_rows


def _matrix(seed, shape=(6, 5), density=0.5):
    matrix = sparse.random_array(shape, density=density, rng=np.random.default_rng(seed), format="csr").astype("f4")
    matrix.sort_indices()
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, matrix


@pytest.mark.parametrize("own_weight", [0.0, 0.25])
@pytest.mark.parametrize("threshold", [0, 1 << 62, 1 << 63])
def test_cut_rows_keep_the_entries_whose_hash_reaches_the_threshold(own_weight, threshold):
    indptr, columns, values, _ = _matrix(1)
    rows, own = np.array([4, 0, 4, 2], np.int32), np.arange(10, 16, dtype=np.int32)
    output = np.full(5, -1), np.empty(30, np.int32), np.empty(30, np.float32)
    key = np.uint64(3)
    entries = cut_rows((indptr, columns, values), own, rows, np.float32(own_weight), np.float32(2.0),
                       np.uint64(threshold), key, output)  # fmt: skip
    expected = [
        ([(own[row], own_weight)] if own_weight else [])
        + [(columns[slot], 2 * values[slot]) for slot in range(indptr[row], indptr[row + 1])
           if mix(key, slot) >= threshold]
        for row in rows
    ]  # fmt: skip
    assert output[0].tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert entries == output[0][-1]
    pairs = zip(output[1][:entries].tolist(), output[2][:entries].tolist(), strict=True)
    assert list(pairs) == [pair for row in expected for pair in row]


def test_an_entry_whose_hash_is_the_threshold_is_kept():
    indptr, columns, values, _ = _matrix(1)
    row = np.array([4], np.int32)
    output = np.zeros(2, np.int64), np.empty(9, np.int32), np.empty(9, np.float32)
    hashes = [mix(np.uint64(3), slot) for slot in range(indptr[4], indptr[5])]
    assert cut_rows((indptr, columns, values), row, row, np.float32(0), np.float32(1), max(hashes), np.uint64(3),
                    output) == 1  # fmt: skip


def test_numbers_become_positions_behind_the_first_in_ascending_order():
    numbers = np.array([8, 3, 3, 9, 5, 0, 8], np.int32)
    distinct = renumber(np.array([5, 2, 9], np.int32), numbers, 10)
    assert distinct.tolist() == [5, 2, 9, 0, 3, 8]
    assert numbers.tolist() == [5, 4, 4, 2, 0, 3, 5]
    assert renumber(np.array([], np.int32), numbers[:0], 3).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_transpose_is_scipys(seed):
    indptr, columns, values, matrix = _matrix(seed)
    out = np.zeros(6, np.int64), np.empty(columns.size, np.int32), np.empty(columns.size, np.float32)
    transpose(indptr, columns, values, *out)
    expected = sparse.csr_array(matrix.T.tocsr())
    expected.sort_indices()
    assert [part.tolist() for part in out] == [
        expected.indptr.tolist(), expected.indices.tolist(), expected.data.tolist(),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 64, 65, 83, 150])
def test_products_of_some_rows_of_any_width_are_numpys_and_leave_the_others(width):
    indptr, columns, values, matrix = _matrix(3, (40, 50), 0.4)
    dense = np.random.default_rng(2).normal(size=(50, width)).astype(np.float32)
    product = np.full((40, width), 7.0, np.float32)
    multiply_rows(3, 38, indptr, columns, values, dense, product)
    np.testing.assert_allclose(product[3:38], matrix.toarray()[3:38] @ dense, rtol=1e-5, atol=1e-5)
    assert (product[:3] == 7).all()
    assert (product[38:] == 7).all()
