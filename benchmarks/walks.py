"""Random walks: our kernel compared with DGL, torch-sparse and NumPy, on the same graph and one thread.

    python benchmarks/walks.py                          # a generated graph of 1,000,000 nodes and 10,000,000 edges
    python benchmarks/walks.py --users 30000 --items 20000 --edges 150000
    python benchmarks/walks.py --run edda-store/runs/aliccp --domain d2

All take the same walks: 4 steps, 500 from each of the same 4,196 nodes. Ours then counts each source's end points on
anchors (those of the run; one node in ten of a generated graph); the peers only return where the walks went.

    dgl          as EDDA's released code calls it: an int64 graph, which is `dgl.graph`'s default; the walks of 4,196
                 nodes in one call, the nodes repeated as a whole, so neighbouring walks start apart
    dgl-best     an int32 graph, its compressed rows only; the walks of a node side by side
    torch-sparse, numpy     the walks of a node side by side, 200 nodes a call

Peers: `pip install --no-deps dgl==1.1.3 tqdm`; torch-sparse by `make sparse`. A peer that is not installed is left out.
Figures are steps per CPU second: contenders take turns of at least 0.4 s, and the mean of the best turn counts. The
limit is how fast this
machine reads random 4-byte words from an array of the graph's size, with or without prefetching, whichever is faster;
a step reads one such word, and the bounds of a node's row from a smaller array.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import scipy.sparse as sp

from data_contracts.store.store import Store
from pipeline.compute.row_kernels import mix
from pipeline.graph import DomainGraph, read_graph, read_nodes
from pipeline.reach.walk_kernels import _prefetch, walk_counts

STEPS = 4
READS = 2_000_000
TURN_SECONDS = 0.4


@dataclass(frozen=True)
class Job:
    """Walks to take: `walks` from each of `sources`, int32 [n]."""

    graph: DomainGraph
    is_anchor: np.ndarray
    sources: np.ndarray
    walks: int

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.sources.size * self.walks * STEPS


def main() -> None:
    """Measure and print."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before DGL and torch load their thread pools
    warnings.simplefilter("ignore")  # DGL's and torch's own, on import
    options = parsed()
    job = build_job(options)
    makers = {"edda": ours, "dgl": dgl_as_released, "dgl-best": dgl_at_its_best}
    makers |= {"torch-sparse": torch_sparse_walk, "numpy": numpy_walk}
    contenders = {name: make(job) for name, make in makers.items() if has_peer(name)}
    seconds = measured(contenders | limits(job.graph.indices.size), options.repeats)
    rates = {name: job.steps / seconds[name] for name in contenders}
    limit = READS / min(seconds["read"], seconds["prefetched read"])
    report(job, rates, limit, as_json=options.json)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=800_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--run", type=Path, help="a run's folder in a store, instead of a generated graph")
    parser.add_argument("--domain", help="the domain of --run")
    parser.add_argument("--sources", type=int, default=4_196, help="nodes to walk from")
    parser.add_argument("--walks", type=int, default=500, help="walks from each node")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def build_job(options: argparse.Namespace) -> Job:
    """The walks asked for, from nodes drawn among those that have neighbours."""
    draw = np.random.default_rng(1)
    if options.run:
        run_store = Store(options.run.parent.parent)
        artifacts = run_store.recorded(run_store.run(options.run.name))
        nodes = read_nodes(artifacts["nodes"], options.domain)
        graph, is_anchor = read_graph(artifacts["graph"], nodes), nodes.is_anchor
    else:
        graph = generated(options)
        is_anchor = draw.random(graph.nodes) < 0.1
    walkable = np.flatnonzero(graph.degrees > 0)
    sources = draw.choice(walkable, min(options.sources, walkable.size), replace=False)
    return Job(graph, is_anchor, sources.astype(np.int32), options.walks)


def generated(options: argparse.Namespace) -> DomainGraph:
    """A graph with a long tail of unpopular items."""
    draw = np.random.default_rng(0)
    users = draw.integers(0, options.users, options.edges)
    items = options.users + (options.items * draw.random(options.edges) ** 2).astype(np.int64)
    both = np.concatenate([users, items]), np.concatenate([items, users])
    nodes = options.users + options.items
    adjacency = sp.csr_array((np.ones(both[0].size, np.int8), both), shape=(nodes, nodes))
    adjacency.sum_duplicates()
    indptr, indices = adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)
    return DomainGraph("generated", options.users, indptr, indices)


def has_peer(name: str) -> bool:
    """Whether the contender's library is installed."""
    modules = {"dgl": "dgl", "dgl-best": "dgl", "torch-sparse": "torch_sparse"}
    return importlib.util.find_spec(modules.get(name, "numpy")) is not None


def ours(job: Job) -> Callable[[], object]:
    """End points of the last step, counted on anchors."""
    counts_step = np.arange(STEPS + 1) == STEPS
    rows = np.zeros(job.sources.size + 1, np.int64)
    anchors, counts = np.empty((2, job.sources.size * job.walks), np.int32)
    indptr = job.graph.indptr
    graph = indptr.astype(np.min_scalar_type(-indptr[-1])), job.graph.indices, job.is_anchor
    return lambda: walk_counts(*graph, counts_step, job.sources, job.walks, np.uint64(1), rows, anchors, counts)


