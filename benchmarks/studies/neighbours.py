"""Neighbours: CPU seconds and memory of weights between items, compared with other libraries; accuracy of estimates.

    python benchmarks/studies/neighbours.py                                  # a small generated world
    python benchmarks/studies/neighbours.py --run edda-store/runs/amazon edda-store/runs/aliccp
    python benchmarks/studies/neighbours.py --long 20000                     # users with long histories
    python benchmarks/studies/neighbours.py --curve --run edda-store/runs/amazon --long 20000 200000 \
        --plot FILE.png

Each contender gets the distinct train pairs of all domains as one matrix and returns the 500 largest weights of every
item as another: `plain`, without shrinkage and power, which implicit does not have, and by the `defaults`. `stage` is
the whole stage, from artifacts to artifact, including the files that it flushes. Contenders take turns, with one thread
each. CPU s: of the fastest turn and of the slowest. MiB: peak increase of resident pages, in a process of its own.
Equal: all rows have as many weights as SciPy's, and the same ones to a millionth, whichever of equal ones were kept.

`--curve`: compares estimated rows of items drawn at random with exact ones, for several numbers of walks.
`--long N`: a matrix of N users who have 73 items in the median, as in MovieLens, and hundreds in the mean.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from neighbours_peers import independent_walks, installed_peers
from runs import ONE_THREAD, load_artifacts
from threadpoolctl import threadpool_limits

from data_contracts.settings.preparation import NeighboursSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.compute.array_folder import MemoryArrays
from pipeline.graph import DomainGraph, build_edges
from pipeline.neighbours.chunks import NeighbourChunk, NeighbourComputation, write_chunk
from pipeline.neighbours.item_weights import ItemWeights
from pipeline.neighbours.sampled import accuracy
from pipeline.neighbours.stage import build_neighbours
from pipeline.neighbours.train_graph import TrainGraph, build_union_graph, read_all_nodes

SETTINGS = {"plain": NeighboursSettings(shrink=0, power=1), "defaults": NeighboursSettings()}
STAGE = "stage, defaults"
WALKS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
SAME = 1e-6


def main() -> None:
    """Measure, print, draw."""
    options = parsed()
    with tempfile.TemporaryDirectory(prefix="edda-neighbours-", dir=options.folder) as scratch, threadpool_limits(1):
        warm_up(scratch)
        sets = data_sets(options, Store(scratch))
        if options.curve or options.plot:
            curves = {name: curve(matrix, options.items) for name, (matrix, _) in sets.items()}
            show_curves(curves, options)
            return
        results = {name: measured(*data, options.repeats, Path(scratch)) for name, data in sets.items()}
    if options.json:
        print(json.dumps({"runs": results, "load_average": os.getloadavg()[0]}))
        return
    for name, result in results.items():
        report(name, result)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="runs' folders in a store")
    parser.add_argument("--long", type=int, nargs="+", default=[], help="users of matrices with long histories")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender")
    parser.add_argument("--curve", action="store_true", help="accuracy of estimates, instead of peers")
    parser.add_argument("--items", type=int, default=500, help="with --curve: items whose rows are compared")
    parser.add_argument("--plot", type=Path, help="where to write the picture of the curve")
    parser.add_argument("--folder", help="where to put temporary files; the system's temporary folder by default")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def data_sets(options: argparse.Namespace, store: Store) -> dict[str, tuple[sp.csr_array, dict[str, Artifact] | None]]:
    """Matrices by name, with the artifacts that they come from: none for matrices with long histories."""
    runs = {run.name: load_artifacts(run, store) for run in options.run}
    if not runs and not options.long:
        runs = {"generated": load_artifacts(None, store)}
    results = {name: (union(artifacts), artifacts) for name, artifacts in runs.items()}
    return results | {f"long, {users:,} users": (long_histories(users), None) for users in options.long}


def union(artifacts: dict[str, Artifact]) -> sp.csr_array:
    """The distinct train pairs of all domains, [users, items]."""
    graph = build_union_graph(artifacts["graph"], read_all_nodes(artifacts["nodes"])).graph
    last = graph.indptr[graph.users]
    parts = np.ones(last), graph.indices[:last] - graph.users, graph.indptr[: graph.users + 1]
    return sp.csr_array(parts, shape=(graph.users, graph.nodes - graph.users))


def long_histories(users: int, seed: int = 5) -> sp.csr_array:
    """Users with log-normal numbers of items, half of them from three of twenty topics, the others by popularity."""
    draw = np.random.default_rng(seed)
    items = max(2_000, round(135 * users**0.5))
    lengths = np.clip(73 * np.exp(1.25 * draw.standard_normal(users)), 20, items / 3).astype(np.int64)
    popularity, topic = np.exp(2.0 * draw.standard_normal(items)), draw.integers(0, 20, items)
    order = np.argsort(topic, kind="stable")
    until = np.concatenate([[0.0], np.cumsum(popularity[order])])
    first = until[np.searchsorted(topic[order], np.arange(21))]
    parts = []
    for user, length in enumerate(lengths):
        chosen = draw.integers(0, 20, 3)[draw.integers(0, 3, length // 2)]
        by_topic = first[chosen] + draw.random(chosen.size) * (first[chosen + 1] - first[chosen])
        points = np.concatenate([by_topic, draw.random(length - chosen.size) * until[-1]])
        columns = np.unique(np.searchsorted(until, points, side="right") - 1)
        parts.append((np.full(columns.size, user), order[np.minimum(columns, items - 1)]))
    ends = tuple(np.concatenate([part[end] for part in parts]).astype(np.int32) for end in (0, 1))
    return sp.coo_array((np.ones(ends[0].size), ends), shape=(users, items)).tocsr()


def warm_up(scratch: str) -> None:
    """Load the compiled kernels, the peers, and the libraries that the stage writes with."""
    few = sp.csr_array(np.ones((3, 3)))
    for peer in installed_peers("plain").values():
        peer(few, SETTINGS["plain"])
    exact = ItemWeights.from_graph(DomainGraph.from_matrix("", build_edges(few)), SETTINGS["defaults"])
    replace(exact, method="walk", settings=NeighboursSettings(walks=1)).rows(np.arange(3))
    independent_walks(exact, np.arange(3), 2)
    train = TrainGraph(exact.graph, np.arange(3, dtype=np.int32))
    computation = NeighbourComputation.build(train, SETTINGS["defaults"], MemoryArrays(), ONE_THREAD)
    write_chunk(NeighbourChunk(computation, range(3), Path(scratch) / "warm-up.parquet"))


def measured(matrix: sp.csr_array, artifacts: dict[str, Artifact] | None, repeats: int, scratch: Path) -> dict:
    """One data set: the cost of each contender, and whether it agrees with SciPy, which comes first."""
    names = [f"{who}, {how}" for how in SETTINGS for who in installed_peers(how)]
    names += [STAGE] if artifacts else []
    seconds: dict[str, list[float]] = {name: [] for name in names}
    equal: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for name in names * repeats:
            weights, taken = timed(lambda contender=name: contend(contender, matrix, artifacts, folder))
            seconds[name].append(taken)
            if name.startswith("scipy"):
                expected = weights
            elif name != STAGE:
                equal[name] = agrees(weights, expected)
        sp.save_npz(Path(folder) / "matrix.npz", matrix)
        entries = expected.nnz
        del weights, expected
        mib = {name: alone(name, Path(folder), artifacts) for name in names}
    return {
        "users": matrix.shape[0],
        "items": int(np.count_nonzero(matrix.sum(axis=0))),
        "interactions": matrix.nnz,
        "multiply_adds": float((matrix.sum(axis=1) ** 2).sum()),
        "weights": entries,
        "contenders": {
            name: {"seconds": min(taken), "most_seconds": max(taken), "mib": mib[name]}
            for name, taken in seconds.items()
        },
        "equal": equal,
    }


def contend(name: str, matrix: sp.csr_array, artifacts: dict[str, Artifact] | None, folder: str) -> object:
    """Run a contender and return its result."""
    who, how = name.split(", ")
    if name == STAGE:
        with tempfile.TemporaryDirectory(dir=folder) as root:
            parents = {role: artifacts[role] for role in ("nodes", "graph")}
            return build_neighbours(Store(root), SETTINGS[how], parents, ONE_THREAD)
    return installed_peers(how)[who](matrix, SETTINGS[how])


def alone(name: str, folder: Path, artifacts: dict[str, Artifact] | None) -> float:
    """MiB of resident pages that a contender adds at its peak, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=take_turn, args=(name, folder, artifacts, sender))
    process.start()
    sender.close()  # or `recv` would wait forever for a process that failed
    taken = receiver.recv()
    process.join()
    return taken


