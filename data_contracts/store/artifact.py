"""Artifacts: a folder of Parquet files (and tensors) with a manifest, read with every check on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from data_contracts.schema import Contract, Reference, Violation, check_table, reference_violations, violations
from data_contracts.store.files import DAMAGES, damaged, file_digest, partition_folder, partition_of, read_rows

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    """One file of an artifact: its place, its size and what its bytes hash to."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    size: int
    sha256: str
    rows: int | None = None


class Manifest(BaseModel):
    """The last file written; without it there is no artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    contract: str
    version: int
    key: str
    settings: dict[str, Any]
    parents: dict[str, str]
    files: tuple[FileEntry, ...]
    rows: int
    statistics: dict[str, Any]
    made: dict[str, Any]


def artifact_key(contract: Contract, settings: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Digest of everything the content depends on: contract and version, the stage's settings, the parents' keys."""
    text = json.dumps([contract.name, contract.version, settings, parents], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Origin(Protocol):
    """Where artifacts are fetched from, each when it is first needed."""

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """The finished artifact of a key, or None."""

    def address(self, artifact: Artifact) -> str:
        """Where the artifact lies."""

    def manifest(self, artifact: Artifact) -> Manifest:
        """What the artifact holds; nothing else is fetched."""

    def fetch(self, artifact: Artifact) -> None:
        """Bring the artifact into its folder, whole or not at all."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    Attributes:
        contract: what it promises.
        folder: where its files lie, or will lie as soon as they are needed.
        origin: whence they come then; None where they are there.
    """

    contract: Contract
    folder: Path
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def is_here(self) -> bool:
        """Its files are in its folder."""
        return (self.folder / MANIFEST).exists()

    @property
    def path(self) -> Path:
        """Its folder, with its files in it."""
        if self.origin is not None and not self.is_here:
            self.origin.fetch(self)
        return self.folder

    @property
    def address(self) -> str:
        """How people find it: its folder, or its URL in a remote store."""
        return str(self.folder) if self.origin is None else self.origin.address(self)

    @cached_property
    def manifest(self) -> Manifest:
        """What the artifact holds and what it was made from.

        Raises:
            ValueError: the artifact keeps another version of the contract than this program knows.
        """
        found = self._manifest()
        if found.version != self.contract.version:
            raise ValueError(
                f"{self.address}: contract version of {self.contract.name} is {found.version}, must be "
                f"{self.contract.version}; run its TOML file again, or read it with edda {found.made.get('edda')}"
            )
        return found

    @property
    def is_readable(self) -> bool:
        """It exists and keeps the version of the contract that this program knows; nothing is fetched to know."""
        with suppress(FileNotFoundError):
            return self._manifest().version == self.contract.version
        return False

    def _manifest(self) -> Manifest:
        if self.origin is not None and not self.is_here:
            return self.origin.manifest(self)
        return Manifest.model_validate_json((self.folder / MANIFEST).read_bytes())

    @property
    def key(self) -> str:
        """Digest of everything the content depends on."""
        return self.manifest.key

    @property
    def statistics(self) -> dict[str, Any]:
        """What the stage measured while it worked; shape and meaning are the stage's own."""
        return self.manifest.statistics

    def partitions(self) -> list[dict[str, str]]:
        """The distinct partition values, in path order; one empty mapping where the contract has no partitions."""
        return sorted((dict(partition) for partition in self._tables), key=partition_folder)

    def files(self, **partition: str) -> list[Path]:
        """Parquet files whose partition values equal those given, in path order."""
        if partition.keys() == set(self.contract.partitioned_by):
            paths = self._tables.get(tuple((name, partition[name]) for name in self.contract.partitioned_by), [])
        else:
            wanted = set(partition.items())
            paths = [path for own, paths in self._tables.items() if wanted.issubset(own) for path in paths]
        return sorted(self.path / path for path in paths)

    def read(self, columns: Sequence[str] | None = None, **partition: str) -> pa.Table:
        """The rows of the matching partitions, page checksums verified and the contract checked.

        Args:
            columns: names to return, partition columns among them; all by default.
            partition: wanted values of partition columns, e.g. `domain="d0"`; all by default.

        Returns:
            Rows in file order; zero rows with the right schema where nothing matches.

        Raises:
            ContractError: a file breaks the contract.
            KeyError: a column is none of the contract's.
            OSError: a file is missing or damaged.
        """
        tables = [self._read_file(path, columns) for path in self.files(**partition)]
        schema = self._schema(columns)
        return pa.concat_tables([schema.empty_table(), *tables])

    def batches(self, columns: Sequence[str] | None = None, **partition: str) -> Iterator[pa.Table]:
        """As `read`, one file at a time."""
        for path in self.files(**partition):
            yield self._read_file(path, columns)

    def verify(self, parents: Sequence[Artifact] = ()) -> list[Violation]:
        """Everything that can be wrong: digests, sizes, rules, and references into the given parents."""
        found = list(self._digest_violations())
        if found:
            return found
        by_name = {parent.contract.name: parent for parent in parents}

        @cache
        def target(reference: Reference, partition: tuple[tuple[str, str], ...]) -> pa.Table:
            return by_name[reference.contract].read(reference.read_columns, **dict(partition))

        for path in self.files():
            found += violations(self.contract, read_rows(path), self._label(path))
            own = partition_of(path.relative_to(self.path).as_posix())
            for reference in self.contract.references:
                if reference.contract in by_name and not found:
                    places = zip(reference.columns, reference.target_columns, strict=True)
                    parts = by_name[reference.contract].contract.partitioned_by
                    there = target(reference, tuple((to, own[of]) for of, to in places if of in own and to in parts))
                    found += reference_violations(reference, self._read_file(path, None), there, self._label(path))
        return found

    def _digest_violations(self) -> Iterator[Violation]:
        for entry in self.manifest.files:
            path = self.path / entry.path
            if not path.exists():
                yield Violation(self._label(path), "file", None, "missing", "present")
            elif (digest := file_digest(path)) != entry.sha256:
                yield Violation(self._label(path), "sha256", None, digest, entry.sha256)

    def _read_file(self, path: Path, columns: Sequence[str] | None) -> pa.Table:
        schema = self._schema(columns)
        partition = partition_of(path.relative_to(self.path).as_posix())
        inside = None if columns is None else [name for name in columns if name not in partition]
        try:
            table = read_rows(path, inside)
            if inside is None:
                check_table(self.contract, table, self._label(path))
        except DAMAGES as error:
            raise damaged(path, self.path, error) from error
        for name, value in partition.items():
            table = table.append_column(name, pa.repeat(pa.scalar(value), table.num_rows))
        return table.select(schema.names).cast(schema)

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        types = {column.name: column for column in self.contract.columns}
        wanted = list(types) if columns is None else columns
        for name in wanted:
            if name not in types:
                raise KeyError(f"{self.contract.name}: column {name!r} is unknown, must be one of {', '.join(types)}")
        return pa.schema([pa.field(name, types[name].type) for name in wanted])

    @cached_property
    def _tables(self) -> dict[tuple[tuple[str, str], ...], list[str]]:
        """Paths of the Parquet files by their partition, parsed once: sixty domains have 3,540 pairs."""
        tables: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for entry in self.manifest.files:
            if entry.rows is not None:
                tables.setdefault(tuple(partition_of(entry.path).items()), []).append(entry.path)
        return tables

    def _label(self, path: Path) -> str:
        return f"{self.contract.name}/{path.relative_to(self.path).as_posix()}"


def read_blocks(artifact: Artifact, columns: list[str], rows: int = 1_024, **partition: str) -> Iterator[pa.Table]:
    """As `Artifact.read`, so many rows at a time, or fewer, of one file; memory holds no whole file.

    Args:
        artifact: what is read.
        columns: names of columns inside the files, in the order of the contract.
        rows: of a table, at most.
        partition: wanted values of partition columns; all by default.

    Raises:
        OSError: a file is missing or damaged.
    """
    schema = pa.schema([field for field in artifact.contract.file_schema if field.name in columns])
    for path in artifact.files(**partition):
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(rows, columns=columns):
                    yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        except DAMAGES as error:
            raise damaged(path, artifact.path, error) from error
        pa.default_memory_pool().release_unused()  # else it keeps as much as a file's largest column


Artifacts = Mapping[str, Artifact]
"""Artifacts by their role in a run."""

NO_ARTIFACTS: Artifacts = MappingProxyType({})
