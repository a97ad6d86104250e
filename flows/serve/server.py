"""Run the service, in one process or several, until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from flows.output.console import inform, show_logs

if TYPE_CHECKING:
    from fastapi import FastAPI

    from flows.serve.served_run import RunSource
    from flows.serve.service import ServiceSettings

log = logging.getLogger(__name__)

_SECONDS_TO_FINISH = 30
"""How long requests in progress may take when the service is stopped."""
_SECONDS_TO_ANSWER = 20
"""How long a worker's interpreter may be busy, e.g. with loading compiled code, before the worker counts as hung."""


@dataclass(frozen=True)
class Serving:
    """What is served, how, and by how many processes.

    Attributes:
        source: the run.
        settings: how the service answers.
        watch_seconds: between two looks for a new generation; None: only SIGHUP reloads.
        workers: processes.
    """

    source: RunSource
    settings: ServiceSettings
    watch_seconds: float | None = None
    workers: int = 1
    log_level: int = field(default=logging.INFO)


def serve_until_stopped(serving: Serving, host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM, then finish requests in progress; SIGHUP reloads the run.

    Args:
        serving: what to serve.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.

    Returns:
        The exit status: 0, or 1 if a worker could not start.

    Raises:
        OSError: the address is not available.
        ValueError: the run cannot be served.
    """
    if serving.workers == 1:
        app = build_app(serving)
        with _listening(host, port) as sockets:
            run_app(app, sockets)
        return 0
    _check(serving)
    with _listening(host, port, f" by {serving.workers} workers") as sockets:
        return _run_workers(serving, sockets)


def build_app(serving: Serving) -> FastAPI:
    """Open the run, let SIGHUP and the clock reload it, and build the application."""
    from flows.serve.served_run import ServedRun
    from flows.serve.service import service

    served = ServedRun(serving.source)
    served.keep_up_to_date(serving.watch_seconds)
    signal.signal(signal.SIGHUP, lambda *_: served.want_reload())
    return service(served, serving.settings)


def run_app(app: FastAPI, sockets: list[socket.socket]) -> None:
    """Answer on a socket that listens, in this process, until a signal says stop."""
    config = uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=_SECONDS_TO_FINISH)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn finishes, then raises the signal again
    try:
        with threadpool_limits(1):  # requests run in parallel, each on one thread
            uvicorn.Server(config).run(sockets=sockets)
    except KeyboardInterrupt:
        inform("stopped")


@contextmanager
def _listening(host: str, port: int, addition: str = "") -> Iterator[list[socket.socket]]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listening:
        # Otherwise a response's body waits 40 ms for the client's ACK; asyncio only sets it if a socket has a protocol.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address, bound = listening.getsockname()[:2]
        inform(f"serving on http://{f'[{address}]' if ':' in address else address}:{bound}{addition}, stop with Ctrl-C")
        yield [listening]


def _check(serving: Serving) -> None:
    """Raise what a worker would raise, before any is started."""
    from flows.serve.open_run import exported_run, open_view
    from flows.serve.served_run import read_lists

    view = exported_run(serving.source.run, serving.source.store)
    open_view(view, index=serving.source.index)
    read_lists(serving.source, view)


class _Workers(Multiprocess):
    """Uvicorn's supervisor of processes, but SIGHUP reloads the run in each of them instead of replacing them.

    So no connection is closed by a reload.
    """

    def handle_hup(self) -> None:
        """Pass the signal on."""
        for process in self.processes:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGHUP)

    @property
    def have_failed(self) -> bool:
        """Whether a worker could not start."""
        return any(process.exitcode == STARTUP_FAILURE for process in self.processes)


def _run_workers(serving: Serving, sockets: list[socket.socket]) -> int:
    """Serve by several processes that accept from one socket; a worker that dies is replaced."""
    with tempfile.TemporaryDirectory(prefix="edda-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # the workers' metrics are added up there
        config = uvicorn.Config(
            partial(_build_worker, serving),
            factory=True,
            log_config=None,
            ws="none",
            workers=serving.workers,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
            timeout_worker_healthcheck=_SECONDS_TO_ANSWER,
        )
        workers = _Workers(config, sockets)
        workers.run()
        inform("stopped")
        return int(workers.have_failed)


def _build_worker(serving: Serving) -> FastAPI:
    """Build the application in a worker; one that cannot start stops the service instead of being tried for ever."""
    show_logs(serving.log_level)
    threadpool_limits(1)
    try:
        return build_app(serving)
    except (OSError, ValueError, LookupError) as error:
        inform(f"edda: {error}")
        sys.exit(STARTUP_FAILURE)
