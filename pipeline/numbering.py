"""Numbering: the sorted distinct ids of one kind over all runs of all logs.

A run names its users and items by codes of its own. Here its codes are joined with those of all other runs, and the
distinct ids sorted once. The distinct ids of a kind, at most 2 GiB of text, are held in memory; rows are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from pipeline.scratch import batch_writer, made, mapped, mapped_table, write_table
from pipeline.spill import load_array

Ranks = npt.NDArray[np.int32]

_FEW = 1 << 20
"""Ids that are joined in one go at least, so that many small runs are joined together."""

_GROWTH = 4
"""Ids that are joined in one go at least, for each one known, as the known ones are hashed anew every time."""

_CODES = pa.schema([("code", pa.int32())])


@dataclass(frozen=True)
class Numbering:
    """One kind's ids to be numbered.

    Attributes:
        runs: Arrow files with a batch of distinct ids per run, in the order in which runs are numbered.
        folder: where the result goes.
    """

    runs: tuple[Path, ...]
    folder: Path


def number_ids(numbering: Numbering) -> Path:
    """Number the distinct ids of all runs, unless an earlier attempt did: a folder for `NumberedIds`."""
    return made(numbering.folder, partial(_write, numbering))


def _write(numbering: Numbering, folder: Path) -> None:
    with batch_writer(folder / "codes.arrow", _CODES) as codes:
        ids = _joined_ids(_runs(numbering.runs), codes)
    order = pc.sort_indices(ids)
    ranks = np.empty(len(ids), np.int32)
    ranks[order.to_numpy()] = np.arange(len(ids), dtype=np.int32)
    write_table(folder / "ids.arrow", pa.table({"id": ids.take(order)}))
    np.save(folder / "ranks.npy", ranks)


def _runs(paths: Iterable[Path]) -> Iterator[pa.Array]:
    for path in paths:
        reader = mapped(path)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).column(0)


def _joined_ids(runs: Iterator[pa.Array], codes: ipc.RecordBatchFileWriter) -> pa.Array:
    """Distinct ids in the order in which they first occur; `codes` is told where each id of each run is among them.

    Runs are joined in groups that grow with the ids known, so that hashing these anew costs little.
    """
    ids, waiting, count = pa.array([], pa.string()), [], 0
    for run in runs:
        waiting.append(run)
        count += len(run)
        if count >= max(_GROWTH * len(ids), _FEW):
            ids, waiting, count = _join(ids, waiting, codes), [], 0
    return _join(ids, waiting, codes) if waiting else ids


def _join(ids: pa.Array, runs: list[pa.Array], codes: ipc.RecordBatchFileWriter) -> pa.Array:
    """Known ids keep their codes, because they come first."""
    own = [
        pa.DictionaryArray.from_arrays(pa.array(np.arange(len(part), dtype=np.int32)), part) for part in [ids, *runs]
    ]
    joined = pa.chunked_array(own).unify_dictionaries()
    for number in range(1, joined.num_chunks):
        codes.write_batch(pa.record_batch([joined.chunk(number).indices], _CODES))
    return joined.chunk(0).dictionary


class NumberedIds:
    """The sorted distinct ids of one kind, and the rank of each run's codes among them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._codes = mapped(folder / "codes.arrow")
        self._ranks: Ranks = load_array(folder / "ranks.npy", mode="r")

    def __len__(self) -> int:
        return len(self._ranks)

    @property
    def ids(self) -> pa.StringArray:
        """All distinct ids in the byte order of UTF-8."""
        column = mapped_table(self.folder / "ids.arrow")["id"]
        return column.chunk(0) if column.num_chunks else pa.array([], pa.string())

    def ranks(self, run: int, codes: npt.NDArray[np.int32]) -> Ranks:
        """Ranks of a run's codes."""
        joined = self._codes.get_batch(run).column(0).to_numpy()
        ranks: Ranks = self._ranks.take(joined.take(codes))
        return ranks
