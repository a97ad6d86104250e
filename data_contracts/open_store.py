"""The store at a path or an address."""

from __future__ import annotations

from pathlib import Path

from data_contracts.remote.client import is_remote
from data_contracts.remote.store import RemoteStore
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store


def open_store(location: str | Path) -> Store:
    """Open the store at a path, or at the address of a folder on object storage.

    Raises:
        NotADirectoryError: the path, or a folder in it, is a file, a device, or a link that leads nowhere.
        ValueError, ModuleNotFoundError, FileNotFoundError, PermissionError, ConnectionError: as `Remote`.
    """
    if is_remote(str(location)):
        return RemoteStore(str(location))
    for path in (Path(location), *Path(location).parents):
        if path.exists() and not path.is_dir():
            kind = "a file" if path.is_file() else "a device or a pipe"
            raise NotADirectoryError(f"store {location}: {path} is {kind}, must be a folder")
        if path.is_symlink() and not path.exists():
            raise NotADirectoryError(f"store {location}: {path} is a link that leads nowhere, must lead to a folder")
    return Store(location)


def containing_store(artifact: Artifact) -> Store:
    """The store that an artifact is in."""
    origin = artifact.origin
    return origin if isinstance(origin, RemoteStore) else Store(artifact.folder.parent.parent)
