"""Reach: how far sampled and cut vectors are from exact ones, how that affects pairs, and what each method costs.

    python benchmarks/studies/reach.py                              # a small generated world
    python benchmarks/studies/reach.py --run edda-store/runs/aliccp --domains d0 d2
    python benchmarks/studies/reach.py --run edda-store/runs/aliccp edda-store/runs/amazon --plot FILE.png

The vectors of every method are cut to the 256 largest weights, as the stage stores them. They are compared with uncut
ones: the expected ends of walks from each node, computed forwards, by code that no method shares.

    mean cosine     of a method's vector with the exact one, over `--nodes` nodes of each domain that reach an anchor
    top-1, top-3    of these nodes in each other domain, among at most `--targets` nodes of their kind, drawn at random:
                    the share of the method's best (three best) partners whose true cosine is as high as that of the
                    true best (third best); equally good partners count, the same user or item does not
    regret          true cosine of the best partner minus that of the method's; all of it for a node without a partner
    CPU s           for 1,000 nodes: preparation for all nodes of the domain, and computation of the sample scaled up
    bytes           of the vector of a node, 8 per anchor

One thread. A method whose predicted memory or work exceeds the limits in a domain is left out of that run, with a
message.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from runs import ONE_THREAD, load_artifacts
from threadpoolctl import threadpool_limits

from data_contracts.contracts import KINDS
from data_contracts.settings.preparation import ReachSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays
from pipeline.graph import DomainGraph, DomainNodes, read_graph, read_nodes
from pipeline.pairs.domain_vectors import shared_anchors
from pipeline.reach.expected import bound_cost
from pipeline.reach.vectors import ReachComputation
from pipeline.reach.walk_graph import WalkGraph

STEPS = ReachSettings().steps
KEPT = ReachSettings().anchors_kept
WALKS = (100, 500, 5_000, 50_000)
METHODS = {f"{walks:,} walks": ("walk", walks) for walks in WALKS} | {"pruned": ("pruned", 1), "exact": ("exact", 1)}
K, NODES_AT_ONCE = 3, 128
SAME = 1e-6
"""More than the rounding error of float32 cosines."""
MOST_MULTIPLY_ADDS, MOST_MIB = 20_000_000_000, 4096


@dataclass(frozen=True)
class Domain:
    """One domain, a sample of its nodes, and their exact vectors.

    Attributes:
        nodes, walk_graph: of the whole domain.
        sample: int64 [n], ascending: queries and targets.
        is_query, is_target: bool [n].
        exact: float32 [n, nodes].
    """

    nodes: DomainNodes
    walk_graph: WalkGraph
    sample: np.ndarray
    is_query: np.ndarray
    is_target: np.ndarray
    exact: sp.csr_array

    def of_kind(self, kind: str, chosen: np.ndarray) -> np.ndarray:
        """Positions in the sample of the chosen nodes of a kind."""
        nodes = self.nodes.range_of_kind(kind)
        return np.flatnonzero(chosen & (self.sample >= nodes.start) & (self.sample < nodes.stop))

    def entities(self, positions: np.ndarray) -> np.ndarray:
        """Entity numbers of the nodes at some positions of the sample."""
        return self.nodes.entity[self.sample[positions]]


def main() -> None:
    """Measure, print, draw."""
    options = parsed()
    results = {}
    with tempfile.TemporaryDirectory(prefix="edda-reach-", dir=options.folder) as scratch, threadpool_limits(1):
        warm_up(Path(scratch))
        for run in options.run or [None]:
            name = run.name if run else "generated"
            results[name] = measured(load_artifacts(run, Store(scratch)), options, Path(scratch))
            if not options.json:
                report(name, results[name])
    if options.json:
        print(json.dumps({"runs": results, "load_average": os.getloadavg()[0]}))
    if options.plot:
        from reach_curve import draw

        draw(results, options.plot)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", help="runs' folders in a store, instead of a generated world")
    parser.add_argument("--domains", nargs="+", help="all by default")
    parser.add_argument("--nodes", type=int, default=500, help="nodes of each domain to compare")
    parser.add_argument("--targets", type=int, default=4_000, help="nodes of a kind to find partners among, at most")
    parser.add_argument("--plot", type=Path, help="where to write the picture")
    parser.add_argument("--folder", help="where to put temporary files; the system's temporary folder by default")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def warm_up(scratch: Path) -> None:
    """Load the compiled kernels."""
    graph = DomainGraph("warm-up", 1, np.array([0, 1, 2]), np.array([1, 0], np.int32))
    nodes = np.arange(2)
    domain = Domain(None, WalkGraph(graph, np.ones(2, np.bool_), STEPS), nodes, nodes > 0, nodes > 0, None)
    for method in METHODS:
        compute_vectors(domain, method, scratch)


def measured(artifacts: dict[str, Artifact], options: argparse.Namespace, scratch: Path) -> dict[str, dict]:
    """Every method's figures for a run."""
    names = options.domains or [partition["domain"] for partition in artifacts["nodes"].partitions()]
    domains = [sampled(artifacts, name, options) for name in names]
    results = {}
    for method in METHODS:
        if too_large := [domain.nodes.domain for domain in domains if not is_affordable(domain.walk_graph, method)]:
            print(f"{method} is left out: it would be too expensive in {', '.join(too_large)}", file=sys.stderr)
            continue
        vectors, seconds = zip(*(compute_vectors(domain, method, scratch) for domain in domains), strict=True)
        results[method] = figures(domains, vectors, sum(seconds))
    return results


