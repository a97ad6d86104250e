"""Random walks: our kernel beside DGL, torch-sparse and NumPy, on the same graph, in one run, on one thread.

    python benchmarks/walks.py                          # a generated graph of 1,000,000 nodes and 10,000,000 edges
    python benchmarks/walks.py --users 30000 --items 15000 --edges 150000
    python benchmarks/walks.py --run edda-store/runs/aliccp --domain d2

Peers: `pip install --no-deps dgl==1.1.3 tqdm`; torch-sparse by `make sparse`. Those absent are left out. Every
contender takes walks of 4 steps, as many from each node, the peers from a tenth of our nodes; figures are steps per CPU
second, the best of several repeats in turn. The limit is how fast this machine reads random 4-byte words from an array
of the graph's size.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import scipy.sparse as sp

from data_contracts.store import Store
from pipeline.graph import DomainGraph, read_graph
from pipeline.kernels import mix, walk_hits
from pipeline.nodes import read_nodes

STEPS = 4
Walk = Callable[[np.ndarray, int], object]


def main() -> None:
    """Measure and print."""
    options = parsed()
    graph = graph_of(options)
    walkable = np.flatnonzero(graph.degrees > 0)
    sources = np.random.default_rng(1).choice(walkable, min(options.sources, walkable.size), replace=False)
    contenders = {
        name: make(graph)
        for name, make in (
            ("edda", ours),
            ("dgl", dgl_walk),
            ("torch-sparse", torch_sparse_walk),
            ("numpy", numpy_walk),
        )
    }
    present = {name: walk for name, walk in contenders.items() if walk is not None}
    seconds = measured(present, sources.astype(np.int32), options)
    rates = {name: sources.size * options.walks * STEPS / value for name, value in seconds.items()}
    report(graph, rates, random_reads_per_second(graph.indices.size), as_json=options.json)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=800_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--run", type=Path, help="a run's folder in a store, in place of a generated graph")
    parser.add_argument("--domain", help="the domain of --run")
    parser.add_argument("--sources", type=int, default=2_000, help="nodes walked from")
    parser.add_argument("--walks", type=int, default=500, help="walks from each")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def graph_of(options: argparse.Namespace) -> DomainGraph:
    """The graph asked for; a generated one has items of long-tailed popularity."""
    if options.run:
        artifacts, _ = Store(options.run.parent.parent).run(options.run.name)
        return read_graph(artifacts["graph"], read_nodes(artifacts["nodes"], options.domain))
    draw = np.random.default_rng(0)
    users = draw.integers(0, options.users, options.edges)
    items = options.users + (options.items * draw.random(options.edges) ** 2).astype(np.int64)
    both = np.concatenate([users, items]), np.concatenate([items, users])
    nodes = options.users + options.items
    adjacency = sp.csr_array((np.ones(both[0].size, np.int8), both), shape=(nodes, nodes))
    adjacency.sum_duplicates()
    return DomainGraph(
        "generated", options.users, adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)
    )


def ours(graph: DomainGraph) -> Walk:
    """End points counted on anchors; one node in ten is an anchor."""
    is_anchor = np.random.default_rng(2).random(graph.nodes) < 0.1
    counts_step = np.array([False] * STEPS + [True])

    def walk(sources: np.ndarray, walks: int) -> object:
        hits, found = np.empty(sources.size * walks, np.int32), np.zeros(sources.size + 1, np.int64)
        return walk_hits(graph.indptr, graph.indices, is_anchor, counts_step, sources, walks, np.uint64(1), hits, found)

    return walk


def dgl_walk(graph: DomainGraph) -> Walk | None:
    """DGL's sampler."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import dgl
            import torch
    except ImportError:
        return None
    rows = np.repeat(np.arange(graph.nodes, dtype=np.int32), graph.degrees)
    peer = dgl.graph((torch.from_numpy(rows), torch.from_numpy(graph.indices)), num_nodes=graph.nodes)
    peer = peer.formats(["csr"])
    return lambda sources, walks: dgl.sampling.random_walk(
        peer, torch.from_numpy(sources).repeat_interleave(walks), length=STEPS
    )


def torch_sparse_walk(graph: DomainGraph) -> Walk | None:
    """torch-sparse's sampler."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            import torch_sparse  # noqa: F401
    except ImportError:
        return None
    indptr, indices = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices.astype(np.int64))
    return lambda sources, walks: torch.ops.torch_sparse.random_walk(
        indptr, indices, torch.from_numpy(sources.astype(np.int64)).repeat_interleave(walks), STEPS
    )


def numpy_walk(graph: DomainGraph) -> Walk:
    """One vectorised step after another."""
    draw = np.random.default_rng(3)

    def walk(sources: np.ndarray, walks: int) -> object:
        at = np.repeat(sources, walks)
        for _ in range(STEPS):
            at = graph.indices[graph.indptr[at] + (draw.random(at.size) * graph.degrees[at]).astype(np.int64)]
        return at

    return walk


def measured(contenders: dict[str, Walk], sources: np.ndarray, options: argparse.Namespace) -> dict[str, float]:
    """Least CPU seconds of each contender, all taking turns; the first turn only warms up."""
    import torch

    torch.set_num_threads(1)
    seconds = dict.fromkeys(contenders, float("inf"))
    for turn in range(options.repeats + 1):
        for name, walk in contenders.items():
            part = sources if name == "edda" else sources[: max(1, sources.size // 10)]
            started = time.process_time()
            walk(part, options.walks)
            taken = (time.process_time() - started) * sources.size / part.size
            seconds[name] = min(seconds[name], taken) if turn else seconds[name]
    return seconds


@numba.njit
def _read(array: np.ndarray, reads: int) -> int:
    total = 0
    for i in range(reads):
        place = mix(numba.uint64(i)) >> numba.uint64(32)
        total += array[np.int64((place * numba.uint64(array.size)) >> numba.uint64(32))]
    return total


def random_reads_per_second(words: int) -> float:
    """Independent random reads of int32 words, the best of five."""
    array, reads = np.ones(words, np.int32), 20_000_000
    _read(array, 10)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        _read(array, reads)
        best = min(best, time.process_time() - started)
    return reads / best


def report(graph: DomainGraph, rates: dict[str, float], limit: float, *, as_json: bool) -> None:
    """Print steps per CPU second and the ratios."""
    ratios = {name: rates["edda"] / rate for name, rate in rates.items() if name != "edda"}
    if as_json:
        named = {f"ratio_to_{name.replace('-', '_')}": ratio for name, ratio in ratios.items()}
        print(json.dumps({"steps_per_second": rates, "reads_per_second": limit, **named}))
        return
    print(f"{graph.nodes:,} nodes, {graph.indices.size // 2:,} edges; load average {os.getloadavg()[0]:.1f}")
    for name, rate in rates.items():
        ratio = f"  edda is {ratios[name]:.1f} times as fast" if name in ratios else ""
        print(f"{name:13} {rate / 1e6:8.1f} M steps per CPU second, {1e9 / rate:6.1f} ns a step{ratio}")
    print(f"{'limit':13} {limit / 1e6:8.1f} M random reads per CPU second; a step needs two or three")


if __name__ == "__main__":
    main()
