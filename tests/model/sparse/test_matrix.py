import importlib.util
import logging

import numpy as np
import pytest
import torch
from scipy import sparse

from model.sparse.matrix import Csr, choose_engine, csr, spmm, take_rows, with_transpose

CPU = torch.device("cpu")
needs_torch_sparse = pytest.mark.skipif(
    importlib.util.find_spec("torch_sparse") is None, reason="torch-sparse is not installed (make sparse)"
)
engines = pytest.mark.parametrize("engine", ["native", pytest.param("torch-sparse", marks=needs_torch_sparse)])


def random_matrix(rows: int = 9, columns: int = 7) -> tuple[Csr, torch.Tensor]:
    random = np.random.default_rng(3)
    dense = np.where(random.random((rows, columns)) < 0.4, random.normal(size=(rows, columns)), 0.0)
    dense[2] = 0.0
    dense[:, 3] = 0.0
    matrix = sparse.csr_matrix(dense)
    return csr(matrix.indptr, matrix.indices, matrix.data, columns), torch.from_numpy(dense).float()


@engines
def test_product_equals_the_dense_product(engine: str) -> None:
    matrix, dense = random_matrix()
    right = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    found = spmm(with_transpose(matrix), right, choose_engine(engine, CPU)[1])
    torch.testing.assert_close(found, dense @ right)


def test_a_row_adds_up_in_the_order_of_its_entries_in_every_column() -> None:
    matrix, _ = random_matrix()
    right = torch.randn(7, 64 + 2 * 16 + 3, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(9, right.shape[1])
    for row in range(9):
        for slot in range(matrix.indptr[row], matrix.indptr[row + 1]):
            expected[row] += matrix.values[slot] * right[matrix.indices[slot]]
    assert torch.equal(choose_engine("native", CPU)[1](matrix, right), expected)


@engines
def test_gradient_of_a_product_is_the_transposed_product(engine: str) -> None:
    matrix, dense = random_matrix()
    right = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
    (spmm(with_transpose(matrix), right, choose_engine(engine, CPU)[1]) * weights).sum().backward()
    torch.testing.assert_close(right.grad, dense.T @ weights)


@needs_torch_sparse
def test_both_engines_agree() -> None:
    matrix, _ = random_matrix(200, 150)
    right = torch.randn(150, 64, generator=torch.Generator().manual_seed(1))
    native, other = (choose_engine(name, CPU)[1](matrix, right) for name in ("native", "torch-sparse"))
    torch.testing.assert_close(native, other)


@engines
def test_a_matrix_without_entries_gives_zeros(engine: str) -> None:
    empty = csr(np.zeros(4), np.zeros(0), np.zeros(0), 2)
    assert torch.equal(choose_engine(engine, CPU)[1](empty, torch.ones(2, 3)), torch.zeros(3, 3))


def test_transpose_lists_rows_in_ascending_order() -> None:
    matrix = csr(np.array([0, 2, 2, 4]), np.array([1, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]), 2)
    back = with_transpose(matrix).backward
    assert (back.indptr.tolist(), back.indices.tolist()) == ([0, 1, 4], [0, 0, 2, 2])
    assert back.values.tolist() == [2.0, 1.0, 3.0, 4.0]


def test_gradient_of_taken_rows_names_them_alone() -> None:
    table = torch.ones(4, 2, requires_grad=True)
    (take_rows(table, torch.tensor([3, 1])) * torch.tensor([[1.0], [2.0]])).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    assert table.grad.to_dense()[:, 0].tolist() == [0.0, 2.0, 0.0, 1.0]


def test_auto_is_native_on_a_cpu_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "model.sparse.matrix"):
        assert choose_engine("auto", CPU)[0] == "native"
    assert "sparse products: native on cpu" in caplog.text


def test_missing_torch_sparse_is_an_error_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="make sparse"):
        choose_engine("torch-sparse", CPU)