def dgl_as_released(job: Job) -> Callable[[], object]:
    """DGL's sampler on the graph and with the call of the released code."""
    import dgl
    import torch

    tails, heads = edges(job.graph, np.int64)
    graph = dgl.to_bidirected(dgl.graph((tails, heads), num_nodes=job.graph.nodes))
    sources = torch.from_numpy(job.sources.astype(np.int64))
    return lambda: dgl.sampling.random_walk(graph, sources.repeat(job.walks), length=STEPS)


def dgl_at_its_best(job: Job) -> Callable[[], object]:
    """DGL's sampler on half as many bytes, the walks of a node side by side."""
    import dgl
    import torch

    graph = dgl.graph(edges(job.graph, np.int32), num_nodes=job.graph.nodes).formats(["csr"])
    sources = torch.from_numpy(job.sources)
    return lambda: dgl.sampling.random_walk(graph, sources.repeat_interleave(job.walks), length=STEPS)


def edges(graph: DomainGraph, dtype: type) -> tuple:
    """Tails and heads of the edges, both ways, as tensors."""
    import torch

    tails = np.repeat(np.arange(graph.nodes, dtype=dtype), graph.degrees)
    return torch.from_numpy(tails), torch.from_numpy(graph.indices.astype(dtype))


def torch_sparse_walk(job: Job) -> Callable[[], object]:
    """torch-sparse's sampler."""
    import torch
    import torch_sparse  # noqa: F401 - registers the sampler

    indptr, indices = torch.from_numpy(job.graph.indptr), torch.from_numpy(job.graph.indices.astype(np.int64))
    batches = torch.from_numpy(job.sources.astype(np.int64)).split(200)
    walk = torch.ops.torch_sparse.random_walk
    return lambda: [walk(indptr, indices, part.repeat_interleave(job.walks), STEPS) for part in batches]


def numpy_walk(job: Job) -> Callable[[], object]:
    """One vectorised step after another."""
    draw, graph, degrees = np.random.default_rng(3), job.graph, job.graph.degrees

    def walk() -> None:
        for first in range(0, job.sources.size, 200):
            at = np.repeat(job.sources[first : first + 200], job.walks)
            for _ in range(STEPS):
                at = graph.indices[graph.indptr[at] + (draw.random(at.size) * degrees[at]).astype(np.int64)]

    return walk


@numba.njit
def _read(array: np.ndarray, reads: int) -> int:
    total = 0
    for i in range(reads):
        place = mix(numba.uint64(i)) >> numba.uint64(32)
        total += array[(place * numba.uint64(array.size)) >> numba.uint64(32)]
    return total


@numba.njit
def _read_prefetched(array: np.ndarray, reads: int, places: np.ndarray) -> int:
    total = 0
    for first in range(0, reads, places.size):
        for i in range(places.size):
            place = mix(numba.uint64(first + i)) >> numba.uint64(32)
            places[i] = (place * numba.uint64(array.size)) >> numba.uint64(32)
            _prefetch(array, np.intp(places[i]))
        for i in range(places.size):
            total += array[places[i]]
    return total


def limits(words: int) -> dict[str, Callable[[], object]]:
    """Independent random reads of int32 words."""
    array, places = np.ones(words, np.int32), np.empty(500, np.uint64)
    prefetched = lambda: _read_prefetched(array, READS, places)  # noqa: E731
    return {"read": lambda: _read(array, READS), "prefetched read": prefetched}


def measured(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of one call of each: the mean of its best turn. All take turns; the first turn is a warm-up."""
    seconds = dict.fromkeys(contenders, float("inf"))
    for turn in range(repeats + 1):
        for name, call in contenders.items():
            calls, started = 0, time.process_time()
            while (taken := time.process_time() - started) < TURN_SECONDS:
                call()
                calls += 1
            seconds[name] = min(seconds[name], taken / calls) if turn else seconds[name]
    return seconds


def report(job: Job, rates: dict[str, float], limit: float, *, as_json: bool) -> None:
    """Print steps per CPU second, the ratios, and the share of the limit."""
    ratios = {name: rates["edda"] / rate for name, rate in rates.items() if name != "edda"}
    size = {"nodes": job.graph.nodes, "edges": job.graph.indices.size // 2, "load_average": os.getloadavg()[0]}
    if as_json:
        named = {f"ratio_to_{name.replace('-', '_')}": ratio for name, ratio in ratios.items()}
        share = {"reads_per_second": limit, "share_of_limit": rates["edda"] / limit}
        print(json.dumps({**size, "steps_per_second": rates, **share, **named}))
        return
    print("{nodes:,} nodes, {edges:,} edges; load average {load_average:.1f}".format(**size))
    for name, rate in rates.items():
        ratio = f"  edda is {ratios[name]:.1f} times as fast" if name in ratios else ""
        print(f"{name:13} {rate / 1e6:8.1f} M steps per CPU second, {1e9 / rate:6.2f} ns a step{ratio}")
    reached = f"edda reaches {rates['edda'] / limit:.0%} of it"
    print(f"{'limit':13} {limit / 1e6:8.1f} M random reads per CPU second, {1e9 / limit:5.2f} ns a read; {reached}")


if __name__ == "__main__":
    main()
