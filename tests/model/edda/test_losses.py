import math

import pytest
import torch

from model.edda.losses import bpr, half_squares, ordered_sum


def test_bpr_is_the_mean_softplus_of_negative_minus_positive() -> None:
    found = bpr(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    assert found.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2)


def test_bpr_is_the_mean_over_a_positives_negatives() -> None:
    each = [bpr(torch.tensor([[0.5, negative]])).item() for negative in (-1.0, 0.0, 3.0)]
    assert bpr(torch.tensor([[0.5, -1.0, 0.0, 3.0]])).item() == pytest.approx(sum(each) / 3)


def test_bpr_stays_finite_for_hopeless_scores() -> None:
    assert bpr(torch.tensor([[-1e4, 1e4]])).item() == pytest.approx(2e4)


def test_half_squares_count_a_vector_as_often_as_it_occurs() -> None:
    found = half_squares(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([2.0, 1.0]))
    assert found.item() == pytest.approx(0.5 * (2 * 5 + 9))


def test_the_gradient_of_half_squares_has_the_bits_of_torchs() -> None:
    draws = torch.Generator().manual_seed(1)
    layer0, counts = torch.randn(3000, 33, generator=draws), torch.randint(0, 9, (3000,), generator=draws).float()
    ours, theirs = (layer0.clone().requires_grad_() for _ in range(2))
    losses = half_squares(ours, counts), 0.5 * ordered_sum(theirs.square().sum(dim=1) * counts)
    for loss in losses:
        (0.37 * loss).backward()
    assert losses[0].item() == losses[1].item()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 5000, 1_100_000])
def test_ordered_sum_adds_everything(size: int) -> None:
    assert ordered_sum(torch.ones(size)).item() == size


def test_ordered_sum_does_not_depend_on_the_number_of_threads() -> None:
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    sums = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        sums.append(ordered_sum(values).item())
    torch.set_num_threads(before)
    assert len(set(sums)) == 1
