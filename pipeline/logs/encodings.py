"""Text of any encoding as UTF-8."""

from __future__ import annotations

import codecs
from typing import Protocol

_UNDECODABLE = "edda-undecodable"


class Stream(Protocol):
    """Bytes that are read one after another."""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""


class RecodedStream:
    """The text of a stream in UTF-8; in place of what cannot be decoded a byte that is not, so its line is rejected."""

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
        self._is_done = False

    def read(self, size: int) -> bytes:
        """About as many bytes; none at the end."""
        text = ""
        while not text and not self._is_done:
            chunk = self._stream.read(size)
            self._is_done = not chunk
            text = self._decoder.decode(bytes(chunk), final=self._is_done)
        return text.encode("utf-8", "surrogateescape")


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end  # which surrogateescape encodes as the byte FF


codecs.register_error(_UNDECODABLE, _mark_undecodable)
