"""Claims: which artifacts running processes use, so that garbage collection does not remove them.

A claim is a line in `.staging/claims/<name>.keys`, valid while a process holds `<name>.lock`. The operating system
releases the lock when the process ends, however it ends, so claims need no timeout.
"""

from __future__ import annotations

import errno
import os
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Claims:
    """Keys that one store object uses. They stay claimed until the object is collected or its process ends."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self._file = staging / "claims" / f"{uuid.uuid4().hex}.keys"
        self._holds_lock = False
        self._wanted: set[str] = set()
        self._claimed: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        """Claim keys, whether or not their artifacts exist yet. Call it before checking whether they exist.

        Without a staging folder nothing is being made in the store, so the claims are only written once there is one.
        """
        self._wanted.update(keys)
        if self._wanted != self._claimed and self._staging.is_dir():
            self._write_claims()

    def add_if_allowed(self, keys: Iterable[str]) -> None:
        """Claim keys as `add` does, or none if the store is read-only: what its runs refer to stays anyway."""
        try:
            self.add(keys)
        except OSError as error:
            if not is_write_refused(error):
                raise

    def _write_claims(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        with claims_lock(self._staging):
            if not self._holds_lock:
                lock = FileLock(self._file.with_suffix(".lock"), thread_local=False)
                lock.acquire()
                weakref.finalize(self, _withdraw, self._file, lock, os.getpid())
                self._holds_lock = True
            new = self._wanted - self._claimed
            with self._file.open("a") as stream:
                stream.writelines(f"{key}\n" for key in sorted(new))
            self._claimed |= new


def _withdraw(file: Path, lock: FileLock, process: int) -> None:
    """Delete the claim file and release its lock; does nothing in a forked child."""
    if os.getpid() == process:
        file.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def claims_lock(staging: Path) -> FileLock:
    """A lock to hold briefly, while a claim is written or while garbage is chosen and moved aside."""
    return FileLock(staging / "claims.lock")


def claimed_keys(staging: Path) -> set[str]:
    """Keys that running processes claim. Claims of killed processes are deleted. The caller holds `claims_lock`."""
    keys: set[str] = set()
    for file in staging.glob("claims/*.keys"):
        lock = FileLock(file.with_suffix(".lock"))
        if is_held(lock):
            with suppress(FileNotFoundError):  # withdrawn just now
                keys.update(file.read_text().split())
        else:
            file.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)
    return keys


@contextmanager
def exclusive_lock(lock: Path, conflict: str) -> Iterator[None]:
    """Hold a lock file, or fail at once.

    Raises:
        BlockingIOError: another process holds it; `conflict` says what that process is doing.
    """
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(f"{conflict}; wait until it has ended") from None


def is_write_refused(error: OSError) -> bool:
    """The error says that this process may only read there."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def is_held(lock: FileLock) -> bool:
    """Some process holds the lock now; it may be this one, through another object."""
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


STAGING = ".staging"
"""Folder of a store for artifacts that are being made."""
