"""Digests of files: computed, and remembered as long as a file stays the same."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from data_contracts.cache_folders import cache_folder

_SETTLED_NANOSECONDS = 2 * 10**9
"""Age from which a file's times tell it from a later version: some file systems count time in steps of two seconds."""

State = tuple[int, int, int, int]
"""Size, times of the last change of content and of the inode in nanoseconds, and inode."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class DigestCache:
    """Digests of the files in one folder. A file is read again only if its size, times or inode have changed.

    They are kept in memory and in the user's cache folder, `digests/<name of the folder, hashed>`, one line for each
    file. That file may be deleted, cut short or missing: what it lacks is computed again. Lines are appended by single
    writes, so several processes may share it, and half a line spoils no other. Files that changed in the last two
    seconds are not remembered, nor are names with control characters.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._known: dict[str, tuple[str, State]] | None = None

    def digest(self, name: str) -> str:
        """SHA-256 of a file, by its path in the folder.

        Raises:
            OSError: the file cannot be read.
        """
        path, now = self._folder / name, time.time_ns()
        before = _state(path)
        if self._known is None:
            self._known = self._load()
        known = self._known.get(name)
        if known is not None and known[1] == before:
            return known[0]
        digest = file_digest(path)
        is_settled = _state(path) == before and now - max(before[1:3]) > _SETTLED_NANOSECONDS
        if is_settled and name.isprintable():  # a line break would begin another line
            self._known[name] = digest, before
            self._append(f"\n{digest} {' '.join(map(str, before))} {name}\n")
        return digest

    def forget(self) -> None:
        """Delete what is kept about the folder."""
        with suppress(OSError, RuntimeError):
            self._path().unlink(missing_ok=True)

    def _path(self) -> Path:
        return cache_folder() / "digests" / hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:32]

    def _load(self) -> dict[str, tuple[str, State]]:
        known: dict[str, tuple[str, State]] = {}
        with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
            for line in self._path().read_text(encoding="utf-8", errors="replace").split("\n"):
                with suppress(ValueError):
                    digest, size, modified, changed, inode, name = line.split(" ", 5)
                    known[name] = digest, (int(size), int(modified), int(changed), int(inode))
        return known

    def _append(self, line: str) -> None:
        with suppress(OSError, RuntimeError):
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as stream:
                stream.write(line.encode())


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
