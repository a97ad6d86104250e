"""Runs to measure, from a store or from a small generated world, and their reach vectors, recomputed."""

# mypy: ignore-errors
from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays
from pipeline.compute.fan_out import ranges
from pipeline.compute.rows import ragged_tables
from pipeline.graph import build_graph, number_nodes, read_graph, read_nodes
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach
from pipeline.reach.vectors import ReachComputation
from pipeline.reach.walk_graph import WalkGraph
from pipeline.synthetic import make_world, world_logs

ONE_THREAD = ComputeSettings(threads=1)
NODES_AT_ONCE = 8192


def load_artifacts(run: Path | None, store: Store, world: WorldSettings | None = None) -> dict[str, Artifact]:
    """Artifacts of a run by role; without a run, those of a generated world from interactions to graph."""
    if run:
        store = Store(run.parent.parent)
        return store.recorded(store.run(run.name))
    logs = world_logs(make_world(store, world or WorldSettings(), {}, ONE_THREAD))
    made = ingest(store, IngestSettings(), find_logs(logs, store.root), ONE_THREAD)
    made["nodes"] = number_nodes(store, GraphSettings(), made, ONE_THREAD)
    made["graph"] = build_graph(store, GraphSettings(), made, ONE_THREAD)
    return made


class Recomputed:
    """Exact reach vectors, computed on demand and read like an artifact.

    Attributes:
        seconds: CPU seconds spent so far.
    """

    def __init__(self, nodes: Artifact, graph: Artifact, kept: int, folder: Path) -> None:
        self.seconds = 0.0
        self._nodes, self._graph, self._folder = nodes, graph, folder
        self._settings = ReachSettings(anchors_kept=kept)

    def batches(self, columns: list[str], domain: str) -> Iterator[pa.Table]:
        """Vectors of consecutive nodes of a domain."""
        started = time.process_time()
        nodes = read_nodes(self._nodes, domain)
        walk_graph = WalkGraph(read_graph(self._graph, nodes), nodes.is_anchor, self._settings.steps)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            computation = ReachComputation.build(
                walk_graph, "exact", self._settings, DiskArrays(Path(folder)), ONE_THREAD
            )
            for part in ranges(nodes.entity.size, NODES_AT_ONCE):
                rows = computation.rows(np.arange(part.start, part.stop))
                arrays = dict(zip(columns, (rows.indices.astype(np.int32, copy=False), rows.data), strict=True))
                self.seconds += time.process_time() - started
                yield from ragged_tables(part.start, rows.indptr, arrays)
                started = time.process_time()
        self.seconds += time.process_time() - started


def generated(store: Store, world: WorldSettings | None = None) -> dict[str, Artifact]:
    """The artifacts of a generated world up to its pairs, by role."""
    made = load_artifacts(None, store, world)
    made["reach"] = compute_reach(store, ReachSettings(), made, ONE_THREAD)
    made["pairs"] = pair_domains(store, PairsSettings(), made, ONE_THREAD)
    return made
