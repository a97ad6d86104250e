"""Raw logs on object storage: copies on this machine, each whole and of one version."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from pathlib import Path

from data_contracts.remote import Remote, RemoteFile, cache_folder

log = logging.getLogger(__name__)


def local_copies(folder: str, pattern: str) -> dict[str, Path]:
    """Copies of the files that match; those that are here already are not fetched again.

    A copy's folder is named after the address, size, time and tag of its original. So a changed original gets another
    copy, and whoever still reads the old one is not disturbed.

    Args:
        folder: address of the folder in front of the first glob.
        pattern: what names in it must match.

    Returns:
        Name in the folder → path of its copy, which ends in the file's address; an empty mapping where nothing matches.

    Raises:
        ValueError, ModuleNotFoundError, FileNotFoundError, PermissionError, ConnectionError: as `Remote`.
        ConnectionError: a file changed while it was fetched.
    """
    remote = Remote(folder)
    found = remote.matching(pattern)
    copies = {name: _copy_path(f"{remote.address}/{name}", file) for name, file in found.items()}
    missing = {name: path for name, path in copies.items() if not path.exists()}
    if missing:
        size = sum(found[name].size for name in missing)
        log.info("fetching %s logs, %.1f MiB, from %s", len(missing), size / 2**20, remote.address)
        _fetch(remote, pattern, missing)
    return copies


def _copy_path(address: str, file: RemoteFile) -> Path:
    version = f"{address} {file.size} {file.modified.isoformat()} {file.tag}"
    scheme, _, path = address.partition("://")
    return cache_folder() / "logs" / hashlib.sha256(version.encode()).hexdigest()[:20] / scheme / path


def _fetch(remote: Remote, pattern: str, missing: dict[str, Path]) -> None:
    """Under other names first; a copy counts once the original is known to be still the one that was listed."""
    own = f".{os.getpid()}.{threading.get_ident()}"
    parts = {name: path.with_name(f"{path.name}{own}") for name, path in missing.items()}
    try:
        remote.download(parts)
        now = remote.matching(pattern)
        for name, path in missing.items():
            address, file = f"{remote.address}/{name}", now.get(name)
            if file is None or _copy_path(address, file) != path or parts[name].stat().st_size != file.size:
                raise ConnectionError(f"{address} changed while it was fetched, must stay as it is; start again")
            parts[name].replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
