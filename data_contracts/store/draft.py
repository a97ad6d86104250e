"""Drafts: artifacts that are being made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.schema import Contract
from data_contracts.store.digests import file_digest
from data_contracts.store.files import flush_all, partition_folder, write_checked
from data_contracts.store.manifest import FileEntry, Manifest


class Draft:
    """An artifact that is being made, in a staging folder that becomes an artifact when it is published.

    If a stage is killed, its staging folder stays, and the next attempt at the same key uses it again, so a stage may
    continue from what it wrote to `scratch`.
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
            ContractError: the table violates the contract; nothing is written.
        """
        path = self._next_file(partition)
        label = f"{self.contract.name}/{path.relative_to(self.folder).as_posix()}"
        write_checked(self.contract, table, path, label)
        self._rows[path.relative_to(self.folder).as_posix()] = table.num_rows

    def adopt(self, path: Path, **partition: str) -> None:
        """Link a file that `write_checked` wrote under `scratch` as the partition's next Parquet file.

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
        """Flush and hash every file that was written so far, and return the manifest."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        flush_all(paths)
        files = []
        for path in paths:
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
