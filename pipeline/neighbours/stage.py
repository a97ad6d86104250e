"""Neighbours: weights between items, from random walks over train interactions.

    item j ── user v ── item i

    S[j, i] = (Σ over users v of both deg(v)^-alpha / ((deg(j) deg(i))^beta + shrink))^power

A user's history scores item i by the sum of S over the items j in it: with the step from the user that makes three.
Degrees are those in the union of all domains' train interactions, so that users of several domains link the items of
one domain to those of others. With alpha 0, beta 1/2 and power 1 it is the shrunk cosine of item neighbours; with beta
0.35, no shrinkage and power 1 it is close to RP3beta [Paudel, Christoffel, Newell and Bernstein 2017].
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import NEIGHBOURS, UNION
from data_contracts.progress import Progress, silent
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.statistics import ItemGraphStatistics, NeighboursStatistics
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import neighbours_file
from data_contracts.store.store import Store
from pipeline.compute.array_folder import MemoryArrays, arrays_for
from pipeline.compute.fan_out import TaskProgress, fan_out, stream
from pipeline.compute.rows import CsrRows, scatter_indptr
from pipeline.graph import DomainGraph, build_edges
from pipeline.neighbours.chunks import NeighbourChunk, NeighbourComputation, NeighbourCounts, write_chunk
from pipeline.neighbours.row_file import write_row_file
from pipeline.neighbours.sampled import compare_with_exact
from pipeline.neighbours.train_graph import TrainGraph, count_items, read_all_nodes, read_train_graphs


def build_neighbours(
    store: Store,
    settings: NeighboursSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Compute for each item its largest weights to other items.

    Chunks of items are computed in parallel and kept, so that an interrupted attempt loses only those in progress.

    Args:
        store: where the artifact lives.
        settings: powers of the degrees, how many weights are kept, whose interactions are walked, and how.
        parents: `nodes` and `graph`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: called after each chunk of items, and while a model such as EASE is fitted before.

    Returns:
        A `neighbours` artifact with one row for each item that has train interactions; those whose users have no other
        item have empty lists.
    """

    def write(draft: Draft) -> None:
        domains = read_all_nodes(parents["nodes"])
        graphs = [
            _prepare_chunks(train, settings, draft.scratch / str(number), compute, progress)
            for number, train in enumerate(read_train_graphs(parents["graph"], domains, settings.scope))
        ]
        chunks = [chunk for _, chunks_of_graph in graphs for chunk in chunks_of_graph]
        sizes, names = [len(chunk.positions) for chunk in chunks], [chunk.computation.domain for chunk in chunks]
        counts = iter(fan_out(write_chunk, chunks, compute, TaskProgress(progress, "items", sizes, names)))
        statistics = NeighboursStatistics(graphs={})
        for computation, chunks_of_graph in graphs:
            total = NeighbourCounts.sum(islice(counts, len(chunks_of_graph)))
            paths = [chunk.path for chunk in chunks_of_graph]
            for path in paths:
                draft.adopt(path)
            row_file = draft.folder / neighbours_file(computation.domain)
            write_row_file(row_file, paths, count_items(domains), total.entries)
            statistics["graphs"][computation.domain or "union"] = ItemGraphStatistics(
                method=computation.choice.method,
                reason=computation.choice.reason,
                items=total.items,
                items_with_neighbours=total.items_with_neighbours,
                entries=total.entries,
                against_exact=compare_with_exact(computation.open_weights()),
            )
        draft.statistics |= statistics

    return store.make(NEIGHBOURS, settings.keyed(), parents, write)


def item_neighbours(
    interactions: sp.csr_array | sp.csr_matrix,
    settings: NeighboursSettings = NeighboursSettings(),
    compute: ComputeSettings = ComputeSettings(),
) -> sp.csr_array:
    """The weights between the items of a matrix, as the stage computes them, without any files.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        settings: powers of the degrees, how many weights are kept, and the method; the matrix is the scope.
        compute: threads and memory; the result does not depend on them.

    Returns:
        float32 [items, items], row j the largest weights from item j, columns ascending. For a matrix of ones,
        `interactions @ weights` scores all items for all users.
    """
    graph = DomainGraph.from_matrix(UNION, build_edges(interactions))
    items = np.arange(graph.nodes - graph.users, dtype=np.int32)
    computation = NeighbourComputation.build(TrainGraph(graph, items), settings, MemoryArrays(), compute)
    blocks = list(stream(computation.rows, computation.chunk_ranges(compute), compute))
    present = np.concatenate([np.empty(0, np.int32), *(numbers for numbers, _ in blocks)])
    rows = CsrRows.stack([rows_of_block for _, rows_of_block in blocks])
    return rows._replace(indptr=scatter_indptr(np.diff(rows.indptr), present, items.size)).to_scipy(items.size)


def _prepare_chunks(
    train: TrainGraph, settings: NeighboursSettings, folder: Path, compute: ComputeSettings, progress: Progress
) -> tuple[NeighbourComputation, list[NeighbourChunk]]:
    """A graph, its arrays written, and its chunks.

    With another memory setting chunks have other ranges, so their files are named by the range.
    """
    folder.mkdir(exist_ok=True)
    arrays = arrays_for(train.graph.nodes, folder / "graph")
    computation = NeighbourComputation.build(train, settings, arrays, compute, progress)
    return computation, [
        NeighbourChunk(computation, positions, folder / f"{positions.start}-{positions.stop}.parquet")
        for positions in computation.chunk_ranges(compute)
    ]
