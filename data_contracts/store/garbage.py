"""Garbage collection: what no run refers to, and what is left of stages that ended before their time.

Kept are the artifacts that a run's record or links name, those that a living process claims, the parents of both, and
the staging folders of stages in progress and of those that an interrupted run will go on with. Of an update it keeps
what that goes on from, as the record names it, but not what that went on from itself. So it may go on beside running
processes, on this machine or on another that sees the folder:

- A `Store` claims a key before it looks for the artifact or makes it, and the claim lasts until its process is gone. So
  what a process has found or made stays while it works, whether or not a run's record names it.
- Claims are made, and garbage is chosen and moved aside, under one lock. So whoever looks for a key sees a whole
  artifact that stays, or none and makes it. Deleting what was moved aside takes longer and needs no lock.
- Claims are read before the runs' records, so a run that ends in between is seen by one or by both.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock

from data_contracts.contracts import BEFORE, CONTRACTS
from data_contracts.store.artifact import MANIFEST
from data_contracts.store.claims import STAGING, alone, claimed_keys, claims_lock, is_held
from data_contracts.store.files import require_writable
from data_contracts.store.runs import RunRecord


@dataclass(frozen=True)
class Garbage:
    """A folder that can go.

    Attributes:
        path: relative to the store: `<contract>/<key>`, or `.staging/<contract>/<key>` of an abandoned stage.
        size: of its files, bytes.
    """

    path: Path
    size: int


def find_garbage(root: Path) -> list[Garbage]:
    """What `collect_garbage` would remove, in path order.

    Args:
        root: the store's folder.

    Raises:
        FileNotFoundError: there is no such folder.
        PermissionError: it may only be read.
        ValueError: a run's record, or the manifest of an artifact that is referred to, is damaged, so that nobody knows
            what must stay.
    """
    with claims_lock(_staging(root)):
        return _garbage(root)


def collect_garbage(root: Path) -> list[Garbage]:
    """Remove what no run and no living process refers to.

    Args:
        root: the store's folder.

    Returns:
        What was removed, in path order.

    Raises:
        FileNotFoundError, PermissionError, ValueError: as `find_garbage`; nothing is removed.
        BlockingIOError: another process is collecting.
    """
    aside = _staging(root) / "garbage"
    with alone(_staging(root) / "garbage.lock", f"{root}: another process collects garbage there"):
        shutil.rmtree(aside, ignore_errors=True)  # of a collection that was killed
        with claims_lock(_staging(root)):
            found = _garbage(root)
            for garbage in found:
                (aside / garbage.path).parent.mkdir(parents=True, exist_ok=True)
                (root / garbage.path).rename(aside / garbage.path)
        if aside.exists():
            shutil.rmtree(aside)
    return found


def _staging(root: Path) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, so no store; name it by --store or $EDDA_STORE")
    require_writable(root, "lock what is in use while garbage is chosen", "do it as somebody who may write there")
    staging = root / STAGING
    staging.mkdir(exist_ok=True)
    return staging


def _garbage(root: Path) -> list[Garbage]:
    claimed = claimed_keys(root / STAGING)
    artifacts = {path.name: path for path in _keyed_folders(root)}
    wanted = claimed | _recorded_keys(root)
    kept = with_parents(wanted, lambda key: _parents(artifacts.get(key)))
    unused = [path for key, path in artifacts.items() if key not in kept]
    unmade = claimed | (wanted - artifacts.keys())
    abandoned = [
        path
        for path in _keyed_folders(root / STAGING)
        if path.name not in unmade and not is_held(FileLock(path.with_suffix(".lock")))
    ]
    return [Garbage(path.relative_to(root), _size(path)) for path in sorted([*unused, *abandoned])]


def _keyed_folders(folder: Path) -> list[Path]:
    """Folders `<contract>/<key>`; whatever else lies around is nobody's garbage."""
    found = (path for contract in CONTRACTS for path in folder.glob(f"{contract}/*"))
    return [path for path in found if is_keyed(path.relative_to(folder)) and path.is_dir()]


def is_keyed(path: PurePath) -> bool:
    """The name of an artifact's folder in a store: `<contract>/<key>`."""
    return re.fullmatch("[0-9a-f]{20}", path.name) is not None and path.parent.as_posix() in CONTRACTS


def _recorded_keys(root: Path) -> set[str]:
    """Keys that runs refer to: by their last record, or by a link that an earlier one left."""
    records = [RunRecord.parse(path.read_bytes(), str(path)) for path in root.glob("runs/*/run.json")]
    links = (path for path in root.glob("runs/*/[!.]*") if path.is_symlink())
    return {key for record in records for key in record.keys} | {link.readlink().name for link in links}


def parent_keys(manifest: Mapping[str, Any]) -> list[str]:
    """Keys of what an artifact stands on. What an update went on from is none: that would keep all of history."""
    return [key for role, key in manifest["parents"].items() if not role.endswith(f"-{BEFORE}")]


def with_parents(keys: set[str], parents: Callable[[str], Iterable[str]]) -> set[str]:
    """Keys and all that their artifacts stand on.

    Args:
        keys: where to start.
        parents: keys of an artifact's parents, by its own; none where there is no such artifact.
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


def _parents(artifact: Path | None) -> list[str]:
    manifest = artifact / MANIFEST if artifact else None
    return parent_keys(parse_manifest(manifest.read_bytes(), str(manifest))) if manifest and manifest.exists() else []


def parse_manifest(content: bytes, address: str) -> dict[str, Any]:
    """Read a manifest, of any version of this program.

    Raises:
        ValueError: it is damaged, so that nobody knows what must stay.
    """
    try:
        manifest: dict[str, Any] = json.loads(content)
    except ValueError as error:
        folder = address.rpartition("/")[0]
        raise ValueError(f"{address} is damaged: {error}; delete {folder}, what it refers to may then go") from error
    return manifest


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; one that has two names there counts once."""
    found = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    return sum({(file.st_dev, file.st_ino): file.st_size for file in found}.values())
