"""Capped ranks compared with counting."""

import numpy as np
import pytest

from model.evaluation.fit_kernels import capped_ranks


@pytest.mark.parametrize("most", [1, 3, 100])
def test_ranks_are_counted_up_to_one_more_than_the_most(most):
    random = np.random.default_rng(1)
    scores, evidence = random.integers(-3, 4, (2, 4, 9)).astype(np.float32)
    factors = random.integers(0, 3, (5, 2, 4)).astype(np.float32)
    rows, items = np.repeat(np.arange(4), 9), np.tile(np.arange(9), 4).astype(np.int32)
    ranks = np.full((5, 36), -1, np.int32)
    capped_ranks(scores, evidence, factors, (rows, items), most, ranks)
    for blend in range(5):
        blended = factors[blend, 0][:, None] * scores + factors[blend, 1][:, None] * evidence
        for n, (row, item) in enumerate(zip(rows, items, strict=True)):
            assert ranks[blend, n] == min((blended[row] >= blended[row, item]).sum(), most + 1)
