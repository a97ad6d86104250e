"""Run the flow from this process: on the server that Prefect's settings name, or on an embedded API of its own."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from functools import cache

from flows import NO_TELEMETRY
from flows.config.run_config import RunSpec
from flows.output.console import Watch
from flows.runner.execute import Outcome
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)

ENVIRONMENT = {
    **NO_TELEMETRY,
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""No telemetry; no warnings about log messages before and after a flow."""

_STARTUP_SECONDS = 180.0
"""The API takes 15 to 25 s to start on a busy machine."""


def run_flows(specs: Sequence[RunSpec], stage: str | None, watch: Watch, digests: Digests) -> list[Outcome]:
    """Run the flow for each run.

    Args:
        specs: the runs.
        stage: one stage and what it needs; all stages if None.
        watch: shows progress.
        digests: of the log files that this process has read.

    Returns:
        What each run has now, in the same order.

    Raises:
        ConnectionError: the embedded API does not start.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "flows.orchestration.flow" not in sys.modules:
        log.info("starting Prefect")
    from prefect.settings import PREFECT_API_URL, temporary_settings  # it reads the environment when it is imported

    from flows.orchestration.flow import run_flow

    if PREFECT_API_URL.value():
        return [run_flow(spec, stage, watch, digests) for spec in specs]
    with temporary_settings({PREFECT_API_URL: _embedded_api()}):
        return [run_flow(spec, stage, watch, digests) for spec in specs]


@cache
def _embedded_api() -> str:
    """Start Prefect's API in a process of its own on loopback, once; returns its URL.

    It is in a session of its own, so that Ctrl-C on a terminal interrupts the flow while the API still answers. It ends
    when its standard input does, so after this process's last message to it, and also if this process is killed.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "flows.orchestration.api_process", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    _processes.append(process)
    url = f"http://127.0.0.1:{port}/api"
    _wait_for(url, process)
    return url


_processes: list[subprocess.Popen[bytes]] = []
"""The embedded API: its input is open as long as this list is."""


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, whatever proxies there are
    until = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with opener.open(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    reason = f"ended with {process.poll()}" if process.poll() is not None else f"no answer in {_STARTUP_SECONDS:g} s"
    raise ConnectionError(f"Prefect's embedded API does not start: {reason}; run without --prefect, or start a server")
