"""Garbage collection on object storage: what no run refers to, and what is left of writers that were killed.

There are no locks, so nobody can tell what is in use. Instead, whatever was written less than a time of grace ago
stays: it must be longer than the longest run. A run that used an older artifact, which no run had recorded, notices
when it is recorded: the artifact is put there again from its cache, or the run is told to start again. Manifests go
before their files, so no reader finds a manifest that names what is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from data_contracts.remote.client import Remote, RemoteFile
from data_contracts.store.artifact import MANIFEST
from data_contracts.store.garbage import Garbage, is_keyed, parent_keys, parse_manifest, with_parents
from data_contracts.store.runs import RunRecord

GRACE = timedelta(days=7)
"""What was written less than this ago stays, unless something else is asked for."""


@dataclass(frozen=True)
class _Folder:
    """An artifact's folder as it is there: files by name, of them the manifest's own, and the parents' keys."""

    files: Mapping[str, RemoteFile]
    named: frozenset[str]
    parents: tuple[str, ...]


def find_remote_garbage(remote: Remote, grace: timedelta = GRACE) -> list[Garbage]:
    """What `collect_remote_garbage` would remove, in path order.

    Args:
        remote: the store's folder on object storage.
        grace: what was written less than this ago stays.

    Raises:
        ValueError: a run's record or a manifest is damaged, so that nobody knows what must stay.
    """
    return [_garbage(folder, files) for folder, files in _unused(remote, grace).items()]


def collect_remote_garbage(remote: Remote, grace: timedelta = GRACE) -> list[Garbage]:
    """Remove what no run refers to; arguments, result and errors as of `find_remote_garbage`."""
    found = _unused(remote, grace)
    for folder, files in found.items():
        remote.delete([name for name in files if name == f"{folder}/{MANIFEST}"])
        remote.delete([name for name in files if name != f"{folder}/{MANIFEST}"])
    return [_garbage(folder, files) for folder, files in found.items()]


def _unused(remote: Remote, grace: timedelta) -> dict[str, dict[str, RemoteFile]]:
    """Files that can go, by their artifact's folder."""
    listing = remote.listing()
    folders = _folders(remote, listing)
    by_key = {PurePosixPath(name).name: folder for name, folder in folders.items()}
    kept = with_parents(_recorded_keys(remote, listing), lambda key: by_key[key].parents if key in by_key else ())
    limit = datetime.now(UTC) - grace
    found = {}
    for name, folder in folders.items():
        files = {path: file for path, file in folder.files.items() if file.modified < limit}
        if PurePosixPath(name).name in kept:
            files = {path: file for path, file in files.items() if path not in folder.named}
        elif len(files) < len(folder.files):  # something in it is young: perhaps it is about to be used
            files = {}
        if files:
            found[name] = files
    return found


def _folders(remote: Remote, listing: Mapping[str, RemoteFile]) -> dict[str, _Folder]:
    files: dict[str, dict[str, RemoteFile]] = {}
    for name, file in listing.items():
        folder = PurePosixPath(*PurePosixPath(name).parts[:2])
        if is_keyed(folder) and name != folder.as_posix():
            files.setdefault(folder.as_posix(), {})[name] = file
    return {folder: _folder(remote, folder, inside) for folder, inside in files.items()}


def _folder(remote: Remote, folder: str, files: Mapping[str, RemoteFile]) -> _Folder:
    content = remote.read(f"{folder}/{MANIFEST}")
    if content is None:
        return _Folder(files, frozenset(), ())
    manifest = parse_manifest(content, f"{remote.address}/{folder}/{MANIFEST}")
    named = frozenset({f"{folder}/{MANIFEST}", *(f"{folder}/{entry['path']}" for entry in manifest["files"])})
    return _Folder(files, named, tuple(parent_keys(manifest)))


def _recorded_keys(remote: Remote, listing: Mapping[str, RemoteFile]) -> set[str]:
    """Keys that runs refer to: by their last record, or by what was linked beside it."""
    keys: set[str] = set()
    for name in listing:
        if PurePosixPath(name).match("runs/*/*.json") and (content := remote.read(name)) is not None:
            keys |= RunRecord.parse(content, f"{remote.address}/{name}").keys
    return keys


def _garbage(folder: str, files: Mapping[str, RemoteFile]) -> Garbage:
    return Garbage(Path(folder), sum(file.size for file in files.values()))
