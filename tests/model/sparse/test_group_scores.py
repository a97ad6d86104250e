import numpy as np
import pytest
import torch

from model.compute.threads import torch_threads
from model.sparse.group_scores import group_pattern, group_products, group_scores, group_windows
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))


def test_the_last_group_borrows_the_negatives_of_rows_before_it() -> None:
    assert list(group_windows(7, 3)) == [
        (slice(0, 3), slice(0, 3)),
        (slice(3, 6), slice(3, 6)),
        (slice(6, 7), slice(4, 7)),
    ]


def test_few_rows_are_one_group() -> None:
    assert list(group_windows(2, 5)) == [(slice(0, 2), slice(0, 2))]


def dense_products(left: torch.Tensor, right: torch.Tensor, size: int) -> torch.Tensor:
    """Row i with rows w(i) … w(i) + size - 1, where w(i) is the multiple of size below i, or the last window."""
    products, size = left @ right.T, min(size, left.shape[0])
    starts = [min(row // size * size, left.shape[0] - size) for row in range(left.shape[0])]
    return torch.stack([products[row, start : start + size] for row, start in enumerate(starts)])


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (7, 3), (6, 3), (5, 8), (300, 256)])
def test_products_and_gradients_equal_those_of_the_whole_matrix(rows: int, size: int) -> None:
    draws = torch.Generator().manual_seed(1)
    inputs = [torch.randn(rows, 4, generator=draws, requires_grad=True) for _ in range(2)]
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = group_products(*inputs, size), dense_products(*doubles, size)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(found.shape, generator=draws)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    for tensor, double in zip(inputs, doubles, strict=True):
        torch.testing.assert_close(tensor.grad.double(), double.grad, atol=1e-4, rtol=1e-4)


def test_products_do_not_depend_on_the_number_of_threads() -> None:
    draws = torch.Generator().manual_seed(1)
    left, right = (torch.randn(1000, 160, generator=draws) for _ in range(2))
    products = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            products.append(group_products(left, right, 256))
    assert torch.equal(products[0], products[1])
    assert torch.equal(products[0], products[2])


def test_each_rows_user_is_scored_with_its_positive_and_its_groups_negatives() -> None:
    positions = np.array([[0, 1, 0], [2, 3, 3], [4, 4, 2]], np.int32)
    pattern = group_pattern(positions, 5, np.array([8, 9, 8]), np.zeros((3, 2), np.bool_))
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [1.0, 5.0], [2.0, 2.0]])
    positive, negative, squares = group_scores(pattern, vectors, MULTIPLY)
    assert positive.tolist() == [3.0, 10.0, 1.0]
    assert negative.tolist() == [[2.0, 2.0], [4.0, 4.0], [2.0, 3.0]]
    assert squares.tolist() == [[1.0, 4.0, 1.0], [10.0, 26.0, 26.0], [8.0, 8.0, 10.0]]
    assert (pattern.rows, pattern.users.tolist()) == (3, [8, 9, 8])
