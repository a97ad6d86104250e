"""Vocabularies: the distinct ids of users or items over all runs of all logs, ranked.

Ids are ranked by their bytes. In an update the ids known before come first, in the order that they had.

A run has codes of its own for its users and items. They are unified with those of all other runs, and the distinct ids
sorted once. The distinct ids of a kind, at most 2 GiB of text, are held in memory; rows are not touched.
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
from data_contracts.store.files import single_array
from pipeline.compute.dtypes import Ints, Longs
from pipeline.compute.scratch import batch_writer, ensure_folder, load_array, map_batches, map_table, write_table

_FEW = 1 << 20
"""Fewest ids that are unified at once, so that many small runs are taken together."""

_GROWTH = 4
"""Fewest ids that are unified at once for each one known, as the known ones are hashed again every time."""

_CODES = pa.schema([("code", pa.int32())])


@dataclass(frozen=True)
class VocabularyTask:
    """The ids of a kind to be ranked.

    Attributes:
        runs: Arrow files with a batch of distinct ids per run, in the order in which runs are numbered.
        folder: of the result.
        known: Arrow file of the ids that keep their order, from `write_known_ids`; None without any.
    """

    runs: tuple[Path, ...]
    folder: Path
    known: Path | None = None


def write_known_ids(nodes: Artifact, kind: str, path: Path) -> Path:
    """Write a kind's ids in the order of their numbers in earlier `nodes`."""
    table = nodes.read(["kind", "entity", "id"])
    table = table.filter(pc.equal(table["kind"], kind))
    _, first = np.unique(table["entity"].to_numpy(), return_index=True)
    write_table(path, table.select(["id"]).take(pa.array(first)))
    return path


def build_vocabulary(task: VocabularyTask) -> Path:
    """Rank the distinct ids of all runs, unless an earlier attempt did: the folder of a `Vocabulary`."""
    return ensure_folder(task.folder, partial(_write_vocabulary, task))


def _write_vocabulary(task: VocabularyTask, folder: Path) -> None:
    with batch_writer(folder / "codes.arrow", _CODES) as codes:
        ids = _unify_runs(_read_runs(task.runs), codes)
    order = pc.sort_indices(ids).to_numpy()
    byte_rank = _invert(order)
    if task.known is not None:
        order = np.argsort(_known_first(ids, byte_rank, task.known))
    write_table(folder / "ids.arrow", pa.table({"id": ids.take(pa.array(order))}))
    np.save(folder / "ranks.npy", _invert(order))
    np.save(folder / "byte_rank.npy", byte_rank[order])


def _invert(order: npt.NDArray[np.integer]) -> Ints:
    """The inverse of a permutation."""
    ranks = np.empty(order.size, np.int32)
    ranks[order] = np.arange(order.size, dtype=np.int32)
    return ranks


def _known_first(ids: pa.Array, byte_rank: Ints, known: Path) -> Longs:
    """int64 [ids], sort keys: the index among the known ids or, behind all of these, the rank by bytes."""
    known_ids = map_table(known)["id"]
    index = pc.index_in(ids, known_ids)
    return np.where(index.is_valid(), index.fill_null(0), byte_rank.astype(np.int64) + len(known_ids))


def _read_runs(paths: Iterable[Path]) -> Iterator[pa.Array]:
    for path in paths:
        reader = map_batches(path)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).column(0)


def _unify_runs(runs: Iterator[pa.Array], codes: ipc.RecordBatchFileWriter) -> pa.Array:
    """Distinct ids in the order in which they first occur; the code of each id of each run is written to `codes`.

    Runs are unified in groups that grow with the ids known, so that hashing these again costs little.
    """
    ids, group, count = pa.array([], pa.string()), [], 0
    for run in runs:
        group.append(run)
        count += len(run)
        if count >= max(_GROWTH * len(ids), _FEW):
            ids, group, count = _unify(ids, group, codes), [], 0
    return _unify(ids, group, codes) if group else ids


def _unify(ids: pa.Array, runs: list[pa.Array], codes: ipc.RecordBatchFileWriter) -> pa.Array:
    """Known ids keep their codes, because they come first."""
    dictionaries = [
        pa.DictionaryArray.from_arrays(pa.array(np.arange(len(distinct), dtype=np.int32)), distinct)
        for distinct in [ids, *runs]
    ]
    unified = pa.chunked_array(dictionaries).unify_dictionaries()
    for number in range(1, unified.num_chunks):
        codes.write_batch(pa.record_batch([unified.chunk(number).indices], _CODES))
    return unified.chunk(0).dictionary


class Vocabulary:
    """The ranked distinct ids of a kind, and the ranks of each run's codes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._codes = map_batches(folder / "codes.arrow")
        self._ranks: Ints = load_array(folder / "ranks.npy", mode="r")

    def __len__(self) -> int:
        return len(self._ranks)

    @property
    def ids(self) -> pa.StringArray:
        """All distinct ids by rank."""
        return single_array(map_table(self.folder / "ids.arrow")["id"])

    @property
    def byte_rank(self) -> Ints:
        """int32 [ids], by rank, the id's rank in the byte order of UTF-8."""
        ranks: Ints = load_array(self.folder / "byte_rank.npy", mode="r")
        return ranks

    def ranks(self, run: int, codes: Ints) -> Ints:
        """Ranks of a run's codes."""
        unified = self._codes.get_batch(run).column(0).to_numpy()
        ranks: Ints = self._ranks.take(unified.take(codes))
        return ranks

    def ranks_of_run(self, run: int) -> Ints:
        """Ranks of all ids of a run."""
        ranks: Ints = self._ranks.take(self._codes.get_batch(run).column(0).to_numpy())
        return ranks
