"""Folders for what can be made again: the user's own where they can be written, else temporary ones."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def cache_folder() -> Path:
    """`$EDDA_CACHE`, else `edda-recsys` in the user's cache folder.

    Raises:
        RuntimeError: the user has no home.
    """
    if folder := os.environ.get("EDDA_CACHE"):
        return Path(folder).absolute()
    return (_user_cache() / "edda-recsys").absolute()


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def writable_cache_folder() -> Path:
    """`cache_folder` if it can be written, else a temporary folder."""
    with suppress(RuntimeError):
        if can_write(folder := cache_folder()):
            return folder
    return private_temporary_folder()


@cache
def private_temporary_folder() -> Path:
    """A folder that only this user can write, the same for all processes of a user; it may outlast them.

    Raises:
        FileNotFoundError: there is no temporary folder that can be written.
    """
    folder = Path(tempfile.gettempdir()) / f"edda-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_private = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
    return folder if is_private and not status.st_mode & 0o022 else Path(tempfile.mkdtemp(prefix="edda-"))


def can_write(folder: Path) -> bool:
    """Files can be made in a folder, or the folder itself can be."""
    try:
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=existing):
            return True
    except (OSError, StopIteration):
        return False


def provide_caches() -> None:
    """Give Numba and Matplotlib temporary folders where those that they would choose cannot be written.

    To be called before either is imported; processes that are started inherit it. Without this, Numba compiles nothing
    in an installation that is read-only if the user has no home either.
    """
    with suppress(OSError):  # no temporary folder: they say so themselves
        if "NUMBA_CACHE_DIR" not in os.environ and not _numba_has_a_folder():
            os.environ["NUMBA_CACHE_DIR"] = str(private_temporary_folder() / "numba")
        if "MPLCONFIGDIR" not in os.environ and not can_write(_user_configuration() / "matplotlib"):
            os.environ["MPLCONFIGDIR"] = str(private_temporary_folder() / "matplotlib")


def _numba_has_a_folder() -> bool:
    """The user's cache folder can be written, or the folders of our packages, beside whose modules Numba caches."""
    with suppress(RuntimeError):
        if can_write(_user_cache() / "numba"):
            return True
    specs = [find_spec(name) for name in ("pipeline", "model")]
    return all(can_write(Path(spec.origin).parent) for spec in specs if spec and spec.origin)


def _user_configuration() -> Path:
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:
        return Path("/nonexistent")
