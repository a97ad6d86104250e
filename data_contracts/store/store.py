"""The store: a folder of artifacts, which are published atomically, and of records of which run used which."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from data_contracts.contracts import CONTRACTS, EXPERIMENT, INDEX
from data_contracts.schema import Contract
from data_contracts.store.artifact import Artifact
from data_contracts.store.claims import STAGING, Claims, is_held, is_write_refused
from data_contracts.store.draft import Draft
from data_contracts.store.files import damaged_file_error, flush, require_writable, write_alone, write_atomically
from data_contracts.store.garbage import Garbage, collect_garbage, find_garbage, linked_folder
from data_contracts.store.json_files import read_description
from data_contracts.store.manifest import MANIFEST, Manifest, artifact_key, is_key
from data_contracts.store.runs import Attempt, RunRecord

log = logging.getLogger(__name__)

_IF_READ_ONLY = "choose another with --store, or do it as a user who may write there"


class Store:
    """A folder of artifacts: `<root>/<contract>/<key>/` and, by run, `<root>/runs/<name>/<contract>`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._claims = Claims(self.root / STAGING)

    def __str__(self) -> str:
        """The path or address, as `--store` takes it."""
        return str(self.root)

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """The finished artifact of a key, or None. File sizes are compared with the manifest's.

        The key is claimed: no garbage collection removes its artifact while this store object exists.

        Raises:
            OSError: files of a finished artifact are missing or have another size.
        """
        self._claims.add_if_allowed([key])
        artifact = self._artifact(contract, key)
        if not artifact.is_local:
            return None
        artifact.require_sizes()
        return artifact

    def make(
        self,
        contract: Contract,
        settings: Mapping[str, Any],
        parents: Mapping[str, Artifact],
        write: Callable[[Draft], None],
    ) -> Artifact:
        """Find the artifact of these settings and parents; if there is none, have `write` make it, and publish it.

        Two processes that want the same key do the work once: the second waits for the first.

        Args:
            contract: contract of the artifact.
            settings: JSON values that the content depends on.
            parents: role (the contract's name, or e.g. `checkpoint-2022`) → artifact read.
            write: fills the draft; called at most once.

        Raises:
            PermissionError: the artifact must be made, and the store is read-only.
        """
        parent_keys = {role: parent.key for role, parent in parents.items()}
        key = artifact_key(contract, settings, parent_keys)
        if artifact := self.find(contract, key):
            return artifact
        with self._in_staging(contract, key, parent_keys.values()) as staging:
            if artifact := self.find(contract, key):
                return artifact
            started = time.monotonic()
            draft = Draft(contract, staging)
            write(draft)
            manifest = draft.manifest(key, settings, parent_keys, started)
            return self._publish(draft, manifest)

    @contextmanager
    def _in_staging(self, contract: Contract, key: str, parents: Iterable[str] = ()) -> Iterator[Path]:
        """The folder in which an artifact is made, by one process at a time; its keys are claimed."""
        require_writable(self.root, f"make {contract.name}", _IF_READ_ONLY)
        staging = self.root / STAGING / contract.name / key
        staging.mkdir(parents=True, exist_ok=True)
        self._claims.add([key, *parents])
        with _artifact_lock(staging.with_suffix(".lock")):
            yield staging

    def discard_draft(self, contract: Contract, key: str) -> None:
        """Remove what an attempt that was given up has left of an artifact; waits for one that is in progress."""
        staging = self.root / STAGING / contract.name / key
        if staging.is_dir():
            with _artifact_lock(staging.with_suffix(".lock")):
                shutil.rmtree(staging, ignore_errors=True)

    def _publish(self, draft: Draft, manifest: Manifest) -> Artifact:
        """Turn a finished draft into an artifact."""
        artifact = self._artifact(draft.contract, manifest.key)
        self._move_into_place(draft.folder, artifact, manifest)
        rows, seconds = f"{manifest.rows:,}", manifest.made["seconds"]
        log.info("%s: %s rows in %s s → %s", manifest.contract, rows, seconds, artifact.address)
        return artifact

    def _move_into_place(self, folder: Path, artifact: Artifact, manifest: Manifest) -> None:
        """Write the manifest into a staging folder, as the last file, and rename the folder to the artifact's."""
        write_atomically({folder / MANIFEST: manifest.as_json()})
        artifact.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(artifact.folder, ignore_errors=True)
        folder.rename(artifact.folder)
        flush(artifact.folder.parent)
        shutil.rmtree(folder.parent, ignore_errors=True)

    def _artifact(self, contract: Contract, key: str) -> Artifact:
        """The artifact of a key, whether or not it exists."""
        return Artifact(contract, self.root / contract.name / key)

    def link_run(self, record: RunRecord) -> Path:
        """Record a finished run in `runs/<name>/run.json`, link each of its artifacts there, and return the folder.

        Links of the run before it are removed, except for those of an index and of an experiment.
        """
        folder, artifacts = self.root / "runs" / record.name, self.recorded(record)
        for role, artifact in artifacts.items():
            self._link(record.name, role, artifact)
        for path in folder.glob("[!.]*"):
            if path.name not in {*artifacts, INDEX.name, EXPERIMENT.name} and linked_folder(path):
                _remove_link(path)
        self._write_record(record)
        self._remove_file(_generation_file(record.name, record.generation))
        return folder

    def begin_attempt(self, name: str, attempt: Attempt) -> None:
        """Add an attempt to a run's record; `link_run` replaces both."""
        self._write_record((self.record(name) or RunRecord(name=name)).model_copy(update={"attempt": attempt}))

    def end_attempt(self, name: str) -> None:
        """Remove the attempt from a run's record."""
        if record := self.record(name):
            self._write_record(record.model_copy(update={"attempt": None}))

    def _write_record(self, record: RunRecord) -> None:
        self._write_file(f"runs/{record.name}/run.json", record.as_json())

    def keep_generation(self, record: RunRecord) -> None:
        """Record a generation beside the present one, so that its artifacts are not garbage."""
        self._write_file(_generation_file(record.name, record.generation), record.as_json())

    def generations(self, name: str) -> list[RunRecord]:
        """The present generation of a run's name, then the others, the latest first.

        Raises:
            FileNotFoundError: no run of that name.
            OSError: a record is damaged.
        """
        files = {file: self._read_file(file) for file in self._matching(f"runs/{name}/generations/*.json")}
        others = [RunRecord.parse(content, f"{self}/{file}") for file, content in files.items() if content]
        return [self.run(name), *sorted(others, key=lambda record: record.at, reverse=True)]

    def generation(self, name: str, identifier: str) -> RunRecord:
        """A generation of a run's name.

        Raises:
            FileNotFoundError: no such generation; the message lists those that exist.
        """
        records = self.generations(name)
        for record in records:
            if record.generation == identifier:
                return record
        known = ", ".join(record.generation for record in records if record.generation) or "none"
        raise FileNotFoundError(f"run {name!r} has no generation {identifier!r} in {self}; generations: {known}")

    def delete_generation(self, name: str, identifier: str) -> None:
        """Forget a generation that is not the present one; its artifacts become garbage."""
        self._remove_file(_generation_file(name, identifier))

    def delete_run(self, name: str) -> None:
        """Forget a run's name with all its generations; their artifacts become garbage."""
        for file in self._matching(f"runs/{name}/generations/*.json"):
            self._remove_file(file)
        for path in (self.root / "runs" / name).glob("[!.]*"):
            if path.is_symlink() or linked_folder(path):
                self.unlink(name, path.name)
        self._remove_file(f"runs/{name}/run.json")
        shutil.rmtree(self.root / "runs" / name, ignore_errors=True)

    def record(self, name: str) -> RunRecord | None:
        """A run's record; None if there is no run of that name.

        Raises:
            ValueError: the record is damaged.
        """
        content = self._read_file(f"runs/{name}/run.json")
        return None if content is None else RunRecord.parse(content, f"{self}/runs/{name}/run.json")

    def run(self, name: str) -> RunRecord:
        """A run's record.

        Raises:
            FileNotFoundError: no run of that name; the message lists the names of all runs.
            ValueError: the record is damaged.
        """
        record = self.record(name)
        if record is None:
            runs = ", ".join(self.run_names()) or "none"
            raise FileNotFoundError(f"run {name!r} is not in {self}; runs there: {runs}")
        return record

    def recorded(self, record: RunRecord) -> dict[str, Artifact]:
        """The artifacts that a record names, by role, whether or not they still exist."""
        return {role: self._artifact(CONTRACTS[name], key) for role, (name, key) in record.artifacts.items()}

    def find_planned(self, attempt: Attempt) -> dict[str, Artifact]:
        """The artifacts of an attempt that the store has, by role."""
        artifacts = {role: self.find(CONTRACTS[name], key) for role, (name, key) in attempt.planned.items()}
        return {role: artifact for role, artifact in artifacts.items() if artifact}

    @contextmanager
    def lock_run(self, name: str) -> Iterator[None]:
        """Keep other processes from working on a run's name; waits for one that does. A killed one holds no lock."""
        require_writable(self.root, f"work on run {name!r}", _IF_READ_ONLY)
        (self.root / "runs").mkdir(parents=True, exist_ok=True)
        if is_held(self._run_lock(name)):
            log.info("waiting for another run named %r, which is at work in %s", name, self)
        with self._run_lock(name):
            yield

    def is_run_locked(self, name: str) -> bool | None:
        """Some process works on a run's name; None if this one cannot know, because the store is read-only."""
        try:
            return is_held(self._run_lock(name))
        except OSError as error:
            if not is_write_refused(error):
                raise
            return None

    def _run_lock(self, name: str) -> FileLock:
        return FileLock(self.root / "runs" / f".{name}.lock")

    def collect_garbage(self, *, dry_run: bool = False, older_than: timedelta | None = None) -> list[Garbage]:
        """Remove what no run and no running process refers to.

        Args:
            dry_run: remove nothing, only return what would be removed.
            older_than: for object storage, which cannot show what is in use: younger files stay.

        Returns:
            What was removed, in path order.

        Raises:
            ValueError: `older_than` is given for a folder; or a record or manifest is damaged, so it is unknown what
                must stay.
            FileNotFoundError, PermissionError, BlockingIOError: as `garbage.collect_garbage`.
        """
        if older_than is not None:
            raise ValueError(
                f"--older-than is for object storage, the store is {self}; leave it out, what is used stays"
            )
        return (find_garbage if dry_run else collect_garbage)(self.root)

    def link(self, name: str, link: str, artifact: Artifact) -> None:
        """Link an artifact into a run's folder, in place of an earlier one, so that it is not garbage."""
        self._link(name, link, artifact)

    def unlink(self, name: str, link: str) -> None:
        """Remove a link from a run's folder."""
        _remove_link(self.root / "runs" / name / link)

    def linked(self, name: str, link: str) -> Artifact | None:
        """The artifact of a link in a run's folder; None without a link, or if the artifact is gone."""
        target = self.link_target(name, link)
        return self.find(target.contract, target.folder.name) if target else None

    def link_target(self, name: str, link: str) -> Artifact | None:
        """The artifact that a link names, unread: it may be gone or of another version; None without a link."""
        target = linked_folder(self.root / "runs" / name / link)
        return self._artifact(CONTRACTS[target.parent.name], target.name) if target else None

    def _link(self, name: str, link: str, artifact: Artifact) -> None:
        folder = self.root / "runs" / name
        require_writable(folder if folder.exists() else self.root, f"link {link} of run {name!r}", _IF_READ_ONLY)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{link}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("..", "..", artifact.contract.name, artifact.key))
        if not (folder / link).is_symlink():  # a copy of the artifact, which a rename cannot replace
            _remove_link(folder / link)
        temporary.replace(folder / link)

    def run_names(self) -> list[str]:
        """Names of the recorded runs, ascending."""
        return sorted(PurePosixPath(file).parent.name for file in self._matching("runs/*/run.json"))

    def _read_file(self, file: str) -> bytes | None:
        """The content of a record by its path in the store; None if there is none."""
        path = self.root / file
        return read_description(path) if path.exists() else None

    def _write_file(self, file: str, content: bytes) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_alone(path, content)

    def _remove_file(self, file: str) -> None:
        (self.root / file).unlink(missing_ok=True)

    def _matching(self, pattern: str) -> list[str]:
        """Paths of the records that match a pattern, ascending."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))


def open_artifact(path: Path) -> Artifact:
    """Open the artifact in a folder. In a store the folder's path names the contract, elsewhere the manifest.

    Raises:
        FileNotFoundError: the folder has no manifest, so it is no artifact.
        OSError: the manifest is damaged.
    """
    if not (path / MANIFEST).exists():
        raise FileNotFoundError(f"{path}: no {MANIFEST}, so no artifact")
    folder = path.resolve()
    if is_key(folder.name) and folder.parent.name in CONTRACTS:
        return Artifact(CONTRACTS[folder.parent.name], folder)
    manifest = Manifest.parse(read_description(folder / MANIFEST), folder / MANIFEST, folder)
    if manifest.contract not in CONTRACTS:
        known = f"must be one of {', '.join(CONTRACTS)}"
        raise damaged_file_error(folder / MANIFEST, folder, f"contract is {manifest.contract!r}, {known}")
    return Artifact(CONTRACTS[manifest.contract], folder)


def _generation_file(name: str, identifier: str) -> str:
    return f"runs/{name}/generations/{identifier}.json"


def _remove_link(path: Path) -> None:
    """Remove a link into the store; of a store that was copied by something that follows links, the copy."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    elif linked_folder(path):
        shutil.rmtree(path)


def _artifact_lock(path: Path) -> FileLock:
    lock = FileLock(path)
    if is_held(lock):
        log.info("waiting for another process that is making %s", path.stem)
    return lock
