"""Download one file resumably: what has arrived is kept beside it, and the next attempt requests only the rest."""

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
"""Seconds before each retry; they start again from the first when a try has received something."""
_TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
_SECONDS_TO_ANSWER = 30
_BLOCK = 2**16
"""Most bytes that are lost when a connection breaks."""


class Resuming:
    """A downloader for pooch, which checks the digest afterwards, that resumes earlier downloads.

    `.NAME.part` beside the file has the bytes received so far, `.NAME.etag` their version: the server's strong ETag, or
    its date. The rest is requested on condition that the version is still the same, so parts of two versions are never
    mixed. Without a version, or if the server does not support ranges, the whole file is requested.

    Args:
        path: the file to download to.
        progress: called with the number of bytes after each block.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self._name, self._progress = path.name, progress
        self._part, self._version = (path.with_name(f".{path.name}.{kind}") for kind in ("part", "etag"))

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        """Download to pooch's temporary file, which is in the same folder.

        Raises:
            RequestException: the file is not available, or too many tries received nothing; the partial file is kept.
        """
        waits = iter(_WAITS)
        with Session() as session:
            while True:
                size_before = self._size()
                try:
                    self._request_rest(session, url)
                    break
                except RequestException as error:
                    waits = iter(_WAITS) if self._size() > size_before else waits
                    wait = next(waits, None) if _is_transient(error) else None
                    if wait is None:
                        raise
                    log.info("%s: %s; trying again in %d s", self._name, _cause(error), wait)
                    time.sleep(wait)
        self._part.replace(output_file)
        self._version.unlink()

    def _request_rest(self, session: Session, url: str) -> None:
        """Send one request, for the rest of the file or for all of it, and append what arrives."""
        version = self._version.read_text() if self._version.exists() else ""
        start = self._size() if version else 0
        rest = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
        headers = {"Accept-Encoding": "identity", **rest}
        with session.get(url, headers=headers, stream=True, timeout=_SECONDS_TO_ANSWER) as response:
            if response.status_code in (206, 416) and not _is_continuation(response, start, version):
                self._part.unlink(missing_ok=True)
                raise BrokenConnection("the server's file has changed since the download was started")
            response.raise_for_status()
            if response.status_code != 206:
                start = 0
                self._part.unlink(missing_ok=True)
                self._version.write_text(_file_version(response))
            size = int(response.headers.get("Content-Length", 0))
            with self._part.open("ab") as stream:
                self._append(response, stream, start, start + size if size else 0)

    def _append(self, response: Response, stream: BinaryIO, done: int, total: int) -> None:
        for block in response.iter_content(_BLOCK):
            stream.write(block)
            done += len(block)
            self._progress(done, total, "bytes", self._name)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0


def _file_version(response: Response) -> str:
    """Identifies the content of the server's file: its strong ETag, or its date; empty if it has neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _is_continuation(response: Response, start: int, version: str) -> bool:
    """The response has the requested range and the same version; some servers ignore If-Range."""
    content_range = response.headers.get("Content-Range", "")
    return content_range.startswith(f"bytes {start}-") and _file_version(response) in ("", version)


def _cause(error: RequestException) -> str:
    """The cause of an error, without the connection pools in its message."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return str(reason or error).rpartition("): ")[2]


def _is_transient(error: RequestException) -> bool:
    if isinstance(error, HTTPError):
        return error.response is not None and error.response.status_code in _TRANSIENT_STATUSES
    return isinstance(error, BrokenConnection | ChunkedEncodingError | Timeout) and not isinstance(error, SSLError)
