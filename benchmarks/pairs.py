"""Pairs: our join compared with sparse_dot_topn and brute-force torch, on the same vectors and one thread.

    python benchmarks/pairs.py                              # a small generated world
    python benchmarks/pairs.py --run edda-store/runs/aliccp
    python benchmarks/pairs.py --run edda-store/runs/aliccp --anchors user --keep 1000000

The job: the 3 most similar nodes, with their cosine, of every node of each kind in every ordered pair of domains, over
the anchors that both domains share. Twins are not left out and nothing is checked, because the peers do neither. By
default the vectors are the run's `reach` artifact. With `--anchors` they are computed here, exactly, from the run's
graph, over anchors of that kind, and cut to `--keep` weights; `reach` is the time that takes.

    edda              from the vectors in the artifact's tables to tables of pairs: vectors of each domain stored in
                      files (`store`), unit rows over shared anchors and their duplicates (`prepare`), `join`, `tables`
    sparse_dot_topn   from unit rows in memory, without zero rows, to the 3 best of each row
    torch             the same, by dense float32 matrix products of 256 rows and at most 4,096 rows, and `topk`

Peers: `pip install sparse_dot_topn` and torch; a peer that is not installed is left out. They take a random share of
each job's rows (`--share`, at least 128; sparse_dot_topn a quarter of it), and the time that grows with rows is scaled
up; converting the targets to their format counts once. All figures are CPU seconds. edda's is the best of two whole
jobs, before and after the peers', after a warm-up whose peak of resident memory is given. `equal best` is the share of
the sampled rows on which edda and torch find the same best cosine, within 1e-6.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from peers.installed import has_peer
from peers.join import PEERS, Case, warming_case
from studies.runs import ONE_THREAD, Recomputed, load_artifacts
from threadpoolctl import threadpool_limits

from data_contracts.contracts import KINDS
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.compute.array_folder import DiskArrays
from pipeline.graph import number_nodes
from pipeline.pairs.domain_pair import StoredDomainPair, finish_pair, prepare_joins
from pipeline.pairs.domain_vectors import shared_anchors, store_vectors
from pipeline.pairs.join import join_chunk
from pipeline.reach.stage import compute_reach

K = 3
SETTINGS = PairsSettings(k=K, identity=False, checked_nodes=0)
LEAST_ROWS = 128
SAME = 1e-6
PHASES = ("reach", "store", "prepare", "join", "tables")
LEAST = "best of each job"


class Vectors(NamedTuple):
    """The input of the join: domains and their anchors, and their reach vectors."""

    nodes: Artifact
    reach: Artifact | Recomputed

    @property
    def domains(self) -> list[str]:
        """Names, the largest domain first, as the stage pairs them."""
        counts = self.nodes.statistics["domains"]
        return sorted(counts, key=lambda domain: (-counts[domain]["users"] - counts[domain]["items"], domain))

    @property
    def reach_seconds(self) -> float:
        """CPU seconds spent on computing vectors so far."""
        return getattr(self.reach, "seconds", 0.0)


def main() -> None:
    """Measure and print."""
    options = parsed()
    results = {}
    for run in options.run or [None]:
        with tempfile.TemporaryDirectory(prefix="edda-pairs-", dir=options.folder) as scratch, threadpool_limits(1):
            name = run.name if run else "generated"
            results[name] = measured(load_vectors(run, options, Path(scratch)), options.share, Path(scratch) / "ours")
            if not options.json:
                report(name, results[name])
    if options.json:
        print(json.dumps({"runs": results, "load_average": os.getloadavg()[0]}))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", help="runs' folders in a store, instead of a generated world")
    parser.add_argument("--anchors", choices=KINDS, help="the only kind of anchors; vectors are then computed here")
    parser.add_argument("--keep", type=int, default=ReachSettings().anchors_kept, help="with --anchors: weights kept")
    parser.add_argument("--share", type=float, default=0.01, help="share of the rows that peers take")
    parser.add_argument("--folder", help="where to put temporary files; the system's temporary folder by default")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def load_vectors(run: Path | None, options: argparse.Namespace, scratch: Path) -> Vectors:
    """The vectors asked for."""
    store = Store(scratch / "store")
    artifacts = load_artifacts(run, store)
    if not options.anchors:
        reach = artifacts["reach"] if run else compute_reach(store, ReachSettings(), artifacts, ONE_THREAD)
        return Vectors(artifacts["nodes"], reach)
    nodes = number_nodes(store, GraphSettings(anchor_kinds=(options.anchors,)), artifacts, ONE_THREAD)
    return Vectors(nodes, Recomputed(nodes, artifacts["graph"], options.keep, scratch))


def measured(vectors: Vectors, share: float, folder: Path) -> dict:
    """One data set: the cost of each contender, and whether they agree."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of resident pages
    ours(vectors, folder)
    peak, turns = peak_mib(), [ours(vectors, folder)]
    peers = {name: peer for name, peer in PEERS.items() if has_peer(name)}
    for peer in peers.values():
        peer(warming_case())
    estimates, taken, equal = [], [], []
    for case in cases(vectors, folder, share):
        answers = {name: peer(case) for name, peer in peers.items()}
        estimates.append({name: answer.seconds(case.rows) for name, answer in answers.items()})
        taken.append({name: answer.fixed + answer.growing for name, answer in answers.items()})
        if "torch" in answers:
            equal.append(np.abs(answers["torch"].best - case.ours) <= SAME)
    turns.append(ours(vectors, folder))
    return {
        "edda": min(turns, key=lambda turn: sum(turn.values())),
        "peak_mib": peak,
        "peers": totals(estimates),
        "peers_taken": totals(taken),
        "rows_compared": sum(rows.size for rows in equal),
        "equal_best": float(np.concatenate(equal).mean()) if equal else None,
    }


