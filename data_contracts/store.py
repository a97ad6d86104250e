"""The store: where artifacts live, how they come to be whole or not at all, and which ones a run used."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from data_contracts.artifact import MANIFEST, Artifact, FileEntry, Manifest, artifact_key, file_digest, partition_folder
from data_contracts.claims import Claims, is_held
from data_contracts.contract import Contract, check_table
from data_contracts.contracts import CONTRACTS

log = logging.getLogger(__name__)

STAGING = ".staging"
"""Folder of a store with what is in the making."""


class Draft:
    """An artifact in the making, in a staging folder that only its publication turns into an artifact.

    A killed stage leaves the staging folder behind; the next attempt at the same key finds it again, so a stage
    may continue from what it kept in `scratch`.
    """

    def __init__(self, contract: Contract, folder: Path) -> None:
        self.contract = contract
        self.folder = folder / "data"
        self.scratch = folder / "scratch"
        """Private files that survive a kill and are deleted on publication."""
        self.statistics: dict[str, Any] = {}
        self._rows: dict[str, int] = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.scratch.mkdir(exist_ok=True)

    def write(self, table: pa.Table, **partition: str) -> None:
        """Check a table against the contract and write it as the partition's next Parquet file.

        Args:
            table: the contract's file columns, in any order.
            partition: a value for every partition column.

        Raises:
            ContractError: the table breaks the contract; nothing is written.
        """
        path = self._next_file(partition)
        label = f"{self.contract.name}/{path.relative_to(self.folder).as_posix()}"
        write_checked(self.contract, table, path, label)
        self._rows[path.relative_to(self.folder).as_posix()] = table.num_rows

    def adopt(self, path: Path, **partition: str) -> None:
        """Take a file that `write_checked` wrote under `scratch` as the partition's next Parquet file; it stays there.

        Args:
            path: the file, on the store's file system.
            partition: a value for every partition column.
        """
        target = self._next_file(partition)
        try:
            target.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, target)
        self._rows[target.relative_to(self.folder).as_posix()] = pq.read_metadata(path).num_rows

    def _next_file(self, partition: Mapping[str, str]) -> Path:
        if tuple(partition) != self.contract.partitioned_by:
            raise TypeError(
                f"{self.contract.name}: partition is {tuple(partition)}, must be {self.contract.partitioned_by}"
            )
        folder = self.folder / partition_folder(partition)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"part-{len(list(folder.glob('part-*.parquet'))):05d}.parquet"

    def manifest(self, key: str, settings: Mapping[str, Any], parents: Mapping[str, str], started: float) -> Manifest:
        """The manifest of what was written so far, every file flushed to disk and hashed."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        files = []
        for path in paths:
            _flush(path)
            name = path.relative_to(self.folder).as_posix()
            files.append(
                FileEntry(path=name, size=path.stat().st_size, sha256=file_digest(path), rows=self._rows.get(name))
            )
        return Manifest(
            contract=self.contract.name,
            version=self.contract.version,
            key=key,
            settings=dict(settings),
            parents=dict(parents),
            files=tuple(files),
            rows=sum(self._rows.values()),
            statistics=self.statistics,
            made={
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 3),
                "edda": version("edda-recsys"),
                "pyarrow": pa.__version__,
            },
        )


