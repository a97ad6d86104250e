"""Garbage collection: removes artifacts that no run refers to, and what interrupted stages have left behind.

It keeps the artifacts that a run's record or links name, those that a running process claims, the parents of both, and
the staging folders of stages that are running or that an interrupted run will resume. Of an update it keeps the
artifacts that the record names as the update's base, but not the base of that base. It is safe while other processes
work, on this machine or on another that sees the folder:

- A `Store` claims a key before it looks for the artifact or makes it, and the claim lasts until its process ends. So
  what a process has found or made stays while it works, whether or not a run's record names it.
- Claims are made, and garbage is chosen and moved aside, under one lock. So a process that looks for a key sees a whole
  artifact that stays, or none and makes it. Deleting what was moved aside takes longer and needs no lock.
- Claims are read before the runs' records, so a run that ends in between is seen by one or by both.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock

from data_contracts.contracts import CONTRACTS
from data_contracts.roles import BEFORE
from data_contracts.store.claims import STAGING, claimed_keys, claims_lock, exclusive_lock, is_held
from data_contracts.store.digests import DigestCache
from data_contracts.store.files import DamagedFileError, abandoned_files, require_writable
from data_contracts.store.json_files import parse_json, read_description
from data_contracts.store.manifest import MANIFEST, is_key, require_key, take_digest
from data_contracts.store.runs import RunRecord


@dataclass(frozen=True)
class Garbage:
    """A folder or a file that can be removed.

    Attributes:
        path: relative to the store: `<contract>/<key>`, or `.staging/<contract>/<key>` of an abandoned stage, or a
            temporary file of a killed process.
        size: of its files, in bytes.
    """

    path: Path
    size: int


def find_garbage(root: Path) -> list[Garbage]:
    """Find what `collect_garbage` would remove, in path order.

    Args:
        root: the store's folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a run's record, or the manifest of an artifact that is referred to, is damaged, so it is unknown
            what must stay.
    """
    if root.is_dir() and not os.access(root, os.W_OK):
        return _find_garbage_unlocked(root)
    with claims_lock(_staging_folder(root)):
        return _find_garbage(root, claimed_keys(root / STAGING))


def _find_garbage_unlocked(root: Path) -> list[Garbage]:
    """Garbage in a read-only store, where nobody can see which process lives: what any has claimed or begun is used."""
    claims = (file.read_text().split() for file in (root / STAGING).glob("claims/*.keys"))
    begun = {path.name for path in _keyed_folders(root / STAGING)}
    return _find_garbage(root, begun.union(*claims))


def collect_garbage(root: Path) -> list[Garbage]:
    """Remove what no run and no living process refers to.

    Args:
        root: the store's folder.

    Returns:
        What was removed, in path order.

    Raises:
        FileNotFoundError, ValueError: as `find_garbage`; nothing is removed.
        PermissionError: the folder is read-only.
        BlockingIOError: another process is collecting.
    """
    aside = _staging_folder(root) / "garbage"
    with exclusive_lock(_staging_folder(root) / "garbage.lock", f"{root}: another process collects garbage there"):
        shutil.rmtree(aside, ignore_errors=True)  # left by a collection that was killed
        with claims_lock(_staging_folder(root)):
            garbage = _find_garbage(root, claimed_keys(root / STAGING))
            for folder in garbage:
                (aside / folder.path).parent.mkdir(parents=True, exist_ok=True)
                (root / folder.path).rename(aside / folder.path)
        if aside.exists():
            shutil.rmtree(aside)
        for folder in garbage:
            DigestCache(root / folder.path).forget()
    return garbage


def _staging_folder(root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, so no store; name it by --store or $EDDA_STORE")
    require_writable(root, "lock what is in use while garbage is chosen", "do it as a user who may write there")
    staging = root / STAGING
    staging.mkdir(exist_ok=True)
    return staging


def _find_garbage(root: Path, claimed: set[str]) -> list[Garbage]:
    artifacts = {path.name: path for path in _keyed_folders(root)}
    wanted = claimed | _recorded_keys(root)
    kept = with_parents(wanted, lambda key: _read_parent_keys(artifacts.get(key)))
    unused = [path for key, path in artifacts.items() if key not in kept]
    unmade = claimed | (wanted - artifacts.keys())
    abandoned = [
        path
        for path in _keyed_folders(root / STAGING)
        if path.name not in unmade and not is_held(FileLock(path.with_suffix(".lock")))
    ]
    folders = (*root.glob("runs/*"), *root.glob("runs/*/generations"), root / "tune")
    files = [file for folder in folders for file in abandoned_files(folder)]
    return [Garbage(path.relative_to(root), _size(path)) for path in sorted([*unused, *abandoned, *files])]


def _keyed_folders(folder: Path) -> list[Path]:
    """Folders named `<contract>/<key>`; anything else in the store is not ours to remove."""
    paths = (path for contract in CONTRACTS for path in folder.glob(f"{contract}/*"))
    return [path for path in paths if is_keyed(path.relative_to(folder)) and path.is_dir()]


def is_keyed(path: PurePath) -> bool:
    """The path is that of an artifact's folder in a store: `<contract>/<key>`."""
    return is_key(path.name) and path.parent.as_posix() in CONTRACTS


