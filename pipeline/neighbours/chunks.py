"""Chunks: the rows of some items of a graph, in any process that sees the stage's files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import NEIGHBOURS
from data_contracts.settings import ComputeSettings, NeighboursSettings
from data_contracts.writing import flush, write_atomically, write_checked
from pipeline.fanout import bounded_ranges
from pipeline.graph import DomainGraph
from pipeline.neighbours.products import Numbers, Products, paths_of
from pipeline.neighbours.train_graph import TrainGraph
from pipeline.spill import Folder, Rows, spill_arrays, spilled_arrays

_ENTRY_BYTES = 8
_CHUNKS_IN_MEMORY = 16
_ENTRIES_PER_CHUNK = 1 << 22
_PRODUCTS_PER_ENTRY = 64
"""A chunk shall take a few seconds, however short its rows are: so many multiply-adds are like an entry."""


@dataclass(frozen=True)
class Walked:
    """A graph ready to be asked for any item's row; everything large is in a folder.

    Attributes:
        folder: of its arrays.
        domain: the graph's name; empty for the union of all domains.
        users: how many of its nodes are users.
        settings: of the stage.
    """

    folder: Folder
    domain: str
    users: int
    settings: NeighboursSettings

    @classmethod
    def of(cls, train: TrainGraph, settings: NeighboursSettings, folder: Folder) -> Walked:
        """Keep the graph's arrays; those that an earlier attempt kept stay."""
        graph, products = train.graph, Products.of(train.graph, settings)
        spill_arrays(
            folder,
            indptr=graph.indptr,
            indices=graph.indices,
            leaving=products.leaving,
            arriving=products.arriving,
            items=train.items,
            present=np.flatnonzero(graph.degrees[graph.users :]),
        )
        return cls(folder, graph.domain, graph.users, settings)

    def ranges(self, compute: ComputeSettings) -> list[range]:
        """Consecutive ranges of the items that have train interactions."""
        arrays = spilled_arrays(self.folder)
        paths = paths_of(self._graph())[arrays["present"]]
        lengths = np.minimum(paths, min(self.settings.top, arrays["items"].size))
        most = min((compute.memory_mib << 20) // (_ENTRY_BYTES * _CHUNKS_IN_MEMORY), _ENTRIES_PER_CHUNK)
        return bounded_ranges(np.maximum(np.maximum(lengths, paths // _PRODUCTS_PER_ENTRY), 1), most)

    def rows(self, places: range) -> tuple[Numbers, Rows]:
        """Numbers over all domains of a range of the items that have train interactions, and their rows in the same."""
        arrays = spilled_arrays(self.folder)
        products = Products(self._graph(), arrays["leaving"], arrays["arriving"], self.settings.top)
        items = arrays["present"][places.start : places.stop]
        rows = products.rows(items)
        return arrays["items"][items], rows._replace(indices=arrays["items"][rows.indices])

    def _graph(self) -> DomainGraph:
        arrays = spilled_arrays(self.folder)
        return DomainGraph(self.domain, self.users, arrays["indptr"], arrays["indices"])


@dataclass(frozen=True)
class Chunk:
    """Consecutive items with train interactions, and the Parquet file that their rows go to."""

    walked: Walked
    places: range
    path: Path


@dataclass(frozen=True)
class Written:
    """What a chunk's file holds: rows, rows that are not empty, weights."""

    items: int
    items_with_neighbours: int
    entries: int


def write_chunk(chunk: Chunk) -> Written:
    """Write the rows of a chunk; one that an earlier attempt finished is left as it is."""
    done = chunk.path.with_suffix(".json")
    if done.exists():
        return Written(**json.loads(done.read_text()))
    items, rows = chunk.walked.rows(chunk.places)
    offsets = pa.array(rows.indptr.astype(np.int32))
    table = pa.table(
        {
            "domain": pa.repeat(pa.scalar(chunk.walked.domain), items.size),
            "item": pa.array(items.astype(np.int32)),
            "neighbours": pa.ListArray.from_arrays(offsets, pa.array(rows.indices)),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(rows.weights)),
        }
    )
    write_checked(NEIGHBOURS, table, chunk.path, f"neighbours of {chunk.walked.domain or 'all domains'}")
    flush(chunk.path)
    written = Written(items.size, int(np.count_nonzero(np.diff(rows.indptr))), rows.indices.size)
    write_atomically({done: json.dumps(asdict(written)).encode()})
    return written
