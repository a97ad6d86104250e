"""Discovery of raw log files, here or on object storage: their domains, splits and hashes."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from data_contracts.cache_folders import writable_cache_folder
from data_contracts.contracts import TEST, TRAIN, VALID
from data_contracts.remote.client import Remote, RemoteFile, is_remote
from data_contracts.settings.logs import LogSource, expand_variables
from data_contracts.store.digests import DigestCache, file_digest

log = logging.getLogger(__name__)

SPLIT_NAMES = {"train": TRAIN, "valid": VALID, "val": VALID, "validation": VALID, "test": TEST}
"""Name of a split in logs, in lower case → our name."""

_GLOB = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"\[([*?\[])\]")


class LogError(ValueError):
    """Raw logs cannot be found, or cannot be read as their source says."""


class MissingLogsError(LogError):
    """No log file matches."""


@dataclass(frozen=True)
class LogFile:
    """One raw log file.

    Attributes:
        path: its current path.
        name: its path from the fixed (glob-free) folder of its source, with further folders in front only where two
            files would share a name. Part of artifact keys, so that moving the data changes nothing.
        source: how to read it.
        domain: the domain named by its path or its source; None where a column has it.
        split: the split named by its path (train, valid, test), or None.
        sha256: digest of its bytes.
        size: in bytes.
        version: of the file on object storage that it is a copy of; empty for other files.
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
    """A file on this machine, the folder that its name is relative to, and its path or address as users know it."""

    path: Path
    base: Path
    location: str
    version: str = ""


class Digests:
    """Digests of log files, each read once as long as its size, times and inode stay the same.

    By this process, and by those before it that found the file settled (`DigestCache`).
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, int], str] = {}
        self._folders: dict[Path, DigestCache] = {}

    def __call__(self, path: Path) -> str:
        """SHA-256 of a file, in hexadecimal."""
        status = path.stat()
        state = path, status.st_size, status.st_mtime_ns, status.st_ino
        if state not in self._known:
            folder = self._folders.setdefault(path.parent, DigestCache(path.parent))
            self._known[state] = folder.digest(path.name)
        return self._known[state]


def find_logs(sources: Sequence[LogSource], folder: Path, digest: Callable[[Path], str] = file_digest) -> list[LogFile]:
    """Every file of every source, sorted by name, with the hash of its content.

    Args:
        sources: paths of logs and how to read them.
        folder: base of relative paths.
        digest: of a file; `Digests` reads no file twice.

    Returns:
        At least one file per source; an empty list for no sources.

    Raises:
        MissingLogsError: nothing matches any source.
        LogError: an environment variable is unset, nothing matches one of several sources, `path_pattern` does not fit
            a path, a file has no domain, or two sources claim one file.
    """
    logs: list[LogFile] = []
    missing = []
    for number, source in enumerate(sources, start=1):
        try:
            logs += _find_files(source, number, folder)
        except MissingLogsError as error:
            missing.append(error)
    if missing:
        raise LogError(*missing[0].args) if logs else missing[0]
    _require_distinct_files(logs)
    logs = sorted(_with_distinct_names(logs), key=lambda log: log.name)
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(lambda log: digest(log.path), logs))
    return [replace(log, sha256=digest) for log, digest in zip(logs, digests, strict=True)]


def remote_versions(sources: Sequence[LogSource]) -> set[str]:
    """Versions of all files, without fetching them, where all sources are on object storage; otherwise none."""
    if not all(is_remote(source.path) for source in sources):
        return set()
    addresses = [_split_address(_expand_variables(source.path, "logs")) for source in sources]
    return {copy.version for folder, pattern in addresses for copy in list_copies(folder, pattern).values()}


def _find_files(source: LogSource, number: int, folder: Path) -> list[LogFile]:
    label = f"log source {number}"
    path = _expand_variables(source.path, label)
    full = path if is_remote(path) else str(folder.absolute() / Path(path).expanduser())
    matches = _remote_matches(full) if is_remote(full) else _local_matches(Path(full))
    if not matches:
        raise MissingLogsError(f"{label}: path {source.path!r} {_describe_missing(full)} (looked for {full})")
    return [_build_log_file(match, source, label) for match in matches]


def _describe_missing(full: str) -> str:
    if is_remote(full) or "\0" in full:
        return "matches no file"
    if Path(full).is_dir():
        return "is a folder, must be a file or a glob such as *.csv"
    if Path(full).is_symlink():
        return "is a link that leads to no file"
    return "is a device or a pipe, must be a file" if Path(full).exists() else "matches no file"


def _expand_variables(path: str, label: str) -> str:
    """Expand `${NAME}` in a path that comes from Python; paths from a run's file are expanded already."""
    expanded, unset = expand_variables(path, os.environ)
    if unset:
        raise LogError(
            f"{label}: path {path!r} needs the environment variable {unset[0]}, which is not set; "
            f"set it, e.g. export {unset[0]}=/path/to/data"
        )
    return expanded


