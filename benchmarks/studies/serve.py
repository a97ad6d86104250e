"""A served run under load: seconds to the first answer, requests per second, latency; every answer is checked.

    python benchmarks/studies/serve.py my-run --requests 10000 --connections 8
    python benchmarks/studies/serve.py my-run --rate 200         # requests at random times, 200 a second on average
    python benchmarks/studies/serve.py --items 100000 --rate 200 --index  # a made-up run: random vectors and evidence

Client and server share the machine. Requests go through all users and items in turn, over connections that stay open;
without a rate each connection sends the next as soon as it has an answer. With a rate, a request's time counts from
when it was due, also if it had to wait for a connection, and users alone are asked for. The service has one thread of
arithmetic (`OMP_NUM_THREADS=1`). `cpu` is the service's CPU time of a request.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import psutil
import pyarrow as pa

from flows.serve.open_run import open_run
from model.serving.recommender import Recommender, ScoredItem

MADE_UP = "made-up"
"""Name of the run that is made up."""


def main() -> None:
    """Serve, send requests, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default=MADE_UP)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--items", type=int, help="make up a run with so many items and users, in --store or for once")
    parser.add_argument("--index", action="store_true", help="serve by the run's index; one is built if need be")
    parser.add_argument("--rate", type=float, help="requests a second, at random times")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.items:
            options.store = make_up(options.store or Path(folder), options.items)
        if options.index:
            build = [sys.executable, "-m", "flows.cli", "index", options.run]
            subprocess.run(build + (["--store", str(options.store)] if options.store else []), check=True)
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Serve a run and send requests."""
    recommender = open_run(options.run, options.store, index=options.index)
    every = [path for path in paths(recommender) if not options.rate or "/recommendations/" in path]
    every = np.random.default_rng(0).permutation(every).tolist() if options.rate else every
    questions = [every[number % len(every)] for number in range(options.requests)]
    began = time.perf_counter()
    with served(options.run, options.store, options.workers, options.index) as (port, cpu):
        started, cpu_before = time.perf_counter() - began, cpu()
        began = time.perf_counter()
        answers = ask(port, questions, options.connections, arrivals(options.requests, options.rate))
        seconds, used = time.perf_counter() - began, cpu() - cpu_before
    checked = answers if not options.items else answers[::20]
    wrong = wrong_answers(recommender, checked)
    print(f"first answer after {started:.2f} s, load average {os.getloadavg()[0]:.1f}")
    print(f"{len(answers):,} requests by {options.connections} connections, {wrong} wrong answers of {len(checked):,}")
    print(f"{summary(answers, seconds)}\ncpu: {1e3 * used / len(answers):.2f} ms a request")


def arrivals(requests: int, rate: float | None) -> Sequence[float] | None:
    """Seconds from the start at which each request is due, as a Poisson process; None: as soon as one can be sent."""
    return None if rate is None else np.cumsum(np.random.default_rng(1).exponential(1 / rate, requests)).tolist()


def make_up(folder: Path, items: int) -> Path:
    """A store with a run of one domain with as many users as items, ten interactions each, vectors of 160 columns."""
    from export import make

    from data_contracts.contracts import BLEND, CONTRACTS
    from data_contracts.settings.machine import ComputeSettings
    from data_contracts.settings.preparation import NeighboursSettings
    from data_contracts.settings.ranking import ExportSettings
    from data_contracts.store.artifact import Artifact
    from data_contracts.store.runs import RunRecord
    from data_contracts.store.store import Store
    from model.serving.export import export_embeddings
    from pipeline.neighbours.stage import build_neighbours

    store, one_thread = Store(folder), ComputeSettings(threads=1)
    keys = make(folder, items, items, 160)
    made = {name: Artifact(CONTRACTS[name], folder / name / key) for name, key in keys.items()}
    made["neighbours"] = build_neighbours(store, NeighboursSettings(), made, one_thread)
    made["embeddings"] = export_embeddings(store, ExportSettings(), made, one_thread)
    measures = {"growth": 0.5, "full_ndcg@20": 0.1, "full_recall@20": 0.1}
    row = {"domain": "d", "share": 0.5, "vectors": 1.0, "evidence": 5.0, "spread": 1.0, **measures, "users": 1}
    blend = pa.Table.from_pylist([{**row, "chosen": True}])
    made["blend"] = store.make(BLEND, {}, {}, lambda draft: draft.write(blend))
    store.link_run(RunRecord.build(MADE_UP, made, config={}, is_complete=True))
    return folder


@contextmanager
def served(
    run: str, store: Path | None, workers: int = 1, index: bool = False
) -> Iterator[tuple[int, Callable[[], float]]]:
    """A service in its own process, on a free port of loopback; stopped as a supervisor would stop it.

    Yields:
        The port, and a function that returns the CPU seconds of the service so far.
    """
    command = [sys.executable, "-m", "flows.cli", "serve", run, "--port", "0", "--workers", str(workers)]
    command += ["--store", str(store)] if store else []
    command += ["--index"] if index else []
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | threads) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert address, line + process.stderr.read()
            ask(int(address[1]), ["/health"], 1)
            yield int(address[1]), lambda: cpu_seconds(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
        assert (process.wait(), rest) == (0, "stopped\n"), rest


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def paths(recommender: Recommender) -> list[str]:
    """A request for every user and every item of every domain."""
    requests = []
    for domain in recommender.domains:
        catalogue = recommender.catalogue(domain)
        for kind, ids in (("recommendations", catalogue.user_ids), ("similar", catalogue.item_ids)):
            requests += [f"/v1/{kind}/{quote(domain, safe='')}/{quote(name, safe='')}" for name in ids.to_pylist()]
    return requests


def ask(
    port: int, questions: Sequence[str], connections: int, due: Sequence[float] | None = None
) -> list[tuple[str, int, str, float]]:
    """Path, status, body and seconds of every answer, over several connections at once.

    Args:
        port: of the service.
        questions: paths.
        connections: that stay open.
        due: when to send each question, in seconds from now; its seconds count from then. By default at once.
    """
    started, waiting, lock = time.perf_counter(), iter(range(len(questions))), threading.Lock()

    def one_connection(_number: int) -> list[tuple[str, int, str, float]]:
        answers, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                connection.close()
                return answers
            began = time.perf_counter() if due is None else started + due[number]
            time.sleep(max(began - time.perf_counter(), 0.0))
            connection.request("GET", questions[number])
            response = connection.getresponse()
            answers.append((questions[number], response.status, response.read().decode(), time.perf_counter() - began))

    with ThreadPoolExecutor(connections) as threads:
        return [answer for part in threads.map(one_connection, range(connections)) for answer in part]


def wrong_answers(recommender: Recommender, answers: Sequence[tuple[str, int, str, float]]) -> int:
    """Number of answers that differ from those of the recommender in this process, scores to five digits."""
    expected: dict[str, list[ScoredItem]] = {}
    wrong = 0
    for question, status, body, _ in answers:
        if question not in expected:
            kind, *names = map(unquote, question.split("/")[2:])
            answer = recommender.for_user if kind == "recommendations" else recommender.similar
            expected[question] = answer(*names, 10).items
        items = json.loads(body).get("items", [])
        same = [(row["rank"], row["item"]) for row in items] == [row[:2] for row in expected[question]]
        scores = [row["score"] for row in items], [row.score for row in expected[question]]
        wrong += not (status == 200 and same and np.allclose(*scores, 1e-5, 1e-6))
    return wrong


def summary(answers: Sequence[tuple[str, int, str, float]], seconds: float) -> str:
    """Requests per second and, by kind of request, the median and the 99th percentile of their times."""
    lines = [f"{len(answers) / seconds:,.0f} requests/s"]
    for kind in ("recommendations", "similar"):
        times = [1e3 * answer[3] for answer in answers if answer[0].startswith(f"/v1/{kind}/")]
        if times:
            lines.append("{}: p50 {:.1f} ms, p99 {:.1f} ms".format(kind, *np.percentile(times, [50, 99])))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
