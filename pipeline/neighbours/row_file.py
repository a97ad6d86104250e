"""The rows of a graph's items as a file of tensors, for readers that map it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_contracts.store.files import read_rows, tensors_header
from pipeline.compute.rows import ragged_arrays


def write_row_file(path: Path, files: Sequence[Path], items: int, entries: int) -> None:
    """Join the rows of several Parquet files into a safetensors file, with one of them in memory at a time.

    Args:
        path: of the result: `neighbours` int32 [entries], `weights` float32 [entries] and `indptr` int64 [items + 1],
            where the row of each item starts; an item in none of the files has an empty row.
        files: of a `neighbours` artifact, items ascending.
        items: rows, by the items' numbers over all domains.
        entries: of all files together.
    """
    lengths = np.zeros(items + 1, np.int64)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as stream:
        stream.write(
            tensors_header(
                {
                    "neighbours": ("I32", (entries,), 4 * entries),
                    "weights": ("F32", (entries,), 4 * entries),
                    "indptr": ("I64", (items + 1,), 8 * (items + 1)),
                }
            )
        )
        for file in files:
            table = read_rows(file, ["item", "neighbours"])
            indptr, (neighbours,) = ragged_arrays(table, ["neighbours"])
            lengths[table["item"].to_numpy() + 1] = np.diff(indptr)
            stream.write(neighbours.data)
        for file in files:
            _, (weights,) = ragged_arrays(read_rows(file, ["weights"]), ["weights"])
            stream.write(weights.data)
        stream.write(np.cumsum(lengths).data)