def _local_matches(full: Path) -> list[_Match]:
    """The files that match; a path that exists is taken literally."""
    globs = [index for index, name in enumerate(full.parts) if _GLOB.search(name) and _unescaped(name) is None]
    if full.is_file() or not globs:
        full = full if full.is_file() else Path(*(_unescaped(name) or name for name in full.parts))
        return [_Match(full, full.parent, full.as_posix())] if full.is_file() else []
    base = Path(*(_unescaped(name) or name for name in full.parts[: globs[0]]))
    pattern = Path(*full.parts[globs[0] :]).as_posix()
    # pathlib's ** does not go into links to folders.
    names = sorted(glob.glob(pattern, root_dir=base, recursive=True, include_hidden=True))  # noqa: PTH207
    files = [name for name in names if (base / name).is_file() and not _is_in_loop(base, name)]
    kept = _without_hidden(files, pattern)
    return [_Match(base / name, base, (base / name).as_posix()) for name in kept]


def _is_in_loop(base: Path, name: str) -> bool:
    """Whether a folder in a name is a link to one that it is in."""
    folders = [base / folder for folder in PurePosixPath(name).parents]
    return any(
        folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()) for folder in folders[:-1]
    )


def _unescaped(name: str) -> str | None:
    """What `glob.escape` has made a name of a path from; None where it has not."""
    text = _ESCAPED.sub(r"\1", name)
    return text if glob.escape(text) == name and text != name else None


def _without_hidden(names: Iterable[str], pattern: str) -> list[str]:
    """Names without those that are no data, as Spark, Hive, Arrow and Dask have it: a part begins with `.` or `_`.

    A pattern that names such a part finds it.
    """
    named = {part for part in PurePosixPath(pattern).parts if part.startswith((".", "_"))}
    kept, hidden = list[str](), list[str]()
    for name in names:
        parts = PurePosixPath(name).parts
        is_named = all(not p.startswith((".", "_")) or any(fnmatch(p, own) for own in named) for p in parts)
        (kept if is_named else hidden).append(name)
    if hidden:
        shown = ", ".join(hidden[:3]) + (" …" if len(hidden) > 3 else "")
        log.info("%s files left out, as names that begin with . or _ are no data: %s", f"{len(hidden):,}", shown)
    return kept


def _remote_matches(address: str) -> list[_Match]:
    """The files on object storage that match, copied to this machine."""
    copies = fetch_copies(*_split_address(address))
    return [
        _Match(copy.path, copy.path.parents[len(PurePosixPath(name).parts) - 1], copy.address, copy.version)
        for name, copy in copies.items()
    ]


def _split_address(address: str) -> tuple[str, str]:
    """The folder in front of the first glob, and the pattern of names in it."""
    fixed = address[: first.start()] if (first := _GLOB.search(address)) else address
    folder = fixed.rpartition("/")[0]
    return folder, address.removeprefix(f"{folder}/")


def _build_log_file(match: _Match, source: LogSource, label: str) -> LogFile:
    path, location = match.path, match.location
    name = path.relative_to(match.base).as_posix()
    groups = _path_groups(name, source, label)
    domain = groups.get("domain") or source.domain
    if domain is None and source.columns.domain is None:
        raise LogError(
            f"{label}: {location} has no domain; set `domain`, `columns.domain`, or `path_pattern` with a group "
            "(?P<domain>…)"
        )
    split = groups.get("split")
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise LogError(
            f"{label}: path_pattern finds the split {split!r} in {location}, must be one of {', '.join(SPLIT_NAMES)}"
        )
    split = None if split is None else SPLIT_NAMES[split.lower()]
    return LogFile(path, name, source, domain, split, "", path.stat().st_size, match.version)