def sampled(artifacts: dict[str, Artifact], name: str, options: argparse.Namespace) -> Domain:
    """Draw a sample of the nodes that reach an anchor."""
    nodes = read_nodes(artifacts["nodes"], name)
    walk_graph = WalkGraph(read_graph(artifacts["graph"], nodes), nodes.is_anchor, STEPS)
    draw, reaching = np.random.default_rng(1), np.flatnonzero(walk_graph.reaches_anchor())
    queries = draw.choice(reaching, min(options.nodes, reaching.size), replace=False)
    by_kind = (reaching[reaching < nodes.users], reaching[reaching >= nodes.users])
    targets = np.concatenate([draw.choice(kind, min(options.targets, kind.size), replace=False) for kind in by_kind])
    sample = np.union1d(queries, targets)
    parts = (sample[start : start + NODES_AT_ONCE] for start in range(0, sample.size, NODES_AT_ONCE))
    exact = sp.csr_array(sp.vstack([sp.csr_array(walk_graph.expected_ends(part).T) for part in parts]))
    return Domain(nodes, walk_graph, sample, np.isin(sample, queries), np.isin(sample, targets), exact)


def is_affordable(walk_graph: WalkGraph, method: str) -> bool:
    """Whether the method's predicted cost is within the limits."""
    name, _ = METHODS[method]
    if name == "walk":
        return True
    cost = bound_cost(walk_graph, KEPT if name == "pruned" else walk_graph.anchors.size)
    return cost.multiply_adds <= MOST_MULTIPLY_ADDS and cost.memory_mib <= MOST_MIB


def compute_vectors(domain: Domain, method: str, scratch: Path) -> tuple[sp.csr_array, float]:
    """Vectors of the sample by a method, float32 [n, nodes], and CPU seconds scaled up to all nodes of the domain."""
    name, walks = METHODS[method]
    settings = ReachSettings(walks=walks, anchors_kept=KEPT)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        times = [time.process_time()]
        computation = ReachComputation.build(domain.walk_graph, name, settings, DiskArrays(Path(folder)), ONE_THREAD)
        times.append(time.process_time())
        computation.rows(domain.sample[:1])  # the cost of a call, whatever the number of nodes
        times.append(time.process_time())
        rows = computation.rows(domain.sample)
        times.append(time.process_time())
    preparing, calling, describing = np.diff(times)
    growing = max(0.0, describing - calling) * domain.walk_graph.graph.nodes / domain.sample.size
    return rows, float(preparing + calling + growing)


