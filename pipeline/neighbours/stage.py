"""Neighbours: the items that walks over train interactions tie each item to, with weights.

    item j ── user v ── item i

    S[j, i] = (Σ over users v of both deg(v)^-alpha / ((deg(j) deg(i))^beta + shrink))^power

A user's history scores item i by the sum of S over the items j in it: with the step from the user that makes three.
Degrees are those in the union of all domains' train interactions, so that users of several domains tie the items of one
to those of others. With alpha 0, beta 1/2 and power 1 it is the shrunk cosine of item neighbours; with beta 0.35, no
shrinkage and power 1 it is close to RP3beta [Paudel, Christoffel, Newell and Bernstein 2017].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from data_contracts.contracts import NEIGHBOURS, UNION
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, NeighboursSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import neighbours_file
from data_contracts.store.store import Store
from pipeline.compute.fan_out import fan_out, stream
from pipeline.compute.rows import scipy_rows, spread_indptr, stacked
from pipeline.compute.scratch import Memory, is_small
from pipeline.graph import DomainGraph, edges_of
from pipeline.neighbours.chunks import Chunk, Walked, Written, write_chunk
from pipeline.neighbours.row_file import write_row_file
from pipeline.neighbours.sampled import against_exact
from pipeline.neighbours.train_graph import TrainGraph, item_count, read_all_nodes, train_graphs


def build_neighbours(
    store: Store,
    settings: NeighboursSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Find for each item the items that walks over train interactions tie it to most.

    Chunks of items are worked on side by side and kept, so that an interrupted attempt loses only those in progress.

    Args:
        store: where the artifact lives.
        settings: powers of the degrees, how many weights are kept, whose interactions are walked, and how.
        parents: `nodes` and `graph`.
        compute: threads or Dask scheduler, and memory; the result does not depend on them.
        progress: told after each chunk of items.

    Returns:
        A `neighbours` artifact with one row for each item that has train interactions; those whose users have no other
        item have empty lists.
    """

    def write(draft: Draft) -> None:
        numbered = read_all_nodes(parents["nodes"])
        graphs = [
            _prepared(train, settings, draft.scratch / str(number), compute)
            for number, train in enumerate(train_graphs(parents["graph"], numbered, settings.scope))
        ]
        chunks = [chunk for _, of_graph in graphs for chunk in of_graph]
        sizes, parts = [len(chunk.places) for chunk in chunks], [chunk.walked.domain for chunk in chunks]
        written = iter(fan_out(write_chunk, chunks, compute, progress, "items", sizes, parts))
        draft.statistics["graphs"] = {}
        for walked, of_graph in graphs:
            total = Written.total(islice(written, len(of_graph)))
            _collect(draft, walked, of_graph, item_count(numbered), total.entries)
            found = {**asdict(walked.choice), **asdict(total), "against_exact": against_exact(walked.products())}
            draft.statistics["graphs"][walked.domain or "union"] = found

    return store.make(NEIGHBOURS, settings.keyed(), parents, write)


def item_neighbours(
    interactions: sp.csr_array | sp.csr_matrix,
    settings: NeighboursSettings = NeighboursSettings(),
    compute: ComputeSettings = ComputeSettings(),
) -> sp.csr_array:
    """The weights between the items of a matrix, as the stage finds them; no files are made.

    Args:
        interactions: [users, items], any dtype; an entry is an interaction, whatever its value, unless that is zero.
        settings: powers of the degrees, how many weights are kept, and how they are found; the matrix is the scope.
        compute: threads and memory; the result does not depend on them.

    Returns:
        float32 [items, items], row j the largest weights from item j, columns ascending. For a matrix of ones,
        `interactions @ weights` scores all items for all users.
    """
    graph = DomainGraph.of(UNION, edges_of(interactions))
    items = np.arange(graph.nodes - graph.users, dtype=np.int32)
    walked = Walked.of(TrainGraph(graph, items), settings, Memory())
    parts = list(stream(walked.rows, walked.ranges(compute), compute))
    rows = stacked([part for _, part in parts])
    present = np.concatenate([np.empty(0, np.int32), *(numbers for numbers, _ in parts)])
    return scipy_rows(rows._replace(indptr=spread_indptr(np.diff(rows.indptr), present, items.size)), items.size)


def _prepared(
    train: TrainGraph, settings: NeighboursSettings, folder: Path, compute: ComputeSettings
) -> tuple[Walked, list[Chunk]]:
    """A graph whose arrays are kept, and its chunks.

    Chunks' files are named by what is in them: an attempt with another memory has others, and finds none of these.
    """
    folder.mkdir(exist_ok=True)
    walked = Walked.of(train, settings, Memory() if is_small(train.graph.nodes) else folder / "graph")
    ranges = walked.ranges(compute)
    return walked, [Chunk(walked, places, folder / f"{places.start}-{places.stop}.parquet") for places in ranges]


def _collect(draft: Draft, walked: Walked, chunks: list[Chunk], items: int, entries: int) -> None:
    """Put a graph's chunks into the draft, as they are and as one file of tensors."""
    paths = [chunk.path for chunk in chunks]
    for path in paths:
        draft.adopt(path)
    write_row_file(draft.folder / neighbours_file(walked.domain), paths, items, entries)
