"""`edda serve` in a process of its own on loopback, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A response: its status, headers, and body as JSON if it is JSON, else as text."""

    status: int
    headers: Message
    body: Any


@dataclass
class Service:
    """A running service; `output` and `errors` are what it had written to its files when it stopped."""

    process: subprocess.Popen[str]
    port: int
    folder: Path

    def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        text = None if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, text, {"Content-Type": "application/json", **names})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = "json" in (response.headers["Content-Type"] or "") and content
        return Reply(
            response.status, response.headers, json.loads(content) if is_json else content.decode(errors="replace")
        )

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text()


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)
    return value


@contextmanager
def running(run: str, store: Path, folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    """A service on a free port; it must end with 0 on SIGTERM.

    Args:
        run: of the store.
        store: its folder.
        folder: of the files with the service's output.
        options: of the command.
        environment: further variables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flows.cli", "serve", run, "--port", "0", "--store", str(store), *options]
    with (
        (folder / "output").open("w") as output,
        (folder / "errors").open("w") as errors,
        subprocess.Popen(command, stdout=output, stderr=errors, text=True, env=os.environ | environment) as process,
    ):
        service = Service(process, 0, folder)
        try:
            pattern = re.compile(r"http://127\.0\.0\.1:(\d+)")
            found = wait_until(lambda: pattern.search(service.errors) or process.poll() is not None)
            assert found is not True, service.errors
            service.port = int(found[1])
            assert service.ask("/health").status == 200
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 0, service.errors