def figures(domains: list[Domain], vectors: list[sp.csr_array], seconds: float) -> dict[str, float]:
    """Accuracy over all queries, size, and cost of 1,000 nodes."""
    both = list(zip(domains, vectors, strict=True))
    cosines_of_own = np.concatenate([own_cosines(domain, rows)[domain.is_query] for domain, rows in both])
    pairs = [agreement(*ends, kind) for ends in permutations(both, 2) for kind in KINDS]
    queries, best, three, best_three, regret = np.sum(pairs, axis=0)
    return {
        "mean_cosine": float(cosines_of_own.mean()),
        "top_1": best / queries,
        "top_3": best_three / three,
        "regret": regret / queries,
        "seconds": 1000 * seconds / sum(domain.walk_graph.graph.nodes for domain in domains),
        "bytes": 8 * sum(rows.nnz for rows in vectors) / sum(rows.shape[0] for rows in vectors),
        "queries": int(queries),
    }


def own_cosines(domain: Domain, rows: sp.csr_array) -> np.ndarray:
    """float [n], cosine of each node's vector with its exact one; 0 for an empty vector."""
    return np.asarray((unit(rows) * unit(domain.exact)).sum(axis=1)).ravel()


def unit(rows: sp.csr_array) -> sp.csr_array:
    """Rows scaled to length 1; zero rows stay."""
    lengths = np.sqrt(np.asarray((rows * rows).sum(axis=1, dtype=np.float64)).ravel())
    scaled = rows.data / np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(rows.indptr))
    return sp.csr_array((scaled.astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)


def agreement(source: tuple[Domain, sp.csr_array], target: tuple[Domain, sp.csr_array], kind: str) -> np.ndarray:
    """Queries of a kind that have a partner, best partners found, partners expected, those found, lost cosine."""
    ends = source[0].of_kind(kind, source[0].is_query), target[0].of_kind(kind, target[0].is_target)
    anchors = shared_anchors(source[0].nodes, target[0].nodes)
    same = np.equal.outer(source[0].entities(ends[0]), target[0].entities(ends[1]))
    true = cosines((source[0].exact, target[0].exact), ends, anchors, same)
    computed = cosines((source[1], target[1]), ends, anchors, same)
    known = true.any(axis=1)
    goals = np.take_along_axis(true, best_columns(true), axis=1)[known]
    reached = np.take_along_axis(true * (computed > 0), best_columns(computed), axis=1)[known]
    lost = np.maximum(goals[:, 0] - reached[:, 0], 0.0)
    good = (reached > 0) & (reached >= goals[:, -1:] - SAME)
    return np.array([lost.size, np.sum(lost <= SAME), np.sum(goals > 0), good.sum(), lost.sum()])


def cosines(rows: tuple, ends: tuple, anchors: tuple, same: np.ndarray) -> np.ndarray:
    """float32 [queries, targets], cosines of the chosen rows over shared anchors; 0 for the same user or item."""
    queries, targets = (
        unit(matrix[chosen][:, shared]) for matrix, chosen, shared in zip(rows, ends, anchors, strict=True)
    )
    similarities = (targets @ queries.T.toarray()).T
    similarities[same] = 0
    return similarities


def best_columns(similarities: np.ndarray) -> np.ndarray:
    """int [n, K], columns of the largest of each row, ties in ascending order."""
    left, rows = similarities.copy(), np.arange(len(similarities))
    columns = np.empty((rows.size, K), np.int64)
    for rank in range(K):
        columns[:, rank] = left.argmax(axis=1)
        left[rows, columns[:, rank]] = -1
    return columns


def report(name: str, results: dict[str, dict[str, float]]) -> None:
    """Print a run's table."""
    print(f"{name}: {next(iter(results.values()))['queries']:,} queries; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':13}  mean cosine   top-1   top-3   regret   CPU s for 1,000 nodes   bytes of a vector")
    for method, row in results.items():
        accuracy = f"{row['mean_cosine']:11.4f}   {row['top_1']:5.3f}   {row['top_3']:5.3f}   {row['regret']:6.4f}"
        print(f"{method:>13}  {accuracy}   {row['seconds']:21.3f}   {row['bytes']:17,.0f}")


if __name__ == "__main__":
    main()
