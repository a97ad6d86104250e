import numpy as np
import torch

from model.sparse.batch_scores import batch_scores, score_pattern
from model.sparse.matrix import choose_engine

_, MULTIPLY = choose_engine("native", torch.device("cpu"))
USERS = np.array([0, 2, 0], np.int32)
ITEMS = np.array([[1, 3], [3, 3], [4, 1]], np.int32)


def test_scores_are_dot_products_of_each_rows_user_with_its_items() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 7.0], [1.0, 1.0], [9.0, 9.0]])
    found = batch_scores(score_pattern(USERS, ITEMS, 6), vectors, MULTIPLY)
    assert found.tolist() == [[3.0, 19.0], [7.0, 7.0], [3.0, 3.0]]


def test_gradients_of_scores_are_those_of_plain_indexing() -> None:
    random = torch.Generator().manual_seed(1)
    vectors = torch.randn(6, 3, generator=random, requires_grad=True)
    weights = torch.randn(3, 2, generator=random)
    (batch_scores(score_pattern(USERS, ITEMS, 6), vectors, MULTIPLY) * weights).sum().backward()
    found, vectors.grad = vectors.grad, None
    ((vectors[USERS][:, None] * vectors[ITEMS]).sum(dim=2) * weights).sum().backward()
    torch.testing.assert_close(found, vectors.grad)


def test_a_row_may_repeat_its_items_more_often_than_there_are_nodes() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    pattern = score_pattern(np.array([0], np.int32), np.array([[1, 1, 1, 0]], np.int32), 2)
    assert batch_scores(pattern, vectors, MULTIPLY).tolist() == [[5.0, 5.0, 5.0, 5.0]]
