"""Headless Chromium by its DevTools protocol: pages, scripts in them, keys, screenshots, and what was requested."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.flows.serve.http_service import wait_until

_KEYS = {"Tab": 9, "Enter": 13}


class Page:
    """One page of the browser.

    Attributes:
        requested: addresses of all requests.
        complaints: errors and warnings of the console, violations of the policy and dialogs among them.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._socket, self._number = socket, 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, address: str, *, dark: bool = False) -> None:
        """Open an address and wait until it has loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=address)
        wait_until(lambda: self.run("document.readyState") == "complete")

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> Any:
        """The first true value of an expression."""
        return wait_until(lambda: self.run(script))

    def press(self, key: str) -> None:
        """Press and release a key, or type a character."""
        code = {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
        text = {"Enter": "\r"}.get(key, "" if key in _KEYS else key)
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, **code)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **code)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the page, as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(60))
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message["method"], message["params"])

    def _note(self, event: str, parameters: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif event == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif event in ("Page.javascriptDialogOpening", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with one empty page.

    Args:
        folder: of its profile.
    """
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={folder}", "--window-size=1280,1400", "--hide-scrollbars", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port_file = folder / "DevToolsActivePort"
            lines = wait_until(lambda: port_file.exists() and port_file.read_text().splitlines())
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json", timeout=30) as answer:
                address = next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
            with connect(address, max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
