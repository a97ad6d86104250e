"""The rows of a graph's items, computed chunk by chunk in any process that sees the stage's files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import NEIGHBOURS
from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.store.files import flush, write_checked
from pipeline.compute.array_folder import ArrayFolder
from pipeline.compute.dtypes import Ints
from pipeline.compute.fan_out import bounded_ranges
from pipeline.compute.method_choice import MethodChoice
from pipeline.compute.rows import CsrRows
from pipeline.compute.scratch import read_report, write_reports
from pipeline.graph import DomainGraph
from pipeline.neighbours.fitted import check_memory, fit_rows
from pipeline.neighbours.item_weights import ItemWeights
from pipeline.neighbours.sampled import choose_method
from pipeline.neighbours.train_graph import TrainGraph

_ENTRY_BYTES = 8
_CHUNKS_IN_MEMORY = 16
_ENTRIES_PER_CHUNK = 1 << 22
"""Most entries of a chunk, so that long rows of a million items make a few hundred chunks."""
_PRODUCTS_PER_ENTRY = 64
"""Multiply-adds that count as much as an entry, so that chunks of short rows are bounded, too."""


@dataclass(frozen=True)
class NeighbourComputation:
    """Computes the rows of any items of a graph, in any process; everything large is in its folder.

    Attributes:
        folder: of its arrays.
        domain: the graph's name; empty for the union of all domains.
        users: how many of its nodes are users.
        choice: of the method, with its reason.
        settings: of the stage.
    """

    folder: ArrayFolder
    domain: str
    users: int
    choice: MethodChoice
    settings: NeighboursSettings

    @classmethod
    def build(
        cls,
        train: TrainGraph,
        settings: NeighboursSettings,
        folder: ArrayFolder,
        compute: ComputeSettings,
        progress: Progress = silent,
    ) -> NeighbourComputation:
        """Choose the method and write the graph's arrays; those of an earlier attempt stay.

        Weights that are fitted are so here, all at once and with progress, and chunks only read them.

        Raises:
            MemoryLimitError: the fit takes more memory than `compute.memory_mib`.
        """
        graph, weights = train.graph, ItemWeights.from_graph(train.graph, settings)
        choice = check_memory(weights, compute) if settings.are_fitted else choose_method(weights.paths, settings)
        row_norms = {} if weights.row_norms is weights.norms else {"row_norms": weights.row_norms}
        folder.write_arrays(
            indptr=graph.indptr,
            indices=graph.indices,
            user_weights=weights.user_weights,
            norms=weights.norms,
            paths=weights.paths,
            items=train.items,
            present=np.flatnonzero(weights.paths),
            **row_norms,
        )
        computation = cls(folder, graph.domain, graph.users, choice, settings)
        if settings.are_fitted and not computation.fitted.exists():
            computation.fitted.write_rows([fit_rows(weights, compute, progress)])
        return computation

    @property
    def fitted(self) -> ArrayFolder:
        """The folder of all rows, where they are fitted at once."""
        return self.folder / "fitted"

    def open_weights(self) -> ItemWeights:
        """The weights between the graph's items, their arrays mapped."""
        arrays = self.folder.arrays()
        return ItemWeights(
            graph=DomainGraph(self.domain, self.users, arrays["indptr"], arrays["indices"]),
            user_weights=arrays["user_weights"],
            row_norms=arrays.get("row_norms", arrays["norms"]),
            norms=arrays["norms"],
            paths=arrays["paths"],
            settings=self.settings,
            method=self.choice.method,
        )

    def chunk_ranges(self, compute: ComputeSettings) -> list[range]:
        """Consecutive ranges of the items that have train interactions; a chunk takes a few seconds."""
        weights, present = self.open_weights(), self.folder.arrays()["present"]
        work = np.minimum(weights.paths[present], weights.walks) // _PRODUCTS_PER_ENTRY
        entries = np.minimum(weights.bound_rows(present), self.settings.top)
        if self.settings.are_fitted:
            work, entries = np.zeros_like(work), np.diff(self.fitted.rows().indptr)
        most = min((compute.memory_mib << 20) // (_ENTRY_BYTES * _CHUNKS_IN_MEMORY), _ENTRIES_PER_CHUNK)
        return bounded_ranges(np.maximum(entries, work), most)

    def rows(self, positions: range) -> tuple[Ints, CsrRows]:
        """A range of the items that have train interactions, and their rows, all numbered over all domains."""
        arrays = self.folder.arrays()
        items = arrays["present"][positions.start : positions.stop]
        rows = self.fitted.rows().select(positions) if self.settings.are_fitted else self.open_weights().rows(items)
        return arrays["items"][items], rows._replace(indices=arrays["items"][rows.indices])


@dataclass(frozen=True)
class NeighbourChunk:
    """Consecutive items with train interactions, and the Parquet file for their rows."""

    computation: NeighbourComputation
    positions: range
    path: Path


@dataclass(frozen=True)
class NeighbourCounts:
    """Rows, rows that are not empty, and weights in files of chunks."""

    items: int
    items_with_neighbours: int
    entries: int

    @classmethod
    def sum(cls, counts: Iterable[NeighbourCounts]) -> NeighbourCounts:
        """Of several chunks together."""
        totals = np.array([astuple(chunk) for chunk in counts], np.int64).reshape(-1, 3).sum(axis=0)
        return cls(*totals.tolist())


def write_chunk(chunk: NeighbourChunk) -> NeighbourCounts:
    """Write the rows of a chunk, unless an earlier attempt finished it."""
    report_path = chunk.path.with_suffix(".json")
    if report := read_report(report_path):
        return NeighbourCounts(**report)
    items, rows = chunk.computation.rows(chunk.positions)
    offsets = pa.array(rows.indptr.astype(np.int32))
    table = pa.table(
        {
            "domain": pa.repeat(pa.scalar(chunk.computation.domain), items.size),
            "item": pa.array(items),
            "neighbours": pa.ListArray.from_arrays(offsets, pa.array(rows.indices)),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(rows.weights)),
        }
    )
    write_checked(NEIGHBOURS, table, chunk.path, f"neighbours of {chunk.computation.domain or 'all domains'}")
    flush(chunk.path)
    counts = NeighbourCounts(items.size, int(np.count_nonzero(np.diff(rows.indptr))), rows.indices.size)
    write_reports({report_path: (asdict(counts), [chunk.path])})
    return counts
