"""Numbering: the distinct ids of one kind over all runs of all logs, in an order of their own.

The order is that of the ids' bytes. In an update the ids known before come first, in the order that they had.

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

from data_contracts.store.artifact import Artifact
from pipeline.compute.scratch import batch_writer, load_array, made, mapped, mapped_table, write_table

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
        known: Arrow file of the ids that keep their order, as `write_known` leaves it; None without any.
    """

    runs: tuple[Path, ...]
    folder: Path
    known: Path | None = None


def write_known(nodes: Artifact, kind: str, path: Path) -> Path:
    """Keep a kind's ids in the order of the numbers that these nodes give them."""
    found = nodes.read(["kind", "entity", "id"])
    found = found.filter(pc.equal(found["kind"], kind))
    _, first = np.unique(found["entity"].to_numpy(), return_index=True)
    write_table(path, found.select(["id"]).take(pa.array(first)))
    return path


def number_ids(numbering: Numbering) -> Path:
    """Number the distinct ids of all runs, unless an earlier attempt did: a folder for `NumberedIds`."""
    return made(numbering.folder, partial(_write, numbering))


def _write(numbering: Numbering, folder: Path) -> None:
    with batch_writer(folder / "codes.arrow", _CODES) as codes:
        ids = _joined_ids(_runs(numbering.runs), codes)
    order = pc.sort_indices(ids).to_numpy()
    places = _ranks(order)
    if numbering.known is not None:
        order = np.argsort(_known_first(ids, places, numbering.known))
    write_table(folder / "ids.arrow", pa.table({"id": ids.take(pa.array(order))}))
    np.save(folder / "ranks.npy", _ranks(order))
    np.save(folder / "places.npy", places[order])


def _ranks(order: npt.NDArray[np.integer]) -> Ranks:
    ranks = np.empty(order.size, np.int32)
    ranks[order] = np.arange(order.size, dtype=np.int32)
    return ranks


def _known_first(ids: pa.Array, places: Ranks, known: Path) -> npt.NDArray[np.int64]:
    """What ids are ordered by: where they are known, their place there; behind these, their place among all."""
    before = mapped_table(known)["id"]
    found = pc.index_in(ids, before)
    return np.where(found.is_valid(), found.fill_null(0), places.astype(np.int64) + len(before))


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
    """The ordered distinct ids of one kind, and the rank of each run's codes among them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._codes = mapped(folder / "codes.arrow")
        self._ranks: Ranks = load_array(folder / "ranks.npy", mode="r")

    def __len__(self) -> int:
        return len(self._ranks)

    @property
    def ids(self) -> pa.StringArray:
        """All distinct ids by rank."""
        column = mapped_table(self.folder / "ids.arrow")["id"]
        return column.chunk(0) if column.num_chunks else pa.array([], pa.string())

    @property
    def places(self) -> Ranks:
        """By rank, the id's place in the byte order of UTF-8."""
        places: Ranks = load_array(self.folder / "places.npy", mode="r")
        return places

    def ranks(self, run: int, codes: npt.NDArray[np.int32]) -> Ranks:
        """Ranks of a run's codes."""
        joined = self._codes.get_batch(run).column(0).to_numpy()
        ranks: Ranks = self._ranks.take(joined.take(codes))
        return ranks
