"""Raw logs on object storage: copies on this machine, each whole and of one version."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from data_contracts.remote import Remote, RemoteFile, cache_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """A copy of one version of a file, here or yet to be fetched.

    A changed file is another version and gets another copy, so whoever still reads the old one is not disturbed.

    Attributes:
        address: of the file.
        version: digest of its address, size, time and tag.
    """

    address: str
    version: str

    @property
    def path(self) -> Path:
        """Where it lies as soon as it is whole; ends in the file's address."""
        return cache_folder() / "logs" / self.version / self.address.replace("://", "/")


def listed_copies(folder: str, pattern: str) -> dict[str, Copy]:
    """Copies of the files that match, whether or not they are here; nothing is fetched.

    Args:
        folder: address of the folder in front of the first glob.
        pattern: what names in it must match.

    Returns:
        Name in the folder → copy; an empty mapping where nothing matches.

    Raises:
        ValueError, ModuleNotFoundError, FileNotFoundError, PermissionError, ConnectionError: as `Remote`.
    """
    remote = Remote(folder)
    return {name: _copy(f"{remote.address}/{name}", file) for name, file in remote.matching(pattern).items()}


def local_copies(folder: str, pattern: str) -> dict[str, Copy]:
    """As `listed_copies`, after those that were not here have been fetched.

    Raises:
        ConnectionError: also where a file changed while it was fetched.
    """
    copies = listed_copies(folder, pattern)
    missing = {name: copy for name, copy in copies.items() if not copy.path.exists()}
    if missing:
        log.info("fetching %s log files from %s", len(missing), folder)
        _fetch(folder, pattern, missing)
    return copies


def _copy(address: str, file: RemoteFile) -> Copy:
    text = f"{address} {file.size} {file.modified.isoformat()} {file.tag}"
    return Copy(address, hashlib.sha256(text.encode()).hexdigest()[:20])


def _fetch(folder: str, pattern: str, missing: dict[str, Copy]) -> None:
    """Under other names first; a copy counts once the file is known to be still the one that was listed."""
    own, remote = f".{os.getpid()}.{threading.get_ident()}", Remote(folder)
    parts = {name: copy.path.with_name(f"{copy.path.name}{own}") for name, copy in missing.items()}
    try:
        remote.download(parts)
        now = remote.matching(pattern)
        for name, copy in missing.items():
            file = now.get(name)
            if file is None or _copy(copy.address, file) != copy or parts[name].stat().st_size != file.size:
                raise ConnectionError(f"{copy.address} changed while it was fetched, must stay as it is; start again")
            parts[name].replace(copy.path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
