"""A served run under load: seconds to the first answer, requests per second, latency; every answer is checked.

    python benchmarks/serve.py my-run --requests 10000 --connections 8

Client and server share the machine. Requests go through all users and items in turn, over connections that stay open.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from flows.serve.open_run import open_run
from model.serving.recommender import Recommender, ScoredItem


def main() -> None:
    """Serve, send requests, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    recommender = open_run(options.run, options.store)
    every = paths(recommender)
    questions = [every[number % len(every)] for number in range(options.requests)]
    began = time.perf_counter()
    with served(options.run, options.store, options.workers) as port:
        started = time.perf_counter() - began
        began = time.perf_counter()
        answers = ask(port, questions, options.connections)
        seconds = time.perf_counter() - began
    wrong = wrong_answers(recommender, answers)
    print(f"first answer after {started:.2f} s")
    print(f"{len(answers):,} requests by {options.connections} connections, {wrong} wrong answers")
    print(summary(answers, seconds))


@contextmanager
def served(run: str, store: Path | None, workers: int = 1) -> Iterator[int]:
    """A service in its own process, on a free port of loopback; stopped as a supervisor would stop it."""
    command = [sys.executable, "-m", "flows.cli", "serve", run, "--port", "0", "--workers", str(workers)]
    command += ["--store", str(store)] if store else []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert address, line + process.stderr.read()
            ask(int(address[1]), ["/health"], 1)
            yield int(address[1])
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
        assert (process.wait(), rest) == (0, "stopped\n"), rest


def paths(recommender: Recommender) -> list[str]:
    """A request for every user and every item of every domain."""
    requests = []
    for domain in recommender.domains:
        catalogue = recommender.catalogue(domain)
        for kind, ids in (("recommendations", catalogue.user_ids), ("similar", catalogue.item_ids)):
            requests += [f"/v1/{kind}/{quote(domain, safe='')}/{quote(name, safe='')}" for name in ids.to_pylist()]
    return requests


def ask(port: int, questions: Sequence[str], connections: int) -> list[tuple[str, int, str, float]]:
    """Path, status, body and seconds of every answer, over several connections at once."""

    def one_connection(number: int) -> list[tuple[str, int, str, float]]:
        answers, connection = [], http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for question in questions[number::connections]:
            began = time.perf_counter()
            connection.request("GET", question)
            response = connection.getresponse()
            answers.append((question, response.status, response.read().decode(), time.perf_counter() - began))
        connection.close()
        return answers

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
