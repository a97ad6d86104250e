"""Chunks: the rows of some items of a graph, in any process that sees the stage's files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.contracts import NEIGHBOURS
from data_contracts.settings import ComputeSettings, NeighboursSettings
from data_contracts.store.files import flush, write_atomically, write_checked
from pipeline.compute.fan_out import bounded_ranges
from pipeline.compute.rows import Rows
from pipeline.compute.scratch import Folder, spill_arrays, spilled_arrays
from pipeline.graph import DomainGraph, IntArray
from pipeline.neighbours.products import Products
from pipeline.neighbours.sampled import Choice, chosen_method
from pipeline.neighbours.train_graph import TrainGraph

_ENTRY_BYTES = 8
_CHUNKS_IN_MEMORY = 16
_ENTRIES_PER_CHUNK = 1 << 22
"""In one chunk; so long rows of a million items are a few hundred chunks."""
_PRODUCTS_PER_ENTRY = 64
"""Multiply-adds that count as much as an entry, so that chunks of short rows end, too."""


@dataclass(frozen=True)
class Walked:
    """A graph ready to be asked for any item's row, in any process; everything large is in a folder.

    Attributes:
        folder: of its arrays.
        domain: the graph's name; empty for the union of all domains.
        users: how many of its nodes are users.
        choice: of the method, with its reason.
        settings: of the stage.
    """

    folder: Folder
    domain: str
    users: int
    choice: Choice
    settings: NeighboursSettings

    @classmethod
    def of(cls, train: TrainGraph, settings: NeighboursSettings, folder: Folder) -> Walked:
        """Choose the method and keep the graph's arrays; those that an earlier attempt kept stay."""
        graph, products = train.graph, Products.of(train.graph, settings)
        spill_arrays(
            folder,
            indptr=graph.indptr,
            indices=graph.indices,
            of_users=products.of_users,
            norms=products.norms,
            paths=products.paths,
            items=train.items,
            present=np.flatnonzero(products.paths),
        )
        return cls(folder, graph.domain, graph.users, chosen_method(products.paths, settings), settings)

    def products(self) -> Products:
        """What rows are made of, mapped."""
        arrays = spilled_arrays(self.folder)
        graph = DomainGraph(self.domain, self.users, arrays["indptr"], arrays["indices"])
        factors = arrays["of_users"], arrays["norms"]
        return Products(graph, *factors, arrays["paths"], self.settings, self.choice.method)

    def ranges(self, compute: ComputeSettings) -> list[range]:
        """Consecutive ranges of the items that have train interactions, so large that a chunk takes some seconds."""
        products, present = self.products(), spilled_arrays(self.folder)["present"]
        work = np.minimum(products.paths[present], products.walks) // _PRODUCTS_PER_ENTRY
        entries = np.minimum(products.row_bounds(present), self.settings.top)
        most = min((compute.memory_mib << 20) // (_ENTRY_BYTES * _CHUNKS_IN_MEMORY), _ENTRIES_PER_CHUNK)
        return bounded_ranges(np.maximum(entries, work), most)

    def rows(self, places: range) -> tuple[IntArray, Rows]:
        """Numbers over all domains of a range of the items that have train interactions, and their rows in the same."""
        arrays = spilled_arrays(self.folder)
        items = arrays["present"][places.start : places.stop]
        rows = self.products().rows(items)
        return arrays["items"][items], rows._replace(indices=arrays["items"][rows.indices])


@dataclass(frozen=True)
class Chunk:
    """Consecutive items with train interactions, and the Parquet file that their rows go to."""

    walked: Walked
    places: range
    path: Path


@dataclass(frozen=True)
class Written:
    """What files of chunks hold: rows, rows that are not empty, weights."""

    items: int
    items_with_neighbours: int
    entries: int

    @classmethod
    def total(cls, parts: Iterable[Written]) -> Written:
        """Of several chunks together."""
        counts = np.array([astuple(part) for part in parts], np.int64).reshape(-1, 3).sum(axis=0)
        return cls(*counts.tolist())


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
            "item": pa.array(items),
            "neighbours": pa.ListArray.from_arrays(offsets, pa.array(rows.indices)),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(rows.weights)),
        }
    )
    write_checked(NEIGHBOURS, table, chunk.path, f"neighbours of {chunk.walked.domain or 'all domains'}")
    flush(chunk.path)
    written = Written(items.size, int(np.count_nonzero(np.diff(rows.indptr))), rows.indices.size)
    write_atomically({done: json.dumps(asdict(written)).encode()})
    return written
