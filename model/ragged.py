"""Ragged rows: arrays of lists in compressed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pick_rows(indptr: NDArray[np.int64], values: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The chosen rows of a compressed array, one after another, as (indptr, values); repeated rows are repeated."""
    first = indptr[rows]
    lengths = indptr[rows.astype(np.int64) + 1] - first
    picked = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return picked, values[np.arange(picked[-1]) + np.repeat(first - picked[:-1], lengths)]
