"""Trials side by side: processes that score settings, and one that draws them, prunes and writes the record."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from flows.tune.search import OpenTrial, PrunedError, Score, Search, Trial, Values, attempt, open_study


@dataclass
class _Worker:
    """A process that scores settings, and the trial that it works on, if any."""

    process: BaseProcess
    connection: Connection
    trial: OpenTrial | None = None


def run_parallel_search(search: Search, scores: Sequence[Score]) -> list[Trial]:
    """As `run_search`, with as many trials at a time as there are scores, each in a process of its own.

    Args:
        search: of which only this process writes the record.
        scores: picklable; what they do side by side must not conflict.

    Raises:
        Exception: the first error of a process other than divergence; what was recorded stays.
        ConnectionError: a process was killed.
    """
    with open_study(search) as study, _workers(scores) as workers:
        while True:
            for worker in workers:
                if worker.trial is None and study.wants_another:
                    worker.trial = study.begin_trial()
                    worker.connection.send(worker.trial.values)
            busy = {worker.connection: worker for worker in workers if worker.trial is not None}
            if not busy:
                return study.trials()
            for connection in wait(list(busy)):
                _answer(busy[connection])  # type: ignore[index]


def _answer(worker: _Worker) -> None:
    """Take a message of a process at work: an epoch's score, how its trial ended, or an error."""
    trial = worker.trial
    try:
        kind, content = worker.connection.recv()
    except EOFError:
        worker.process.join()
        raise ConnectionError(
            f"a process of the search has ended with status {worker.process.exitcode} (out of memory?); "
            "try fewer at a time; finished trials are kept"
        ) from None
    if kind == "error":
        raise content
    if trial is None:
        raise RuntimeError(f"a process without a trial has sent {kind!r}")
    if kind == "ended":
        trial.end(*content)
        worker.trial = None
        return
    try:
        trial.report(*content)
        worker.connection.send(None)
    except PrunedError as error:
        worker.connection.send(error.epoch)


@contextmanager
def _workers(scores: Sequence[Score]) -> Iterator[list[_Worker]]:
    context, workers = multiprocessing.get_context("spawn"), []
    try:
        for score in scores:
            own, other = context.Pipe()
            process = context.Process(target=_score_until_closed, args=(other, score), daemon=True)
            process.start()
            other.close()
            workers.append(_Worker(process, own))
        yield workers
    finally:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()


def _score_until_closed(connection: Connection, score: Score) -> None:
    """Score the settings that arrive, one after another, until the other process closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the other process ends this one

    def report(epoch: int, value: float) -> None:
        connection.send(("epoch", (epoch, value)))
        pruned_at: int | None = connection.recv()
        if pruned_at is not None:
            raise PrunedError(pruned_at)

    while True:
        try:
            values: Values = connection.recv()
        except EOFError:
            return
        message: tuple[str, Any]
        try:
            message = "ended", attempt(score, values, report)
        except EOFError:  # the other process has ended
            return
        except Exception as error:  # raised in the other process
            message = "error", error
        connection.send(message)