def take_turn(name: str, folder: Path, artifacts: dict[str, Artifact] | None, sender: Connection) -> None:
    """Send the MiB that a contender takes once everything is loaded."""
    matrix = sp.csr_array(sp.load_npz(folder / "matrix.npz"))
    with threadpool_limits(1):
        warm_up(str(folder))
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak of resident pages
        before = resident("VmRSS")
        made = contend(name, matrix, artifacts, str(folder))
        sender.send(resident("VmHWM") - before)
        del made


def resident(line: str) -> float:
    """MiB of resident pages, now (VmRSS) or at the peak (VmHWM)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(words.split()[1]) for words in status if words.startswith(line)) / 1024


def agrees(rows: sp.csr_array, expected: sp.csr_array) -> bool:
    """Whether rows have the same number of weights, and equal ones when sorted."""
    if not np.array_equal(rows.indptr, expected.indptr):
        return False
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    ordered = [weights.data[np.lexsort((weights.data, owner))] for weights in (rows, expected)]
    return bool(np.allclose(*ordered, rtol=SAME, atol=0))


def curve(matrix: sp.csr_array, items: int) -> dict[str, list[dict[str, float]]]:
    """Accuracy and cost of estimated rows by the number of walks, and the cost of exact ones."""
    exact = ItemWeights.from_graph(DomainGraph.from_matrix("", build_edges(matrix)), SETTINGS["defaults"])
    with_neighbours = np.flatnonzero(exact.paths > matrix.sum(axis=0))  # the item has a neighbour
    size = min(items, with_neighbours.size)
    sample = np.sort(np.random.default_rng(1).choice(with_neighbours, size, replace=False))
    rows, seconds = timed(lambda: exact.rows(sample))
    share = 1000 / sample.size
    results = {"exact": [{"seconds": share * seconds, **accuracy(rows, rows)}], "walk": [], "independent": []}
    for walks in WALKS:
        settings = NeighboursSettings(walks=walks, method="walk")
        walked = replace(exact, settings=settings, method="walk")
        estimates = {
            "walk": timed(lambda weights=walked: weights.rows(sample)),
            "independent": timed(lambda weights=walked, count=walks: independent_walks(weights, sample, count)),
        }
        for kind, (estimated, taken) in estimates.items():
            results[kind].append({"walks": walks, "seconds": share * taken, **accuracy(estimated, rows)})
    return results


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """The result of some work, and its CPU seconds."""
    started = time.process_time()
    return work(), time.process_time() - started


def show_curves(curves: dict[str, dict[str, list[dict[str, float]]]], options: argparse.Namespace) -> None:
    """Print, as text or JSON, and draw."""
    if options.json:
        print(json.dumps({"curves": curves, "load_average": os.getloadavg()[0]}))
    for name, kinds in ({} if options.json else curves).items():
        print(f"{name}; load average {os.getloadavg()[0]:.1f}; exact: {kinds['exact'][0]['seconds']:.3f} CPU s")
        print(f"{'':>21}  20 best   100 best   error   CPU s for 1,000 items")
        for kind in ("walk", "independent"):
            for point in kinds[kind]:
                shares = (
                    f"{point['overlap_at_20']:7.3f}   {point['overlap_at_100']:8.3f}   {point['relative_error']:5.3f}"
                )
                print(f"{kind:>12} {point['walks']:>8,}  {shares}   {point['seconds']:21.3f}")
    if options.plot:
        from neighbours_curve import draw

        draw(curves, options.plot)


def report(name: str, results: dict) -> None:
    """Print a data set's table."""
    print(
        f"{name}: {results['users']:,} users, {results['items']:,} items, {results['interactions']:,} interactions, "
        f"{results['multiply_adds'] / 1e9:.3g} G multiply-adds, {results['weights']:,} weights; "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    for contender, cost in results["contenders"].items():
        base = results["contenders"][f"edda, {contender.split(', ')[1]}"]["seconds"]
        equal = results["equal"].get(contender)
        note = "" if equal is None else f"   equal to SciPy's: {'yes' if equal else 'NO'}"
        times = (
            f"{cost['seconds']:9.3f} to {cost['most_seconds']:.3f} CPU s, {cost['seconds'] / base:5.1f} times edda's"
        )
        print(f"{contender:>15} {times}, {cost['mib']:8,.0f} MiB{note}")


if __name__ == "__main__":
    main()
