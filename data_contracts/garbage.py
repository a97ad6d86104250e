"""Garbage collection: what no run refers to, and what is left of stages that ended before their time.

Kept are the artifacts that a run's record or links name, those that a living process claims, the parents of both, and
the staging folders of stages in progress and of those that an interrupted run will go on with. So it may go on beside
running processes, on this machine or on another that sees the folder:

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data_contracts.artifact import MANIFEST
from data_contracts.attempts import attempt_of
from data_contracts.claims import claimed_keys, claims_lock, is_held
from data_contracts.contracts import CONTRACTS
from data_contracts.store import STAGING


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
        FileNotFoundError: there is no such folder.
        ValueError: as `find_garbage`; nothing is removed.
        BlockingIOError: another process is collecting.
    """
    aside = _staging(root) / "garbage"
    with _alone(root):
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
    staging = root / STAGING
    staging.mkdir(exist_ok=True)
    return staging


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    try:
        with FileLock(_staging(root) / "garbage.lock", timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(f"{root}: another process collects garbage there; wait until it has ended") from None


def _garbage(root: Path) -> list[Garbage]:
    claimed = claimed_keys(root / STAGING)
    artifacts = {path.name: path for path in _keyed_folders(root)}
    wanted = claimed | _recorded_keys(root)
    kept = _with_parents(wanted, artifacts)
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
    return [path for path in found if re.fullmatch("[0-9a-f]{20}", path.name) and path.is_dir()]


def _recorded_keys(root: Path) -> set[str]:
    """Keys that runs refer to: by their last record, by what they are about to make, by a link of an earlier record."""
    records = [_parsed(path) for path in root.glob("runs/*/run.json")]
    links = (path for path in root.glob("runs/*/[!.]*") if path.is_symlink())
    named = {key for record in records for _, key in record["artifacts"].values()}
    planned = {key for record in records if (begun := attempt_of(record)) for _, key in begun.planned.values()}
    return named | planned | {link.readlink().name for link in links}


def _with_parents(keys: set[str], artifacts: dict[str, Path]) -> set[str]:
    kept: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in kept:
            continue
        kept.add(key)
        if key in artifacts and (manifest := artifacts[key] / MANIFEST).exists():
            waiting += _parsed(manifest)["parents"].values()
    return kept


def _parsed(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; delete {path.parent}, what it refers to may then go") from error
    return found


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; one that has two names there counts once."""
    found = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    return sum({(file.st_dev, file.st_ino): file.st_size for file in found}.values())
