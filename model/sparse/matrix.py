"""Sparse matrices in CSR form and their products with dense ones (SpMM), by one of several engines."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.compute.threads import share_rows
from model.sparse.kernels import transpose
from model.sparse.product_kernel import multiply_rows

log = logging.getLogger(__name__)

EngineName = Literal["auto", "native", "torch-sparse"]


@dataclass(frozen=True)
class Csr:
    """A sparse matrix in compressed rows.

    Attributes:
        indptr: int32 (rows + 1).
        indices: int32, columns.
        values: float32.
        columns: number of columns.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.indptr.numel() - 1

    def to_torch(self) -> Tensor:
        """The matrix as torch's own CSR tensor."""
        size = self.rows, self.columns
        return torch.sparse_csr_tensor(self.indptr, self.indices, self.values, size=size, check_invariants=False)

    def with_values(self, values: Tensor) -> Csr:
        """The same pattern of entries with other values."""
        return replace(self, values=values)

    def to(self, device: torch.device) -> Csr:
        """The matrix on a device."""
        if self.values.device == device:
            return self
        return replace(
            self, indptr=self.indptr.to(device), indices=self.indices.to(device), values=self.values.to(device)
        )


@dataclass(frozen=True)
class Matrix:
    """A sparse matrix and its transpose, which the gradient of its products needs."""

    forward: Csr
    backward: Csr

    def to(self, device: torch.device) -> Matrix:
        """Both matrices on a device."""
        return Matrix(self.forward.to(device), self.backward.to(device))


SpmmEngine = Callable[[Csr, Tensor], Tensor]
"""Multiplies a sparse matrix (r, c) by a dense one (c, w)."""


def csr(indptr: Any, indices: Any, values: Any, columns: int) -> Csr:
    """A matrix from NumPy arrays, sharing the memory of those that have the right type.

    Raises:
        ValueError: more entries than int32 can count.
    """
    if indices.size > np.iinfo(np.int32).max:
        raise ValueError(f"sparse matrix: {indices.size} entries, must be ≤ {np.iinfo(np.int32).max}; split it")
    return Csr(
        torch.from_numpy(np.ascontiguousarray(indptr, dtype=np.int32)),
        torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int32)),
        torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)),
        columns,
    )


def with_transpose(matrix: Csr) -> Matrix:
    """A matrix on the CPU together with its transpose, whose rows list their columns in ascending order."""
    indptr = np.zeros(matrix.columns + 1, np.int32)
    indices = np.empty(matrix.indices.numel(), np.int32)
    values = np.empty(matrix.values.numel(), np.float32)
    transpose(matrix.indptr.numpy(), matrix.indices.numpy(), matrix.values.numpy(), indptr, indices, values)
    return Matrix(matrix, csr(indptr, indices, values, matrix.rows))


def require_engine(name: EngineName) -> None:
    """Check a setting.

    Raises:
        ModuleNotFoundError: the setting is "torch-sparse" and it is not installed.
    """
    if name == "torch-sparse" and not _has_torch_sparse():
        raise ModuleNotFoundError("engine 'torch-sparse': torch_sparse is not installed; run `make sparse`")


def _has_torch_sparse() -> bool:
    return importlib.util.find_spec("torch_sparse") is not None


def choose_engine(name: EngineName, device: torch.device) -> tuple[str, SpmmEngine]:
    """The engine of sparse products, and its name.

    Args:
        name: as in the settings; auto is native on a CPU, and on a GPU torch-sparse if it is installed.
        device: where the products run.

    Raises:
        ModuleNotFoundError: as in `require_engine`.
    """
    require_engine(name)
    chosen = name if name != "auto" else "torch-sparse" if device.type == "cuda" and _has_torch_sparse() else "native"
    log.info("sparse products: %s on %s", chosen, device)
    return chosen, _torch_sparse_engine() if chosen == "torch-sparse" else _native_engine(device)


def spmm(matrix: Matrix, dense: Tensor, multiply: SpmmEngine) -> Tensor:
    """`matrix` (r, c) times `dense` (c, w), differentiable by `dense`; zeros if the matrix has no entries."""
    return _Spmm.apply(dense, matrix, multiply)  # type: ignore[no-any-return,no-untyped-call]


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Distinct `rows` (int64) of a table; its gradient is torch's sparse tensor of these rows."""
    return _DistinctRows.apply(table, rows)  # type: ignore[no-any-return,no-untyped-call]


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Matrix, multiply: SpmmEngine) -> Tensor:
        ctx.matrix, ctx.multiply = matrix, multiply
        return multiply(matrix.forward, dense)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.multiply(ctx.matrix.backward, gradients[0].contiguous()), None, None


class _DistinctRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.shape = rows, table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows = ctx.rows.unsqueeze(0)
        return torch.sparse_coo_tensor(rows, gradients[0], ctx.shape, is_coalesced=True, check_invariants=False), None


def _native_engine(device: torch.device) -> SpmmEngine:
    if device.type == "cpu":
        return _multiply_compiled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns at the first product of a process that CSR is in beta
        one = csr(np.array([0, 1]), np.zeros(1), np.ones(1), 1).to(device)
        _multiply_torch(one, torch.ones(1, 1, device=device))
    return _multiply_torch


def _multiply_compiled(matrix: Csr, dense: Tensor) -> Tensor:
    """Our own loop, split among torch's threads by rows: the bits of torch's CSR product in a quarter of its time."""
    product = torch.empty(matrix.rows, dense.shape[1])
    indptr, indices, values = matrix.indptr.numpy(), matrix.indices.numpy(), matrix.values.numpy()
    factor, output = dense.detach().contiguous().numpy(), product.numpy()

    def work(first: int, last: int) -> None:
        multiply_rows(first, last, indptr, indices, values, factor, output)

    share_rows(matrix.rows, matrix.indices.numel() * dense.shape[1], work)
    return product


def _multiply_torch(matrix: Csr, dense: Tensor) -> Tensor:
    if matrix.indices.numel() == 0 or dense.numel() == 0:
        return dense.new_zeros(matrix.rows, dense.shape[1])
    return matrix.to_torch() @ dense


def _torch_sparse_engine() -> SpmmEngine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, torch_sparse still scripts its functions
        import torch_sparse  # noqa: PLC0415

    def multiply(matrix: Csr, dense: Tensor) -> Tensor:
        if matrix.indices.numel() == 0 or dense.numel() == 0:
            return dense.new_zeros(matrix.rows, dense.shape[1])
        sparse = torch_sparse.SparseTensor(
            rowptr=matrix.indptr.long(),
            col=matrix.indices.long(),
            value=matrix.values,
            sparse_sizes=(matrix.rows, matrix.columns),
            is_sorted=True,
            trust_data=True,
        )
        return torch_sparse.matmul(sparse, dense)  # type: ignore[no-any-return]

    return multiply
