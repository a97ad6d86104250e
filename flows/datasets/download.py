"""Download one file so that an interruption costs nothing: what has come stays beside it, and the rest is asked for."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, BinaryIO

from requests import ConnectionError as BrokenConnection
from requests import HTTPError, RequestException, Response, Session, Timeout
from requests.exceptions import ChunkedEncodingError, SSLError

from data_contracts.progress import Progress

log = logging.getLogger(__name__)

_WAITS = (1, 2, 5)
"""Seconds before each further try; they begin again when a try has brought something."""
_TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
_SECONDS_TO_ANSWER = 30
_BLOCK = 2**16
"""Bytes that a broken connection costs, at most."""


class Resuming:
    """Downloads for pooch, which checks the digest afterwards: goes on where an earlier download ended.

    `.NAME.part` beside the file holds what has come, `.NAME.etag` the version that it is of: the server's strong ETag,
    else its date. The rest is asked for on condition that the version is still the same, so parts of two versions are
    never mixed; without a version, or with a server that knows no ranges, the file comes whole.

    Args:
        path: the file to be.
        progress: told the bytes after each block.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self._name, self._progress = path.name, progress
        self._part, self._version = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "etag"))

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        """Download to pooch's temporary file, which lies in the same folder.

        Raises:
            RequestException: it cannot be had, or broke off more often than brought something; the part stays.
        """
        waits = iter(_WAITS)
        with Session() as session:
            while True:
                had = self._size()
                try:
                    self._go_on(session, url)
                    break
                except RequestException as error:
                    waits = iter(_WAITS) if self._size() > had else waits
                    wait = next(waits, None) if _may_pass(error) else None
                    if wait is None:
                        raise
                    log.info("%s: %s; trying again in %d s", self._name, _cause(error), wait)
                    time.sleep(wait)
        self._part.replace(output_file)
        self._version.unlink()

    def _go_on(self, session: Session, url: str) -> None:
        """Ask once, for what is missing or for all, and keep whatever comes."""
        version = self._version.read_text() if self._version.exists() else ""
        start = self._size() if version else 0
        rest = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
        headers = {"Accept-Encoding": "identity", **rest}
        with session.get(url, headers=headers, stream=True, timeout=_SECONDS_TO_ANSWER) as answer:
            if answer.status_code in (206, 416) and not _continues(answer, start, version):
                self._part.unlink(missing_ok=True)
                raise BrokenConnection("what the server has left belongs to another file than what has come")
            answer.raise_for_status()
            if answer.status_code != 206:
                start = 0
                self._part.unlink(missing_ok=True)
                self._version.write_text(_version(answer))
            size = int(answer.headers.get("Content-Length", 0))
            with self._part.open("ab") as stream:
                self._keep(answer, stream, start, start + size if size else 0)

    def _keep(self, answer: Response, stream: BinaryIO, done: int, total: int) -> None:
        for block in answer.iter_content(_BLOCK):
            stream.write(block)
            done += len(block)
            self._progress(done, total, "bytes", self._name)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0


def _version(answer: Response) -> str:
    """What tells the file from another version of it, bit for bit; empty where nothing does."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _continues(answer: Response, start: int, version: str) -> bool:
    """The answer begins where it was asked to, in the same version: some servers do not know If-Range."""
    return answer.headers.get("Content-Range", "").startswith(f"bytes {start}-") and _version(answer) in ("", version)


def _cause(error: RequestException) -> str:
    """What went wrong, without the connection pools that it went through."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return str(reason or error).rpartition("): ")[2]


def _may_pass(error: RequestException) -> bool:
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code in _TRANSIENT_STATUSES
    return isinstance(error, BrokenConnection | ChunkedEncodingError | Timeout) and not isinstance(error, SSLError)
