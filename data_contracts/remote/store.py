"""Stores on object storage.

A remote store has the layout of a folder's, `<contract>/<key>/manifest.json` and `runs/<name>/run.json`, and a folder
on this machine, its cache, which is an ordinary store: stages read and write there. What is made is put into the
remote before it shows in the cache; what is missing in the cache is fetched when somebody first reads its files.

Object storage has neither renames nor locks. So each writer puts its files into a folder of its own,
`<contract>/<key>/<writer>/…`, and then the manifest, which names them, by a put that fails where there is one: of
several writers of a key one wins, and no reader sees a mixture. The others take the winner's. What a killed writer
leaves is named by no manifest.
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

from pydantic import ValidationError

from data_contracts.contracts import CONTRACTS
from data_contracts.remote.client import Remote, cache_folder
from data_contracts.remote.garbage import GRACE, collect_remote_garbage, find_remote_garbage
from data_contracts.remote.run_lock import claimed
from data_contracts.schema import Contract
from data_contracts.store.artifact import MANIFEST, Artifact, FileEntry, Manifest
from data_contracts.store.draft import Draft
from data_contracts.store.files import file_digest, flush_all
from data_contracts.store.garbage import Garbage
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store

log = logging.getLogger(__name__)


class RemoteStore(Store):
    """A store on object storage, with a cache on this machine."""

    def __init__(self, address: str) -> None:
        self.remote = Remote(address)
        super().__init__(cache_folder() / "stores" / quote(self.remote.address, safe=""))
        self._published: dict[str, Manifest] = {}
        """Manifests read so far by their folder; they never change."""

    def __str__(self) -> str:
        return self.remote.address

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """As `Store.find`; of an artifact that is not here yet no more than the manifest is fetched."""
        if found := super().find(contract, key):
            return found
        artifact = self._artifact(contract, key)
        return artifact if self._find_manifest(artifact) else None

    def address(self, artifact: Artifact) -> str:
        """Where the artifact lies in the remote."""
        return f"{self.remote.address}/{_folder(artifact)}"

    def manifest(self, artifact: Artifact) -> Manifest:
        """The manifest in the remote, its paths as they are in an artifact's folder.

        Raises:
            FileNotFoundError: there is none.
        """
        found = self._find_manifest(artifact)
        if found is None:
            raise FileNotFoundError(f"{artifact.address} is not there any more; run its TOML file again")
        names = (_name_here(entry, artifact) for entry in found.files)
        files = [entry.model_copy(update={"path": name}) for entry, name in zip(found.files, names, strict=True)]
        return found.model_copy(update={"files": tuple(files)})

    def fetch(self, artifact: Artifact) -> None:
        """Bring an artifact into the cache; of several processes one does.

        Raises:
            OSError: its files are missing or damaged.
        """
        with self._in_staging(artifact.contract, artifact.folder.name) as staging:
            if not artifact.is_here:
                self._fetch(artifact, staging)

    def link_run(self, record: RunRecord) -> Path:
        """As `Store.link_run`. Artifacts that the remote has lost since they came into the cache are put there again.

        Raises:
            FileNotFoundError: the remote has lost an artifact that the cache does not have.
        """
        self._put_again(self.recorded(record).values())
        return super().link_run(record)

    def link(self, name: str, link: str, artifact: Artifact) -> None:
        """As `Store.link`, in the remote by a file beside the run's record; errors as of `link_run`."""
        self._put_again([artifact])
        super().link(name, link, artifact)
        linked = {"artifacts": {link: [artifact.contract.name, artifact.key]}}
        self.remote.write(f"runs/{name}/{link}.json", json.dumps(linked).encode())

    def unlink(self, name: str, link: str) -> None:
        """As `Store.unlink`, here and in the remote."""
        super().unlink(name, link)
        self.remote.delete([f"runs/{name}/{link}.json"])

    def link_target(self, name: str, link: str) -> Artifact | None:
        """As `Store.link_target`."""
        content = self.remote.read(f"runs/{name}/{link}.json")
        found = json.loads(content)["artifacts"].get(link) if content else None
        return self._artifact(CONTRACTS[found[0]], found[1]) if found else None

    @contextmanager
    def lock_run(self, name: str) -> Iterator[None]:
        """As `Store.lock_run`, on this machine and against others."""
        with super().lock_run(name), claimed(self.remote, name, self.root / "runs" / f".{name}.claim"):
            yield

    def is_run_locked(self, name: str) -> bool | None:
        """As `Store.is_run_locked`; None also where another machine may be working on it."""
        return super().is_run_locked(name) or None

    def collect_garbage(self, *, dry_run: bool = False, older_than: timedelta | None = None) -> list[Garbage]:
        """As `Store.collect_garbage`; files that were written less than `older_than` ago, by default a week, stay."""
        collect = find_remote_garbage if dry_run else collect_remote_garbage
        return collect(self.remote, GRACE if older_than is None else older_than)

    def _write_record(self, record: RunRecord) -> Path:
        path = super()._write_record(record)
        self.remote.write(f"runs/{record.name}/run.json", path.read_bytes())
        return path

    def _publish(self, draft: Draft, manifest: Manifest) -> Artifact:
        artifact = self._artifact(draft.contract, manifest.key)
        if self._put(draft.folder, artifact, manifest):
            return super()._publish(draft, manifest)
        log.info("%s: another machine was first to make %s; its artifact counts", manifest.contract, manifest.key)
        self._fetch(artifact, draft.folder.parent)
        return artifact

    def _put_again(self, artifacts: Iterable[Artifact]) -> None:
        """Put there what the remote has lost since it came into the cache."""
        self._published.clear()
        for artifact in artifacts:
            if self._find_manifest(artifact) is None:
                self._put(artifact.path, artifact, artifact.manifest)

    def _put(self, folder: Path, artifact: Artifact, manifest: Manifest) -> bool:
        """Data, then the manifest; False where another writer's is there already."""
        writer = uuid.uuid4().hex
        files = [entry.model_copy(update={"path": f"{writer}/{entry.path}"}) for entry in manifest.files]
        ours = manifest.model_copy(update={"files": tuple(files)})
        names = {folder / entry.path: f"{_folder(artifact)}/{writer}/{entry.path}" for entry in manifest.files}
        log.info("%s: uploading %s to %s", manifest.contract, _size(manifest), self)
        self.remote.upload(names)
        content = ours.model_dump_json(indent=2).encode()
        if self.remote.create(f"{_folder(artifact)}/{MANIFEST}", content):
            return True
        if self._find_manifest(artifact) == ours:  # it was there before a lost reply was asked for again
            return True
        self.remote.delete(list(names.values()))
        return False

    def _fetch(self, artifact: Artifact, staging: Path) -> None:
        """Download into staging, check, and show; hold the staging folder's lock."""
        manifest, folder = self.manifest(artifact), staging / "fetched"
        theirs = self._published[_folder(artifact)]
        log.info("%s: fetching %s from %s", manifest.contract, _size(manifest), artifact.address)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pairs = list(zip(theirs.files, manifest.files, strict=True))
        try:
            self.remote.download({f"{_folder(artifact)}/{there.path}": folder / here.path for there, here in pairs})
        except FileNotFoundError as error:
            raise self._damage(artifact, f"a file is missing ({error})") from error
        for there, here in pairs:
            if (digest := file_digest(folder / here.path)) != here.sha256:
                raise self._damage(artifact, f"{there.path}: sha256 is {digest}, must be {here.sha256}")
        flush_all(folder / here.path for here in manifest.files)
        self._show(folder, artifact, manifest)

    def _find_manifest(self, artifact: Artifact) -> Manifest | None:
        """The manifest as it is in the remote, its paths below their writer's folder."""
        folder = _folder(artifact)
        if folder not in self._published:
            content = self.remote.read(f"{folder}/{MANIFEST}")
            if content is None:
                return None
            try:
                self._published[folder] = Manifest.model_validate_json(content)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise self._damage(artifact, f"{MANIFEST}: {problem}") from error
        return self._published[folder]

    def _damage(self, artifact: Artifact, problem: str) -> OSError:
        return OSError(f"{artifact.address} is damaged: {problem}; delete {artifact.address} to make it again")

    def _artifact(self, contract: Contract, key: str) -> Artifact:
        if not key.isalnum():  # a record written by somebody else may say anything, and keys become paths
            raise ValueError(f"{self}: key of {contract.name} is {key!r}, must be letters and digits")
        return Artifact(contract, self.root / contract.name / key, self)

    def _read_record(self, name: str) -> bytes | None:
        return self.remote.read(f"runs/{name}/run.json")

    def run_names(self) -> list[str]:
        """As `Store.run_names`."""
        return sorted(PurePosixPath(name).parent.name for name in self.remote.matching("runs/*/run.json"))


def _folder(artifact: Artifact) -> str:
    return f"{artifact.contract.name}/{artifact.folder.name}"


def _name_here(entry: FileEntry, artifact: Artifact) -> str:
    """A file's path without its writer's folder; one that leads out of the artifact is refused."""
    _, *inner = PurePosixPath(entry.path).parts
    if not inner or ".." in inner or entry.path.startswith("/"):
        raise OSError(
            f"{artifact.address}: file {entry.path!r} lies outside, must lie in WRITER/…; delete the artifact"
        )
    return "/".join(inner)


def _size(manifest: Manifest) -> str:
    return f"{sum(entry.size for entry in manifest.files) / 2**20:,.1f} MiB"