def _path_groups(name: str, source: LogSource, label: str) -> dict[str, str | None]:
    """The groups of the source's pattern in a file's name: folders above it must not change what a log is."""
    if source.path_pattern is None:
        return {}
    try:
        pattern = re.compile(source.path_pattern)
    except re.error as error:
        raise LogError(f"{label}: path_pattern {source.path_pattern!r} is not a regular expression: {error}") from error
    if not {"domain", "split"} & set(pattern.groupindex):
        raise LogError(f"{label}: path_pattern {source.path_pattern!r} has no group (?P<domain>…) or (?P<split>…)")
    match = pattern.search(name) or pattern.search(f"/{name}")
    if match is None:
        raise LogError(
            f"{label}: path_pattern {source.path_pattern!r} does not match {'/' + name!r}, which is the file's path "
            "from the first folder with a * on; narrow path or widen it"
        )
    return match.groupdict()


def _require_distinct_files(logs: Sequence[LogFile]) -> None:
    matches = Counter(log.path.resolve() for log in logs)
    for path, count in matches.items():
        if count > 1:
            raise LogError(f"{path} is matched by {count} paths of the log sources, must be read once; narrow a path")


def _with_distinct_names(logs: Sequence[LogFile]) -> list[LogFile]:
    """Put folders of the fixed part in front of names until no two are equal."""
    while True:
        uses = Counter(log.name for log in logs)
        if len(uses) == len(logs):
            return list(logs)
        logs = [_longer_name(log) if uses[log.name] > 1 else log for log in logs]


def _longer_name(log: LogFile) -> LogFile:
    depth = len(Path(log.name).parts) + 1
    return replace(log, name=Path(*log.path.parts[-depth:]).as_posix())


@dataclass(frozen=True)
class LogCopy:
    """A copy of one version of a file on object storage, fetched or not.

    A changed file is another version and gets another copy, so that readers of the old one are not disturbed.

    Attributes:
        address: of the file.
        version: digest of its address, size, time and tag.
    """

    address: str
    version: str

    @property
    def path(self) -> Path:
        """Path of the complete copy; ends in the file's address."""
        return writable_cache_folder() / "logs" / self.version / self.address.replace("://", "/")


def list_copies(folder: str, pattern: str) -> dict[str, LogCopy]:
    """Copies of the files that match, without fetching any.

    Args:
        folder: address of the folder in front of the first glob.
        pattern: of names in the folder.

    Returns:
        Name in the folder → copy; an empty mapping where nothing matches.

    Raises:
        ValueError, ModuleNotFoundError, FileNotFoundError, PermissionError, ConnectionError: as `Remote`.
    """
    remote = Remote(folder)
    files = remote.matching(pattern)
    return {name: _build_copy(f"{remote.address}/{name}", files[name]) for name in _without_hidden(files, pattern)}


def fetch_copies(folder: str, pattern: str) -> dict[str, LogCopy]:
    """Copies of the files that match, all of them on this machine.

    Raises:
        ConnectionError: also where a file changed while it was fetched; others as `list_copies`.
    """
    copies = list_copies(folder, pattern)
    missing = {name: copy for name, copy in copies.items() if not copy.path.exists()}
    if missing:
        log.info("fetching %s log files from %s", len(missing), folder)
        _fetch(folder, pattern, missing)
    return copies


def _build_copy(address: str, file: RemoteFile) -> LogCopy:
    text = f"{address} {file.size} {file.modified.isoformat()} {file.tag}"
    return LogCopy(address, hashlib.sha256(text.encode()).hexdigest()[:20])


def _fetch(folder: str, pattern: str, missing: dict[str, LogCopy]) -> None:
    """Download under temporary names; a copy is complete once its file is still the one that was listed."""
    suffix, remote = f".{os.getpid()}.{threading.get_ident()}", Remote(folder)
    temporary = {name: copy.path.with_name(f"{copy.path.name}{suffix}") for name, copy in missing.items()}
    try:
        remote.download(temporary)
        current = remote.matching(pattern)
        for name, copy in missing.items():
            file = current.get(name)
            if file is None or _build_copy(copy.address, file) != copy or temporary[name].stat().st_size != file.size:
                raise ConnectionError(f"{copy.address} changed while it was fetched, must stay as it is; start again")
            temporary[name].replace(copy.path)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
