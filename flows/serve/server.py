"""Run the service in one process until it is stopped."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import uvicorn
from threadpoolctl import threadpool_limits

from flows.output.console import inform

if TYPE_CHECKING:
    from fastapi import FastAPI

_SECONDS_TO_FINISH = 30
"""How long requests in progress may take when the service is stopped."""


def serve_until_stopped(app: FastAPI, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, then finish requests in progress.

    Args:
        app: the service.
        host: address to listen on.
        port: port to listen on; 0 picks a free one.

    Raises:
        OSError: the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listening:
        # Otherwise a response's body waits 40 ms for the client's ACK; asyncio only sets it if a socket has a protocol.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address, bound = listening.getsockname()[:2]
        inform(f"serving on http://{f'[{address}]' if ':' in address else address}:{bound}, stop with Ctrl-C")
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_SECONDS_TO_FINISH)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn finishes, then raises the signal again
        try:
            with threadpool_limits(1):  # requests run in parallel, each on one thread
                uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            inform("stopped")