class Store:
    """A folder of artifacts: `<root>/<contract>/<key>/` and, by run, `<root>/runs/<name>/<contract>`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._claims = Claims(self.root / STAGING)

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """The finished artifact of a key, or None. Sizes are compared with the manifest's.

        The key is claimed: no garbage collection removes its artifact while this store object lives.

        Raises:
            OSError: files of a finished artifact are missing or have another size.
        """
        self._claims.add_if_allowed([key])
        artifact = Artifact(contract, self.root / contract.name / key)
        if not (artifact.path / MANIFEST).exists():
            return None
        for entry in artifact.manifest.files:
            path = artifact.path / entry.path
            size = path.stat().st_size if path.exists() else None
            if size != entry.size:
                raise OSError(f"{path}: size is {size}, must be {entry.size}; delete {artifact.path} to make it again")
        return artifact

    def make(
        self,
        contract: Contract,
        settings: Mapping[str, Any],
        parents: Mapping[str, Artifact],
        write: Callable[[Draft], None],
    ) -> Artifact:
        """The artifact of these settings and parents: found where it exists, else written by `write` and published.

        Two processes that want the same key do the work once: the second waits for the first.

        Args:
            contract: what is to be made.
            settings: JSON values that the content depends on.
            parents: role (the contract's name, or e.g. `checkpoint-2022`) → artifact read.
            write: fills the draft; called at most once.
        """
        parent_keys = {role: parent.key for role, parent in parents.items()}
        key = artifact_key(contract, settings, parent_keys)
        if found := self.find(contract, key):
            return found
        staging = self.root / STAGING / contract.name / key
        staging.mkdir(parents=True, exist_ok=True)
        self._claims.add([key, *parent_keys.values()])
        with _locked(staging.with_suffix(".lock")):
            if found := self.find(contract, key):
                return found
            started = time.monotonic()
            draft = Draft(contract, staging)
            write(draft)
            manifest = draft.manifest(key, settings, parent_keys, started)
            return self._publish(draft, manifest)

    def _publish(self, draft: Draft, manifest: Manifest) -> Artifact:
        """Manifest last inside the staging folder, then one rename shows the whole artifact."""
        write_atomically(draft.folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
        target = self.root / manifest.contract / manifest.key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.folder.rename(target)
        _flush(target.parent)
        shutil.rmtree(draft.scratch.parent, ignore_errors=True)
        log.info("%s: %s rows in %s s → %s", manifest.contract, manifest.rows, manifest.made["seconds"], target)
        return Artifact(draft.contract, target)

    def link_run(self, name: str, artifacts: Mapping[str, Artifact], details: Mapping[str, Any]) -> Path:
        """Record which artifacts a run used: `runs/<name>/run.json` and, beside it, a link per artifact.

        Args:
            name: the run's name, one path component.
            artifacts: link name → artifact.
            details: whatever else a reader of the run wants (settings, seeds), as JSON.
        """
        folder = self.root / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        for link, artifact in artifacts.items():
            self.link(name, link, artifact)
        record = {
            "name": name,
            "artifacts": {link: [a.contract.name, a.key] for link, a in artifacts.items()},
            **details,
        }
        write_atomically(folder / "run.json", json.dumps(record, indent=2, ensure_ascii=False).encode())
        return folder

    def link(self, name: str, link: str, artifact: Artifact) -> None:
        """Link an artifact into a run's folder, in place of one linked before; it is no garbage then."""
        folder = self.root / "runs" / name
        temporary = folder / f".{link}.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("..", "..", artifact.contract.name, artifact.key))
        temporary.replace(folder / link)

    def run(self, name: str) -> tuple[dict[str, Artifact], dict[str, Any]]:
        """The artifacts and details of a recorded run.

        Raises:
            FileNotFoundError: no run of that name, with the names there are.
        """
        path = self.root / "runs" / name / "run.json"
        if not path.exists():
            known = sorted(p.parent.name for p in self.root.glob("runs/*/run.json"))
            raise FileNotFoundError(f"run {name!r} is not in {self.root}; runs there: {', '.join(known) or 'none'}")
        record = json.loads(path.read_text())
        links = record.pop("artifacts")
        artifacts = {link: Artifact(CONTRACTS[kind], self.root / kind / key) for link, (kind, key) in links.items()}
        return artifacts, record


def open_artifact(path: Path) -> Artifact:
    """The artifact in a folder, its contract named by its manifest.

    Raises:
        FileNotFoundError: the folder has no manifest, so it holds no artifact.
    """
    if not (path / MANIFEST).exists():
        raise FileNotFoundError(f"{path}: no {MANIFEST}, so no artifact")
    return Artifact(CONTRACTS[json.loads((path / MANIFEST).read_text())["contract"]], path.resolve())


def write_checked(contract: Contract, table: pa.Table, path: Path, label: str) -> None:
    """Write one Parquet file of an artifact.

    Args:
        contract: what the file promises.
        table: the contract's file columns, in any order.
        path: where it goes.
        label: how errors call it.

    Raises:
        ContractError: the table breaks the contract; nothing is written.
    """
    check_table(contract, table, label)
    write_parquet(table.select(contract.file_schema.names).cast(contract.file_schema), path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write one Parquet file with page checksums and encodings that suit sorted numbers and floats."""
    encodings: dict[str, str] = {}
    dictionary = []
    for field in table.schema:
        is_list = pa.types.is_list(field.type)
        name = f"{field.name}.list.element" if is_list else field.name
        inner = field.type.value_type if is_list else field.type
        if pa.types.is_integer(inner):
            encodings[name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(inner):
            encodings[name] = "BYTE_STREAM_SPLIT"
        else:
            dictionary.append(name)
    pq.write_table(
        table,
        path,
        compression="zstd",
        use_dictionary=dictionary,
        column_encoding=encodings or None,
        write_page_checksum=True,
    )


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that readers, and a kill at any moment, see the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_bytes(content)
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path)
    if is_held(lock):
        log.info("waiting for another process that makes %s", path.stem)
    return lock
