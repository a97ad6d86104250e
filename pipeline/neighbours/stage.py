"""Neighbours: the items that three-step walks tie each item to, with weights (RP3beta).

    item j ── user v ── item i        S[j, i] = deg(j)^-alpha · Σ over users v of both deg(v)^-alpha · deg(i)^-beta

A user's history scores item i by the sum of S over the items j in it: the first of the three steps. Degrees are those
in the union of all domains' train interactions, so that users of several domains tie the items of one to those of
others. [Paudel, Christoffel, Newell and Bernstein 2017]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from data_contracts.artifact import Artifact
from data_contracts.contracts import NEIGHBOURS
from data_contracts.files import neighbours_file
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, NeighboursSettings
from data_contracts.store import Draft, Store
from pipeline.fanout import fan_out
from pipeline.neighbours.chunks import Chunk, Walked, Written, write_chunk
from pipeline.neighbours.row_file import write_row_file
from pipeline.neighbours.train_graph import TrainGraph, domain_graphs, item_count, read_all_nodes, union_graph


def build_neighbours(
    store: Store,
    settings: NeighboursSettings,
    parents: Mapping[str, Artifact],
    compute: ComputeSettings,
    progress: Progress = silent,
) -> Artifact:
    """Find for each item the items that walks over train interactions tie it to most.

    Chunks of items are worked on side by side and kept, so that an interrupted attempt loses no more than the chunks
    at hand.

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
        is_union = settings.scope == "union"
        graph = parents["graph"]
        graphs: Iterable[TrainGraph] = [union_graph(graph, numbered)] if is_union else domain_graphs(graph, numbered)
        draft.statistics["walked"] = {}
        for number, train in enumerate(graphs):
            walked = Walked.of(train, settings, draft.scratch / str(number) / "graph")
            written = _write_rows(draft, draft.scratch / str(number), walked, compute, progress)
            draft.statistics["walked"][walked.domain] = asdict(written)
            _write_tensors(draft, draft.scratch / str(number), walked.domain, item_count(numbered), written)

    return store.make(NEIGHBOURS, settings.keyed(), parents, write)


def _write_rows(draft: Draft, folder: Path, walked: Walked, compute: ComputeSettings, progress: Progress) -> Written:
    chunks = [
        Chunk(walked, places, folder / f"{number:06d}.parquet") for number, places in enumerate(walked.ranges(compute))
    ]
    sizes = [len(chunk.places) for chunk in chunks]
    written = fan_out(write_chunk, chunks, compute, progress, "items", sizes, [walked.domain] * len(chunks))
    for chunk in chunks:
        draft.adopt(chunk.path)
    names = ("items", "items_with_neighbours", "entries")
    return Written(*(sum(getattr(part, name) for part in written) for name in names))


def _write_tensors(draft: Draft, folder: Path, domain: str, items: int, written: Written) -> None:
    parts = sorted(folder.glob("*.parquet"))
    write_row_file(draft.folder / neighbours_file(domain), parts, items, written.entries)
