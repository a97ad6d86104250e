"""The rows of a `neighbours` artifact, memory-mapped, read without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.contracts import UNION
from data_contracts.store.artifact import Artifact
from data_contracts.store.files import neighbours_file
from model.compute.mapped_tensors import open_tensors
from model.sparse.rows import Ints, Longs

_TENSORS = {"indptr": np.int64, "neighbours": np.int32, "weights": np.float32}


@dataclass(frozen=True)
class ItemNeighbours:
    """A sparse matrix S of items × items over all domains, in compressed rows, mapped from a file.

    Attributes:
        indptr: int64 (items + 1).
        neighbours: int32, ascending within a row.
        weights: float32, above 0.
    """

    indptr: Longs
    neighbours: Ints
    weights: NDArray[np.float32]

    @property
    def rows(self) -> tuple[Longs, Ints, NDArray[np.float32]]:
        """The three arrays, as kernels take them."""
        return self.indptr, self.neighbours, self.weights


def open_neighbours(artifact: Artifact, items: int, domain: str = UNION) -> ItemNeighbours:
    """Map the rows of the union, or of one domain if walks stayed within domains.

    Args:
        artifact: a `neighbours` artifact.
        items: number of items of all domains.
        domain: whose rows; the union's by default.

    Raises:
        ValueError: the rows are of another number of items.
        OSError: the file is missing or damaged.
    """
    path = artifact.path / neighbours_file(domain)
    tensors = open_tensors(artifact, neighbours_file(domain), dict.fromkeys(_TENSORS, (None,)))
    if {key: tensor.dtype for key, tensor in tensors.items()} != _TENSORS:
        raise ValueError(f"{path}: tensors must be {', '.join(_TENSORS)} of int64, int32, float32; make it again")
    rows = ItemNeighbours(**tensors)
    first, last = (int(rows.indptr[0]), int(rows.indptr[-1])) if rows.indptr.size else (0, 0)
    if rows.indptr.size != items + 1:
        raise ValueError(f"{path}: has {rows.indptr.size - 1} rows, must be {items}, one for each item; make it again")
    if (first, last) != (0, rows.neighbours.size) or rows.weights.size != last or (np.diff(rows.indptr) < 0).any():
        raise ValueError(f"{path}: indptr must ascend from 0 to the {rows.neighbours.size} neighbours; make it again")
    if rows.neighbours.size and not 0 <= int(rows.neighbours.min()) <= int(rows.neighbours.max()) < items:
        raise ValueError(f"{path}: neighbours must be item numbers from 0 to {items - 1}; make it again")
    return rows