def totals(seconds: list[dict[str, float]]) -> dict[str, float]:
    """Sums over jobs by peer, and the sum of the least of each job."""
    if not seconds or not seconds[0]:
        return {}
    least = sum(min(job.values()) for job in seconds)
    return {name: sum(job[name] for job in seconds) for name in seconds[0]} | {LEAST: least}


def ours(vectors: Vectors, folder: Path) -> dict[str, float]:
    """CPU seconds of each phase of the whole job; its vectors and tables stay in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds, reach = dict.fromkeys(PHASES, 0.0), vectors.reach_seconds
    with timed(seconds, "store"):
        for domain in vectors.domains:
            store_vectors(*vectors, domain, DiskArrays(folder / "vectors" / domain))
    seconds["reach"] = vectors.reach_seconds - reach
    seconds["store"] -= seconds["reach"]
    for ends in combinations(vectors.domains, 2):
        pair = build_pair(folder, ends)
        with timed(seconds, "prepare"):
            joins = prepare_joins(pair)
        with timed(seconds, "join"):
            for chunk in (chunk for join in joins.values() for chunk in join.chunks()):
                join_chunk(chunk)
        with timed(seconds, "tables"):
            finish_pair((pair, joins))
        for joined in pair.join_folders:
            joined.remove()
    return seconds


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add the CPU seconds taken inside to a phase."""
    started = time.process_time()
    yield
    seconds[phase] += time.process_time() - started


def build_pair(folder: Path, ends: tuple[str, str]) -> StoredDomainPair:
    """Two domains whose vectors are in the folder."""
    vectors = DiskArrays(folder / "vectors" / ends[0]), DiskArrays(folder / "vectors" / ends[1])
    return StoredDomainPair(ends, vectors, 0, DiskArrays(folder / "pairs" / "-".join(ends)), SETTINGS, 0.0)


def peak_mib() -> float:
    """The process's peak of resident pages."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def cases(vectors: Vectors, folder: Path, share: float) -> Iterator[Case]:
    """Every kind's rows in every ordered pair of domains, from the vectors in the folder."""
    draw = np.random.default_rng(1)
    for ends in combinations(vectors.domains, 2):
        pair = build_pair(folder, ends)
        domains = pair.open_domain(0), pair.open_domain(1)
        anchors = shared_anchors(*(domain.nodes for domain in domains))
        unit = [domain.unit_rows(columns) for domain, columns in zip(domains, anchors, strict=True)]
        for source, kind in ((source, kind) for source in (0, 1) for kind in KINDS):
            rows = [
                matrix[domain.row_of[domain.nodes.range_of_kind(kind)]]
                for matrix, domain in zip(unit, domains, strict=True)
            ]
            queries, targets = (np.flatnonzero(np.diff(rows[end].indptr)) for end in (source, 1 - source))
            size = min(queries.size, max(LEAST_ROWS, round(share * queries.size)))
            if not size or not targets.size:
                continue
            nodes = np.sort(draw.choice(queries, size, replace=False))
            best = ours_best(pair.table_path(source), kind, domains[source].nodes.range_of_kind(kind))
            yield Case(rows[source][nodes], rows[1 - source][targets], queries.size, best[nodes])


def ours_best(path: Path, kind: str, nodes: slice) -> np.ndarray:
    """float32 [nodes of the kind], the cosine of our best partners; 0 for none."""
    table = pq.read_table(path, partitioning=None)
    table = table.filter(pc.and_(pc.equal(table["kind"], kind), pc.equal(table["rank"], 1)))
    best = np.zeros(nodes.stop - nodes.start, np.float32)
    best[table["source_node"].to_numpy() - nodes.start] = table["similarity"].to_numpy()
    return best


def report(name: str, results: dict) -> None:
    """Print the cost of each contender, the ratios, and whether they agree."""
    total, reach = sum(results["edda"].values()), results["edda"]["reach"]
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in results["edda"].items() if seconds)
    print(f"{name}, CPU seconds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'edda':>23} {total:9.2f}   {phases}; peak {results['peak_mib']:,.0f} MiB")
    for peer, seconds in results["peers"].items():
        with_reach = f", reach included {(seconds + reach) / total:.1f}" if reach else ""
        note = f"estimated from {results['peers_taken'][peer]:.1f} s"
        print(f"{peer:>23} {seconds:9.2f}   {note}; times edda's: {seconds / (total - reach):.1f}{with_reach}")
    if results["equal_best"] is not None:
        print(f"equal best: {results['equal_best']:.6f} of {results['rows_compared']:,} rows")


if __name__ == "__main__":
    main()
