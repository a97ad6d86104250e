"""Claims: which artifacts living processes use, so that no garbage collection takes them away.

A claim is a line in `.staging/claims/<name>.keys`, valid as long as somebody holds `<name>.lock`. The lock goes with
its process, however that ends, so nothing has to time out.
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
    """Keys that one store object uses; they are claimed until it, or its process, is gone."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging
        self._file = staging / "claims" / f"{uuid.uuid4().hex}.keys"
        self._is_living = False
        self._wanted: set[str] = set()
        self._told: set[str] = set()

    def add(self, keys: Iterable[str]) -> None:
        """Claim keys, whether or not their artifacts exist yet. To be called before looking whether they do.

        A store without a staging folder has nothing in the making, so its claims wait until there is one.
        """
        self._wanted.update(keys)
        if self._wanted != self._told and self._staging.is_dir():
            self._tell()

    def add_if_allowed(self, keys: Iterable[str]) -> None:
        """As `add`, but who may only read the store claims nothing: what its runs refer to stays all the same."""
        try:
            self.add(keys)
        except OSError as error:
            if not is_for_reading(error):
                raise

    def _tell(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        with claims_lock(self._staging):
            if not self._is_living:
                living = FileLock(self._file.with_suffix(".lock"), thread_local=False)
                living.acquire()
                weakref.finalize(self, _withdraw, self._file, living, os.getpid())
                self._is_living = True
            new = self._wanted - self._told
            with self._file.open("a") as stream:
                stream.writelines(f"{key}\n" for key in sorted(new))
            self._told |= new


def _withdraw(file: Path, living: FileLock, process: int) -> None:
    """Leave nothing behind; a fork's copy of the claims is its parent's to withdraw."""
    if os.getpid() == process:
        file.unlink(missing_ok=True)
        Path(living.lock_file).unlink(missing_ok=True)
        living.release()


def claims_lock(staging: Path) -> FileLock:
    """Held while a claim is made, and while garbage is chosen and moved aside: never for long."""
    return FileLock(staging / "claims.lock")


def claimed_keys(staging: Path) -> set[str]:
    """Keys that living processes claim. What killed ones left is deleted; hold `claims_lock`."""
    found: set[str] = set()
    for file in staging.glob("claims/*.keys"):
        lock = FileLock(file.with_suffix(".lock"))
        if is_held(lock):
            with suppress(FileNotFoundError):  # withdrawn just now
                found.update(file.read_text().split())
        else:
            file.unlink(missing_ok=True)
            Path(lock.lock_file).unlink(missing_ok=True)
    return found


@contextmanager
def alone(lock: Path, otherwise: str) -> Iterator[None]:
    """Be the only process that holds a lock's file.

    Raises:
        BlockingIOError: another one holds it; `otherwise` says what it does.
    """
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(f"{otherwise}; wait until it has ended") from None


def is_for_reading(error: OSError) -> bool:
    """Who met the error may only read there."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def is_held(lock: FileLock) -> bool:
    """Some process, perhaps this one by another object, holds the lock now."""
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


STAGING = ".staging"
"""Folder of a store with what is in the making."""