def _recorded_keys(root: Path) -> set[str]:
    """Keys that runs refer to: in their record, or by a link that an earlier run has left."""
    files = (path for pattern in ("runs/*/run.json", "runs/*/generations/*.json") for path in root.glob(pattern))
    records = [RunRecord.parse(read_description(path), str(path)) for path in files]
    links = filter(None, map(linked_folder, root.glob("runs/*/[!.]*")))
    return {key for record in records for key in record.keys} | {folder.name for folder in links}


def linked_folder(link: Path) -> PurePath | None:
    """`<contract>/<key>` of the artifact that a run's folder links; None if it is no link.

    `cp -rL`, zip and others that follow links leave a copy of the artifact in place of the link.
    """
    if link.is_symlink():
        return PurePath(*link.readlink().parts[-2:])
    if not (link / MANIFEST).is_file():
        return None
    manifest = parse_manifest(read_description(link / MANIFEST), str(link / MANIFEST))
    return PurePath(manifest["contract"], manifest["key"])


def parent_keys(manifest: Mapping[str, Any]) -> list[str]:
    """Keys of an artifact's parents, without those of an update's base, which would keep the whole history."""
    return [key for role, key in manifest["parents"].items() if not role.endswith(f"-{BEFORE}")]


def with_parents(keys: set[str], parents: Callable[[str], Iterable[str]]) -> set[str]:
    """Keys and those of all ancestors of their artifacts.

    Args:
        keys: where to start.
        parents: returns the keys of an artifact's parents, by its own key; none if there is no such artifact.
    """
    kept: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in kept:
            continue
        kept.add(key)
        waiting += parents(key)
    return kept


def _read_parent_keys(artifact: Path | None) -> list[str]:
    manifest = artifact / MANIFEST if artifact else None
    if manifest is None or not manifest.exists():
        return []
    return parent_keys(parse_manifest(read_description(manifest), str(manifest)))


def parse_manifest(content: bytes, address: str) -> dict[str, Any]:
    """Parse a manifest of any version of this program.

    Raises:
        ValueError: it is damaged, so it is unknown what must stay.
    """
    remedy = f"delete {address.rpartition('/')[0]}, what it refers to may then go"
    manifest = parse_json(content, dict[str, Any], address, remedy)
    try:
        require_key(take_digest(manifest))
    except ValueError as error:
        raise DamagedFileError(f"{address} is damaged: {error}; {remedy}") from error
    return manifest


def _size(folder: Path) -> int:
    """Size of a file, or of the files in a folder, in bytes; a file with two names counts once."""
    files = (path.lstat() for path in (folder, *folder.rglob("*")) if not path.is_dir())
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())
