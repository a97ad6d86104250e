"""Raw logs: which files there are, what their paths say, and what their bytes hash to."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from data_contracts.contracts import TEST, TRAIN, VALID
from data_contracts.remote.client import Remote, RemoteFile, cache_folder, is_remote
from data_contracts.settings import LogSource
from data_contracts.store.files import file_digest

SPLIT_NAMES = {"train": TRAIN, "valid": VALID, "val": VALID, "validation": VALID, "test": TEST}
"""What logs call the splits, in lower case, and what we call them."""

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_GLOB = re.compile(r"[*?\[]")


class LogError(ValueError):
    """Raw logs that cannot be found, or not be read as their source says."""


class MissingLogsError(LogError):
    """There is no log file at all."""


@dataclass(frozen=True)
class LogFile:
    """One raw log file.

    Attributes:
        path: where it is now.
        name: its path from the fixed (glob-free) folder of its source, with further folders in front only where two
            files would share a name. Part of artifact keys, so that moving the data changes nothing.
        source: how to read it.
        domain: the domain that its path or its source names; None where a column does.
        split: the split that its path names (train, valid, test), or None.
        sha256: digest of its bytes.
        size: in bytes.
        version: of the file on object storage that it is a copy of; empty where it is none.
    """

    path: Path
    name: str
    source: LogSource
    domain: str | None
    split: str | None
    sha256: str
    size: int
    version: str = ""


@dataclass(frozen=True)
class _Match:
    """A file on this machine, the folder that its name starts after, and where people know it to be."""

    path: Path
    base: Path
    place: str
    version: str = ""


class Digests:
    """Digests of files, each read once as long as its size, time and inode stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, int], str] = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file, in hexadecimal."""
        status = path.stat()
        state = path, status.st_size, status.st_mtime_ns, status.st_ino
        if state not in self._known:
            self._known[state] = file_digest(path)
        return self._known[state]


def find_logs(sources: Sequence[LogSource], folder: Path, digest: Callable[[Path], str] = file_digest) -> list[LogFile]:
    """Every file of every source, sorted by name, its contents hashed.

    Args:
        sources: where logs are and how they are read.
        folder: what relative paths are relative to.
        digest: of a file; `Digests` reads no file twice.

    Returns:
        At least one file per source; an empty list for no sources.

    Raises:
        MissingLogsError: nothing matches any source.
        LogError: an environment variable is unset, nothing matches one of several sources, `path_pattern` does not fit
            a path, a file has no domain, or two sources claim one file.
    """
    found: list[LogFile] = []
    missing = []
    for number, source in enumerate(sources, start=1):
        try:
            found += _files_of(source, number, folder)
        except MissingLogsError as error:
            missing.append(error)
    if missing:
        raise LogError(*missing[0].args) if found else missing[0]
    _refuse_shared(found)
    found = sorted(_with_distinct_names(found), key=lambda log: log.name)
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(lambda log: digest(log.path), found))
    return [replace(log, sha256=digest) for log, digest in zip(found, digests, strict=True)]


def remote_versions(sources: Sequence[LogSource]) -> set[str]:
    """Versions of all files of sources that are all on object storage, nothing is fetched; none where one is not."""
    places = [_divided(_expanded(source.path, "logs")) for source in sources if is_remote(source.path)]
    if len(places) < len(sources):
        return set()
    return {copy.version for place in places for copy in listed_copies(*place).values()}


def _files_of(source: LogSource, number: int, folder: Path) -> list[LogFile]:
    label = f"log source {number}"
    wanted = _expanded(source.path, label)
    full = wanted if is_remote(wanted) else str(folder.absolute() / wanted)
    matches = _remote_matches(full) if is_remote(full) else _matches(Path(full))
    if not matches:
        kind = "is a folder, must be a file or a glob such as *.csv" if Path(full).is_dir() else "matches no file"
        raise MissingLogsError(f"{label}: path {source.path!r} {kind} (looked for {full})")
    return [_described(match, source, label) for match in matches]


def _expanded(path: str, label: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise LogError(
                f"{label}: path {path!r} needs the environment variable {name}, which is not set; "
                f"set it, e.g. export {name}=/path/to/data"
            )
        return os.environ[name]

    return _VARIABLE.sub(value, path)


def _matches(full: Path) -> list[_Match]:
    """The files that match; a path that exists is taken literally."""
    magic = [index for index, part in enumerate(full.parts) if _GLOB.search(part)]
    if full.is_file() or not magic:
        return [_Match(full, full.parent, full.as_posix())] if full.is_file() else []
    base = Path(*full.parts[: magic[0]])
    pattern = Path(*full.parts[magic[0] :]).as_posix()
    return [_Match(path, base, path.as_posix()) for path in sorted(base.glob(pattern)) if path.is_file()]


def _remote_matches(address: str) -> list[_Match]:
    """As `_matches`, on object storage: copies on this machine."""
    copies = local_copies(*_divided(address))
    return [
        _Match(copy.path, copy.path.parents[len(PurePosixPath(name).parts) - 1], copy.address, copy.version)
        for name, copy in copies.items()
    ]


def _divided(address: str) -> tuple[str, str]:
    """The folder in front of the first glob, and what names in it must match."""
    fixed = address[: glob.start()] if (glob := _GLOB.search(address)) else address
    folder = fixed.rpartition("/")[0]
    return folder, address.removeprefix(f"{folder}/")


def _described(match: _Match, source: LogSource, label: str) -> LogFile:
    path, place = match.path, match.place
    groups = _path_groups(place, source, label)
    domain = groups.get("domain") or source.domain
    if domain is None and source.columns.domain is None:
        raise LogError(
            f"{label}: {place} has no domain; set `domain`, `columns.domain`, or `path_pattern` with a group "
            "(?P<domain>…)"
        )
    split = groups.get("split")
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise LogError(
            f"{label}: path_pattern finds the split {split!r} in {place}, must be one of {', '.join(SPLIT_NAMES)}"
        )
    split = None if split is None else SPLIT_NAMES[split.lower()]
    name = path.relative_to(match.base).as_posix()
    return LogFile(path, name, source, domain, split, "", path.stat().st_size, match.version)


def _path_groups(place: str, source: LogSource, label: str) -> dict[str, str | None]:
    if source.path_pattern is None:
        return {}
    try:
        pattern = re.compile(source.path_pattern)
    except re.error as error:
        raise LogError(f"{label}: path_pattern {source.path_pattern!r} is no regular expression: {error}") from error
    if not {"domain", "split"} & set(pattern.groupindex):
        raise LogError(f"{label}: path_pattern {source.path_pattern!r} has no group (?P<domain>…) or (?P<split>…)")
    match = pattern.search(place)
    if match is None:
        raise LogError(f"{label}: path_pattern {source.path_pattern!r} does not match {place}; narrow path or widen it")
    return match.groupdict()


def _refuse_shared(found: Sequence[LogFile]) -> None:
    claims = Counter(log.path.resolve() for log in found)
    for path, count in claims.items():
        if count > 1:
            raise LogError(f"{path} is matched by {count} paths of the log sources, must be read once; narrow a path")


def _with_distinct_names(found: Sequence[LogFile]) -> list[LogFile]:
    """Put folders of the fixed part in front of names until no two are equal."""
    logs = list(found)
    while True:
        uses = Counter(log.name for log in logs)
        if len(uses) == len(logs):
            return logs
        logs = [_longer_name(log) if uses[log.name] > 1 else log for log in logs]


def _longer_name(log: LogFile) -> LogFile:
    depth = len(Path(log.name).parts) + 1
    return replace(log, name=Path(*log.path.parts[-depth:]).as_posix())


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
