"""Stores on object storage.

A remote store has the same layout as a folder, `<contract>/<key>/manifest.json` and `runs/<name>/run.json`, and a cache
on this machine, which is an ordinary store: stages read and write there. A new artifact is uploaded before it appears
in the cache; an artifact that the cache lacks is fetched when its files are first read.

Object storage has neither renames nor locks. So each writer uploads its files to a folder of its own,
`<contract>/<key>/<writer>/…`, and then the manifest, which names them, by a put that fails if there is one already: of
several writers of a key one wins, and no reader sees a mixture. The others take the winner's artifact. Files of a
killed writer are named by no manifest.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from data_contracts.cache_folders import writable_cache_folder
from data_contracts.remote.client import Remote
from data_contracts.remote.garbage import GRACE, collect_remote_garbage, find_remote_garbage
from data_contracts.remote.run_lock import hold_run_lock
from data_contracts.schema import Contract
from data_contracts.store.artifact import Artifact
from data_contracts.store.digests import file_digest
from data_contracts.store.draft import Draft
from data_contracts.store.files import flush_all
from data_contracts.store.garbage import Garbage
from data_contracts.store.manifest import MANIFEST, FileEntry, Manifest
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store

log = logging.getLogger(__name__)


class RemoteStore(Store):
    """A store on object storage, with a cache on this machine."""

    def __init__(self, address: str) -> None:
        self.remote = Remote(address)
        super().__init__(writable_cache_folder() / "stores" / quote(self.remote.address, safe=""))
        self._published: dict[str, Manifest] = {}
        """Manifests read so far, by folder; they never change."""

    def __str__(self) -> str:
        return self.remote.address

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """Find as `Store.find` does; of an artifact that is not in the cache only the manifest is fetched."""
        if cached := super().find(contract, key):
            return cached
        artifact = self._artifact(contract, key)
        return artifact if self._find_manifest(artifact) else None

    def address(self, artifact: Artifact) -> str:
        """The artifact's URL."""
        return f"{self.remote.address}/{_folder(artifact)}"

    def manifest(self, artifact: Artifact) -> Manifest:
        """The manifest in the remote, with paths as in a local artifact's folder.

        Raises:
            FileNotFoundError: there is none.
        """
        manifest = self._find_manifest(artifact)
        if manifest is None:
            raise FileNotFoundError(f"{artifact.address} is not there any more; run its TOML file again")
        files = [entry.model_copy(update={"path": _local_name(entry, artifact)}) for entry in manifest.files]
        return manifest.model_copy(update={"files": tuple(files)})

    def fetch(self, artifact: Artifact) -> None:
        """Download an artifact into the cache; if several processes need it, only one downloads it.

        Raises:
            OSError: its files are missing or damaged.
        """
        with self._in_staging(artifact.contract, artifact.folder.name) as staging:
            if not artifact.is_local:
                self._download(artifact, staging)

    def link_run(self, record: RunRecord) -> Path:
        """Record a finished run as `Store.link_run` does, and upload again cached artifacts that the remote has lost.

        Raises:
            FileNotFoundError: the remote has lost an artifact that the cache does not have.
        """
        self._restore_lost(self.recorded(record).values())
        return super().link_run(record)

    def link(self, name: str, link: str, artifact: Artifact) -> None:
        """Link as `Store.link` does, in the remote by a file beside the run's record; raises as `link_run`."""
        self._restore_lost([artifact])
        super().link(name, link, artifact)
        content = {"artifacts": {link: [artifact.contract.name, artifact.key]}}
        self.remote.write(f"runs/{name}/{link}.json", json.dumps(content).encode())

    def unlink(self, name: str, link: str) -> None:
        """Remove a link, in the cache and in the remote."""
        super().unlink(name, link)
        self.remote.delete([f"runs/{name}/{link}.json"])

    def link_target(self, name: str, link: str) -> Artifact | None:
        """The artifact that a link in the remote names; see `Store.link_target`."""
        content = self.remote.read(f"runs/{name}/{link}.json")
        if content is None:
            return None
        return self.recorded(RunRecord.parse(content, f"{self}/runs/{name}/{link}.json")).get(link)

    @contextmanager
    def lock_run(self, name: str) -> Iterator[None]:
        """Keep other processes of this machine, and other machines, from working on a run's name."""
        with super().lock_run(name), hold_run_lock(self.remote, name, self.root / "runs" / f".{name}.claim"):
            yield

    def is_run_locked(self, name: str) -> bool | None:
        """See `Store.is_run_locked`; None also if another machine may be working on the run."""
        return super().is_run_locked(name) or None

    def collect_garbage(self, *, dry_run: bool = False, older_than: timedelta | None = None) -> list[Garbage]:
        """See `Store.collect_garbage`; files that are younger than `older_than`, by default a week, stay."""
        collect = find_remote_garbage if dry_run else collect_remote_garbage
        return collect(self.remote, GRACE if older_than is None else older_than)

    def _read_file(self, file: str) -> bytes | None:
        return self.remote.read(file)

    def _write_file(self, file: str, content: bytes) -> None:
        super()._write_file(file, content)
        self.remote.write(file, content)

    def _remove_file(self, file: str) -> None:
        super()._remove_file(file)
        self.remote.delete([file])

    def _matching(self, pattern: str) -> list[str]:
        return sorted(self.remote.matching(pattern))

    def _publish(self, draft: Draft, manifest: Manifest) -> Artifact:
        artifact = self._artifact(draft.contract, manifest.key)
        if self._upload(draft.folder, artifact, manifest):
            return super()._publish(draft, manifest)
        log.info("%s: another machine was first to make %s; using its artifact", manifest.contract, manifest.key)
        self._download(artifact, draft.folder.parent)
        return artifact

    def _restore_lost(self, artifacts: Iterable[Artifact]) -> None:
        """Upload artifacts that the remote has lost since they came into the cache."""
        self._published.clear()
        for artifact in artifacts:
            if self._find_manifest(artifact) is None:
                self._upload(artifact.path, artifact, artifact.manifest)

    def _upload(self, folder: Path, artifact: Artifact, manifest: Manifest) -> bool:
        """Upload the files, then the manifest; False if another writer's manifest is there already."""
        writer = uuid.uuid4().hex
        files = [entry.model_copy(update={"path": f"{writer}/{entry.path}"}) for entry in manifest.files]
        remote_manifest = manifest.model_copy(update={"files": tuple(files)})
        names = {folder / entry.path: f"{_folder(artifact)}/{writer}/{entry.path}" for entry in manifest.files}
        log.info("%s: uploading %s to %s", manifest.contract, _format_size(manifest), self)
        self.remote.upload(names)
        content = remote_manifest.as_json()
        if self.remote.create(f"{_folder(artifact)}/{MANIFEST}", content):
            return True
        if self._find_manifest(artifact) == remote_manifest:  # written before a lost response made the client retry
            return True
        self.remote.delete(list(names.values()))
        return False

    def _download(self, artifact: Artifact, staging: Path) -> None:
        """Download into staging, check, and move into place; the caller holds the staging folder's lock."""
        manifest, folder = self.manifest(artifact), staging / "fetched"
        log.info("%s: fetching %s from %s", manifest.contract, _format_size(manifest), artifact.address)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        remote_names = [entry.path for entry in self._published[_folder(artifact)].files]
        pairs = list(zip(remote_names, manifest.files, strict=True))
        try:
            self.remote.download({f"{_folder(artifact)}/{name}": folder / entry.path for name, entry in pairs})
        except FileNotFoundError as error:
            raise self._damage_error(artifact, f"a file is missing ({error})") from error
        for name, entry in pairs:
            if (digest := file_digest(folder / entry.path)) != entry.sha256:
                raise self._damage_error(artifact, f"{name}: sha256 is {digest}, must be {entry.sha256}")
        flush_all(folder / entry.path for entry in manifest.files)
        self._move_into_place(folder, artifact, manifest)

    def _find_manifest(self, artifact: Artifact) -> Manifest | None:
        """The manifest as it is in the remote, with paths below the writer's folder."""
        folder = _folder(artifact)
        if folder not in self._published:
            content = self.remote.read(f"{folder}/{MANIFEST}")
            if content is None:
                return None
            self._published[folder] = Manifest.parse(content, f"{artifact.address}/{MANIFEST}", artifact.address)
        return self._published[folder]

    def _damage_error(self, artifact: Artifact, problem: str) -> OSError:
        return OSError(f"{artifact.address} is damaged: {problem}; delete {artifact.address} to make it again")

    def _artifact(self, contract: Contract, key: str) -> Artifact:
        if not key.isalnum():  # keys become paths, and somebody else may have written the record
            raise ValueError(f"{self}: key of {contract.name} is {key!r}, must be letters and digits")
        return Artifact(contract, self.root / contract.name / key, self)


def _folder(artifact: Artifact) -> str:
    return f"{artifact.contract.name}/{artifact.folder.name}"


def _local_name(entry: FileEntry, artifact: Artifact) -> str:
    """A file's path without its writer's folder; a path that leads out of the artifact is refused."""
    _, *inner = PurePosixPath(entry.path).parts
    if not inner or ".." in inner or entry.path.startswith("/"):
        raise OSError(
            f"{artifact.address}: file {entry.path!r} lies outside, must lie in WRITER/…; delete the artifact"
        )
    return "/".join(inner)


def _format_size(manifest: Manifest) -> str:
    return f"{sum(entry.size for entry in manifest.files) / 2**20:,.1f} MiB"
