"""Garbage collection on object storage: removes what no run refers to, and what killed writers have left behind.

There are no locks, so it is unknown what is in use. Instead, files that are younger than a grace period stay; the
period must be longer than the longest run. If a run has used an older artifact that no run had recorded, this is
noticed when the run is recorded: the artifact is uploaded again from the cache, or the run fails and must be started
again. Manifests are deleted before their files, so no reader finds a manifest that names deleted files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from data_contracts.remote.client import Remote, RemoteFile
from data_contracts.store.garbage import Garbage, is_keyed, parent_keys, parse_manifest, with_parents
from data_contracts.store.manifest import MANIFEST
from data_contracts.store.runs import RunRecord

GRACE = timedelta(days=7)
"""Default grace period: younger files stay."""


@dataclass(frozen=True)
class _ArtifactFolder:
    """The remote folder of an artifact.

    Attributes:
        files: all files by name, those that killed writers have left among them.
        named: names of the manifest and of the files that it names; empty without a manifest.
        parents: keys of the artifact's parents.
    """

    files: Mapping[str, RemoteFile]
    named: frozenset[str]
    parents: tuple[str, ...]


def find_remote_garbage(remote: Remote, grace: timedelta = GRACE) -> list[Garbage]:
    """Find what `collect_remote_garbage` would remove, in path order.

    Args:
        remote: the store's folder on object storage.
        grace: younger files stay.

    Raises:
        ValueError: a run's record or a manifest is damaged, so it is unknown what must stay.
    """
    return [_build_garbage(folder, files) for folder, files in _find_unused(remote, grace).items()]


def collect_remote_garbage(remote: Remote, grace: timedelta = GRACE) -> list[Garbage]:
    """Remove what no run refers to; arguments, result and errors are those of `find_remote_garbage`."""
    unused = _find_unused(remote, grace)
    for folder, files in unused.items():
        remote.delete([name for name in files if name == f"{folder}/{MANIFEST}"])
        remote.delete([name for name in files if name != f"{folder}/{MANIFEST}"])
    return [_build_garbage(folder, files) for folder, files in unused.items()]


def _find_unused(remote: Remote, grace: timedelta) -> dict[str, dict[str, RemoteFile]]:
    """Files that can be removed, by their artifact's folder."""
    listing = remote.listing()
    folders = _read_folders(remote, listing)
    by_key = {PurePosixPath(name).name: folder for name, folder in folders.items()}
    kept = with_parents(_recorded_keys(remote, listing), lambda key: by_key[key].parents if key in by_key else ())
    limit = datetime.now(UTC) - grace
    unused = {}
    for name, folder in folders.items():
        files = {path: file for path, file in folder.files.items() if file.modified < limit}
        if PurePosixPath(name).name in kept:
            files = {path: file for path, file in files.items() if path not in folder.named}
        elif len(files) < len(folder.files):  # the folder has a young file, so it may be about to be used
            files = {}
        if files:
            unused[name] = files
    return unused


def _read_folders(remote: Remote, listing: Mapping[str, RemoteFile]) -> dict[str, _ArtifactFolder]:
    files_by_folder: dict[str, dict[str, RemoteFile]] = {}
    for name, file in listing.items():
        folder = PurePosixPath(*PurePosixPath(name).parts[:2])
        if is_keyed(folder) and name != folder.as_posix():
            files_by_folder.setdefault(folder.as_posix(), {})[name] = file
    return {name: _read_folder(remote, name, files) for name, files in files_by_folder.items()}


def _read_folder(remote: Remote, folder: str, files: Mapping[str, RemoteFile]) -> _ArtifactFolder:
    content = remote.read(f"{folder}/{MANIFEST}")
    if content is None:
        return _ArtifactFolder(files, frozenset(), ())
    manifest = parse_manifest(content, f"{remote.address}/{folder}/{MANIFEST}")
    named = frozenset({f"{folder}/{MANIFEST}", *(f"{folder}/{entry['path']}" for entry in manifest["files"])})
    return _ArtifactFolder(files, named, tuple(parent_keys(manifest)))


_RECORDS = ("runs/*/*.json", "runs/*/generations/*.json")


def _recorded_keys(remote: Remote, listing: Mapping[str, RemoteFile]) -> set[str]:
    """Keys that runs refer to: in their record, or by a link beside it."""
    keys: set[str] = set()
    for name in listing:
        is_record = any(PurePosixPath(name).match(pattern) for pattern in _RECORDS)
        if is_record and (content := remote.read(name)) is not None:
            keys |= RunRecord.parse(content, f"{remote.address}/{name}").keys
    return keys


def _build_garbage(folder: str, files: Mapping[str, RemoteFile]) -> Garbage:
    return Garbage(Path(folder), sum(file.size for file in files.values()))
