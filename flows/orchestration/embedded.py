"""Run the flow from this process: on the server that Prefect's settings name, or on an embedded API of its own."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, reduce
from http.client import HTTPException
from operator import getitem
from pathlib import Path
from urllib.parse import urlsplit

from data_contracts.cache_folders import writable_cache_folder
from flows import NO_TELEMETRY
from flows.config.run_config import RunSpec
from flows.config.toml_file import TomlError, read_toml
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
        ConnectionError: the embedded API does not start, or the server does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "flows.orchestration.flow" not in sys.modules:
        log.info("starting Prefect")
    from prefect.settings import PREFECT_API_URL, temporary_settings  # it reads the environment when it is imported

    from flows.orchestration.flow import run_flow

    if url := PREFECT_API_URL.value():
        if not answers(url):
            raise ConnectionError(
                f"Prefect's server at {url} (from {_origin()}) does not answer; start it, unset PREFECT_API_URL there, "
                "or run with --no-prefect"
            )
        return [run_flow(spec, stage, watch, digests) for spec in specs]
    with temporary_settings({PREFECT_API_URL: _embedded_api()}):
        return [run_flow(spec, stage, watch, digests) for spec in specs]


@cache
def _embedded_api() -> str:
    """Start Prefect's API on loopback, once; returns its URL.

    Its database is that of the user's Prefect, or one of our own if that cannot be used: it cannot be written, is
    damaged, or a newer Prefect made it.
    """
    try:
        return _start_api(dict(os.environ))
    except ConnectionError as error:
        home = writable_cache_folder() / "prefect"
        log.warning("%s; trying again with a database in %s", error, home)
        return _start_api({**os.environ, "PREFECT_HOME": str(home)})


def _start_api(environment: Mapping[str, str]) -> str:
    """Start Prefect's API in a process of its own.

    It is in a session of its own, so that Ctrl-C on a terminal interrupts the flow while the API still answers. It ends
    when its standard input does, so after this process's last message to it, and also if this process is killed.

    Raises:
        ConnectionError: it does not start.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "flows.orchestration.api_process", str(port)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=errors, start_new_session=True, env=dict(environment)
        )
        _processes.append(process)
        url = f"http://127.0.0.1:{port}/api"
        if reason := _wait_for(url, process):
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            lines = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)] or lines
            remedy = "run without --prefect, name another PREFECT_HOME, or start a server"
            raise ConnectionError(f"Prefect's embedded API does not start: {(lines or [reason])[-1].strip()}; {remedy}")
    return url


_processes: list[subprocess.Popen[bytes]] = []
"""The embedded API: its input is open as long as this list is."""


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> str | None:
    """Wait until the API answers; returns why it does not."""
    until = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if answers(url):
            return None
        time.sleep(0.2)
    return f"ended with {process.poll()}" if process.poll() is not None else f"no answer in {_STARTUP_SECONDS:g} s"


def answers(url: str) -> bool:
    """Prefect's API answers at a URL."""
    on_loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if on_loopback else []))
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # a server is there; what it minds, e.g. a missing key, Prefect says
    except (OSError, ValueError, HTTPException):
        return False


def _origin() -> str:
    """Where Prefect has found the URL of its API: it reads the environment, then files here, then the profile."""
    if os.environ.get("PREFECT_API_URL"):
        return "the environment"
    with suppress(OSError, UnicodeDecodeError):
        if "PREFECT_API_URL" in Path(".env").read_text(encoding="utf-8"):
            return str(Path(".env").absolute())
    for name, keys in (("prefect.toml", ("api", "url")), ("pyproject.toml", ("tool", "prefect", "api", "url"))):
        with suppress(TomlError, LookupError, TypeError):
            reduce(getitem, keys, read_toml(Path(name)))
            return str(Path(name).absolute())
    from prefect.context import get_settings_context

    return f"Prefect's profile {get_settings_context().profile.name!r}"
