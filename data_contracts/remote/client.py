"""Object storage: files under an address such as `s3://bucket/prefix`, accessed through fsspec.

Credentials and endpoints are found where each provider's own tools find them. Listings are not cached, so files that
another machine has just written are seen.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}
"""Scheme of an address → the package that it needs."""


@dataclass(frozen=True)
class RemoteFile:
    """A listed file on object storage.

    Attributes:
        size: in bytes.
        modified: when it was written, by the storage's clock.
        tag: the storage's identifier of this content (ETag).
    """

    size: int
    modified: datetime
    tag: str


def is_remote(location: str) -> bool:
    """The location is an address, not a path."""
    return "://" in location


class Remote:
    """A folder on object storage. File names are relative to it; every error says where, what and what to do."""

    def __init__(self, address: str) -> None:
        """Connect to the folder's storage.

        Raises:
            ValueError: the address is of no known kind.
            ModuleNotFoundError: the package for its kind is not installed.
            FileNotFoundError: there is no such bucket.
            PermissionError: there are no credentials, or they do not allow access.
            ConnectionError: the storage does not answer.
        """
        self.address = address.rstrip("/")
        _require_known(self.address)
        import fsspec  # noqa: PLC0415 - slow to import, and stores that are folders need none

        with self._translated_errors():
            self._files, self._root = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        self._require_bucket()

    def read(self, name: str) -> bytes | None:
        """A small file's content; None if there is no such file."""
        with self._translated_errors(), suppress(FileNotFoundError):
            content: bytes = self._files.cat_file(self._path(name))
            return content
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in place of an earlier one."""
        with self._translated_errors():
            self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it exists; if several processes try at once, only one succeeds and gets True."""
        with self._translated_errors():
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except OSError as error:
                if not _means_exists(error):
                    raise
                return False
        return True

    def upload(self, files: Mapping[Path, str]) -> None:
        """Upload local files under the given names, several at a time."""
        if files:
            with self._translated_errors():
                self._files.put([str(path) for path in files], [self._path(name) for name in files.values()])

    def download(self, files: Mapping[str, Path]) -> None:
        """Download files to local paths, several at a time; the caller checks sizes or digests.

        Raises:
            FileNotFoundError: one of them does not exist.
        """
        if files:
            with self._translated_errors():
                self._files.get([self._path(name) for name in files], [str(path) for path in files.values()])

    def listing(self) -> dict[str, RemoteFile]:
        """All files, in order of names."""
        with self._translated_errors():
            return self._parse_listing(self._files.find(self._root, detail=True))

    def matching(self, pattern: str) -> dict[str, RemoteFile]:
        """Files whose names match a pattern with `*`, `?`, `[…]`, `**`, in order of names."""
        with self._translated_errors():
            return self._parse_listing(self._files.glob(self._path(pattern), detail=True))

    def delete(self, names: Sequence[str]) -> None:
        """Delete files; one that is already gone is no error."""
        if names:
            with self._translated_errors(), suppress(FileNotFoundError):
                self._files.rm([self._path(name) for name in names])

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _parse_listing(self, infos: Mapping[str, Mapping[str, Any]]) -> dict[str, RemoteFile]:
        """Files by name; each provider has different keys for time and tag."""
        files = {}
        for path, info in sorted(infos.items()):
            if info["type"] == "file":
                modified = info.get("LastModified") or info.get("mtime") or info["last_modified"]
                tag = str(info.get("ETag") or info.get("etag"))
                files[path.removeprefix(f"{self._root}/")] = RemoteFile(info["size"], modified, tag)
        return files

    def _require_bucket(self) -> None:
        bucket = self._root.split("/")[0]
        with self._translated_errors():
            try:
                self._files.ls(self._root)
            except FileNotFoundError:  # the folder, which the first upload creates, or the bucket is missing
                if not self._files.exists(bucket):
                    raise FileNotFoundError(
                        f"{self.address}: bucket {bucket!r} is not there, must exist; create it or correct the address"
                    ) from None

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # each provider's packages have errors of their own
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> Exception:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return error
        package = PACKAGES[_scheme(self.address)]
        if isinstance(error, ImportError):
            return ModuleNotFoundError(
                f"{self.address}: {package} is not installed, must be; pip install -e '.[cloud]'"
            )
        cause = f"{type(error).__name__}: {error}"
        if isinstance(error, PermissionError):
            return PermissionError(f"{self.address}: access is refused ({cause}); use credentials that allow it")
        if any(word in type(error).__name__ for word in ("Credential", "Authentication", "Token")):
            remedy = f"set them as {package} expects them, see docs/operate/storage.md"
            return PermissionError(f"{self.address}: no usable credentials ({cause}); {remedy}")
        return ConnectionError(f"{self.address}: the storage does not answer as it should ({cause}); try again later")


def _means_exists(error: OSError) -> bool:
    """A conditional write failed because the file exists; s3fs only says so if the server names the condition."""
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") == "PreconditionFailed"


def _scheme(address: str) -> str:
    return urlsplit(address).scheme


def _require_known(address: str) -> None:
    if urlsplit(address).password:
        raise ValueError("a store's address holds a password, must not; give it to the storage's own settings")
    if _scheme(address) not in PACKAGES or not urlsplit(address).netloc:
        known = ", ".join(f"{scheme}://bucket/prefix" for scheme in PACKAGES)
        raise ValueError(f"address is {address!r}, must be one of {known}")
