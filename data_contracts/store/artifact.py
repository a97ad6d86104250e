"""Artifacts: folders of Parquet files (and tensors) with a manifest, checked whenever they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.literals import literal
from data_contracts.schema import Contract, Reference, Violation, check_table, reference_violations, violations
from data_contracts.store.digests import DigestCache, file_digest
from data_contracts.store.files import (
    DamagedFileError,
    damaged_file_error,
    is_plain_file,
    open_parquet,
    parse_partition,
    partition_folder,
    read_rows,
)
from data_contracts.store.json_files import CompleteDict, parse_json, read_description, require_kind
from data_contracts.store.manifest import MANIFEST, FileEntry, Manifest, require_key

S = TypeVar("S")


class Origin(Protocol):
    """A remote store that artifacts are fetched from when they are first needed."""

    def find(self, contract: Contract, key: str) -> Artifact | None:
        """The finished artifact of a key, or None."""

    def address(self, artifact: Artifact) -> str:
        """The artifact's URL."""

    def manifest(self, artifact: Artifact) -> Manifest:
        """The artifact's manifest; nothing else is fetched."""

    def fetch(self, artifact: Artifact) -> None:
        """Download the artifact into its folder, completely or not at all."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    Attributes:
        contract: the rules that its table follows.
        folder: where its files are, or will be once they are fetched.
        origin: the remote store to fetch the files from; None for a local artifact.
    """

    contract: Contract
    folder: Path
    origin: Origin | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: without what was read here, since a manifest names up to a million files."""
        return {"contract": self.contract, "folder": self.folder, "origin": self.origin}

    @property
    def is_local(self) -> bool:
        """The files are in the folder."""
        return (self.folder / MANIFEST).exists()

    @property
    def path(self) -> Path:
        """The folder; files that are not there are fetched first."""
        if self.origin is not None and not self.is_local:
            self.origin.fetch(self)
        return self.folder

    @property
    def address(self) -> str:
        """The folder, or the URL in a remote store."""
        return str(self.folder) if self.origin is None else self.origin.address(self)

    @cached_property
    def manifest(self) -> Manifest:
        """What the artifact holds and what it was made from.

        Raises:
            ValueError: the artifact follows another version of the contract than this program knows.
            OSError: it is damaged, or another artifact's.
        """
        manifest = self._manifest()
        if manifest.version != self.contract.version:
            raise ValueError(
                f"{self.address}: contract version of {self.contract.name} is {manifest.version}, must be "
                f"{self.contract.version}; run its TOML file again, or read it with edda {manifest.made.get('edda')}"
            )
        with self._named_damage():
            require_key(manifest.model_dump(exclude={"files", "statistics", "made"}))
        return manifest

    @property
    def is_readable(self) -> bool:
        """It exists and follows the contract's version that this program knows. At most the manifest is fetched."""
        with suppress(FileNotFoundError):
            return self._manifest().version == self.contract.version
        return False

    def _manifest(self) -> Manifest:
        with self._named_damage():
            if self.origin is not None and not self.is_local:
                manifest = self.origin.manifest(self)
            else:
                manifest = Manifest.parse(self._read_manifest(), self.folder / MANIFEST, self.address)
            manifest.require_identity(self.contract.name, self.folder.name)
        return manifest

    def _read_manifest(self) -> bytes:
        try:
            return read_description(self.folder / MANIFEST)
        except FileNotFoundError:
            remedy = "`edda run` with the run's TOML file makes it again"
            raise FileNotFoundError(f"{self.folder}: {self.contract.name} was deleted; {remedy}") from None

    @contextmanager
    def _named_damage(self) -> Iterator[None]:
        """Add the manifest's path and a remedy to what is wrong with it."""
        try:
            yield
        except DamagedFileError:
            raise
        except ValueError as error:
            raise damaged_file_error(self.folder / MANIFEST, self.address, error) from error

    @property
    def key(self) -> str:
        """Digest of all that the content depends on."""
        return self.manifest.key

    @property
    def statistics(self) -> dict[str, Any]:
        """What the stage measured while it worked, as the contract's class in `data_contracts.statistics` describes."""
        return self.manifest.statistics

    def statistics_as(self, kind: type[S]) -> S:
        """The statistics, typed.

        Args:
            kind: the contract's class in `data_contracts.statistics`. An artifact that an earlier program made may
                lack keys that the class has not always had, so only to use a missing key is an error.

        Raises:
            DamagedFileError: a value is of another type; or later, a key that is used is missing.
        """
        path, remedy = self.folder / MANIFEST, f"delete {self.address} to make it again"
        require_kind(self.statistics, kind, path, remedy)
        return cast(S, CompleteDict(self.statistics, path, remedy))

    def require_sizes(self) -> None:
        """Check that the files are plain files inside the folder, with the sizes that the manifest says.

        Raises:
            OSError: a file is missing, a link or none, or has another size.
        """
        for folder in {parent for name in self._entries for parent in PurePosixPath(name).parents}:
            if folder.parts and (self.path / folder).is_symlink():
                raise damaged_file_error(self.path / folder, self.folder, "it is a link, must be a folder")
        for name, entry in self._entries.items():
            path = self.path / name
            size = path.lstat().st_size if os.path.lexists(path) else None
            if size is not None and not is_plain_file(path):
                raise damaged_file_error(path, self.folder, "it is no plain file")
            if size != entry.size:
                problem = "it is missing" if size is None else f"size is {size}, must be {entry.size}"
                raise OSError(f"{path}: {problem}; delete {self.folder} to make it again")

    def checked(self, file: str | Path) -> Path:
        """The path of a file to open. Its bytes are those that the manifest names; see `DigestCache` for the cost.

        Args:
            file: its path, or as text its name in the folder.

        Raises:
            OSError: it is missing or damaged, or the manifest does not name it.
        """
        folder = self.path
        path = file if isinstance(file, Path) else folder / file
        expected = self.entry(path).sha256
        if os.path.lexists(path) and not is_plain_file(path):
            raise damaged_file_error(path, self.folder, "it is no plain file")
        try:
            digest = self._digests.digest(self._name(path))
        except OSError as error:
            raise damaged_file_error(path, self.folder, error.strerror or error) from error
        if digest != expected:
            raise damaged_file_error(path, self.folder, f"sha256 is {digest}, must be {expected}")
        return path

    def entry(self, file: Path) -> FileEntry:
        """What the manifest says of a file.

        Raises:
            OSError: nothing.
        """
        name = self._name(file)
        if name not in self._entries:
            raise damaged_file_error(file, self.folder, f"{MANIFEST} does not name it")
        return self._entries[name]

    def read_json(self, name: str, kind: type[S]) -> S:
        """The value of a JSON file, which must be of a kind, as in `parse_json`.

        Raises:
            OSError: the file is missing or damaged.
        """
        path = self.checked(name)
        return parse_json(path.read_bytes(), kind, path, f"delete {self.folder} to make it again")

    def partitions(self) -> list[dict[str, str]]:
        """The distinct partition values, in path order; one empty mapping if the contract has no partitions."""
        return sorted((dict(partition) for partition in self._paths), key=partition_folder)

    def files(self, **partition: str) -> list[Path]:
        """Parquet files with the given partition values, in path order."""
        if partition.keys() == set(self.contract.partitioned_by):
            paths = self._paths.get(tuple((name, partition[name]) for name in self.contract.partitioned_by), [])
        else:
            wanted = set(partition.items())
            paths = [path for values, paths in self._paths.items() if wanted.issubset(values) for path in paths]
        return sorted(self.path / path for path in paths)

    def read(self, columns: Sequence[str] | None = None, **wanted: str) -> pa.Table:
        """Read the rows with the wanted values; digests, page checksums and the contract are checked.

        Args:
            columns: names to return, partition columns among them; all by default.
            wanted: values by column, e.g. `domain="d0"`; only files of these partitions are read. All rows by default.

        Returns:
            Rows in file order; if nothing matches, zero rows with the right schema.

        Raises:
            ContractError: a file violates the contract.
            KeyError: the contract has no such column.
            OSError: a file is missing or damaged.
        """
        schema, _ = self._schema(columns), self._schema(list(wanted))
        partition = {name: value for name, value in wanted.items() if name in self.contract.partitioned_by}
        filters = {name: value for name, value in wanted.items() if name not in partition}
        in_files = None if columns is None else list(dict.fromkeys([*columns, *filters]))
        tables = []
        for path in self.files(**partition):
            table = self._read_file(path, in_files)
            for name, value in filters.items():
                table = table.filter(pc.equal(table[name], literal(value)))
            tables.append(table.select(schema.names))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def batches(self, columns: Sequence[str] | None = None, **partition: str) -> Iterator[pa.Table]:
        """Read as `read` does, one file at a time."""
        for path in self.files(**partition):
            yield self._read_file(path, columns)

    def verify(self, parents: Sequence[Artifact] = ()) -> list[Violation]:
        """Check digests, sizes, the contract's rules, and references into the given parents."""
        broken = list(self._digest_violations())
        if broken:
            return broken
        by_name = {parent.contract.name: parent for parent in parents}

        @cache
        def target(reference: Reference, partition: tuple[tuple[str, str], ...]) -> pa.Table:
            return by_name[reference.contract].read(reference.read_columns, **dict(partition))

        for path in self.files():
            table, expected = read_rows(path, folder=self.path), self.entry(path).rows
            if table.num_rows != expected:
                broken.append(Violation(self._label(path), "rows", None, str(table.num_rows), str(expected)))
            broken += violations(self.contract, table, self._label(path))
            partition = parse_partition(path.relative_to(self.path).as_posix())
            for reference in self.contract.references:
                if reference.contract in by_name and not broken:
                    names = zip(reference.columns, reference.target_columns, strict=True)
                    partitioned_by = by_name[reference.contract].contract.partitioned_by
                    shared = tuple(
                        (parent_name, partition[name])
                        for name, parent_name in names
                        if name in partition and parent_name in partitioned_by
                    )
                    rows = self._read_file(path, None)
                    broken += reference_violations(reference, rows, target(reference, shared), self._label(path))
        return broken

    def _digest_violations(self) -> Iterator[Violation]:
        for entry in self.manifest.files:
            path = self.path / entry.path
            if not path.exists():
                yield Violation(self._label(path), "file", None, "missing", "present")
            elif not is_plain_file(path):
                yield Violation(self._label(path), "file", None, "a link or a device", "a plain file")
            elif (digest := file_digest(path)) != entry.sha256:
                yield Violation(self._label(path), "sha256", None, digest, entry.sha256)
        named = {self.path / name for name in (*self._entries, MANIFEST)}
        for path in sorted(set(self.path.rglob("[!.]*")) - named):
            if not path.is_dir():
                yield Violation(self._label(path), "file", None, "present", f"absent, as {MANIFEST} does not name it")

    def _read_file(self, path: Path, columns: Sequence[str] | None) -> pa.Table:
        schema = self._schema(columns)
        partition = parse_partition(path.relative_to(self.path).as_posix())
        in_file = None if columns is None else [name for name in columns if name not in partition]
        self.checked(path)
        table = read_rows(path, in_file, self.entry(path).rows, self.path)
        if in_file is None:
            check_table(self.contract, table, self._label(path))
        for name, value in partition.items():
            table = table.append_column(name, pa.repeat(literal(value), table.num_rows))
        return table.select(schema.names).cast(schema)

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        types = {column.name: column for column in self.contract.columns}
        wanted = list(types) if columns is None else columns
        for name in wanted:
            if name not in types:
                raise KeyError(f"{self.contract.name}: column {name!r} is unknown, must be one of {', '.join(types)}")
        return pa.schema([pa.field(name, types[name].type) for name in wanted])

    @cached_property
    def _digests(self) -> DigestCache:
        return DigestCache(self.folder)

    @cached_property
    def _entries(self) -> dict[str, FileEntry]:
        return {entry.path: entry for entry in self.manifest.files}

    @cached_property
    def _paths(self) -> dict[tuple[tuple[str, str], ...], list[str]]:
        """Paths of the Parquet files by partition, parsed only once: sixty domains have 3,540 pairs."""
        paths: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for entry in self.manifest.files:
            if entry.rows is not None:
                paths.setdefault(tuple(parse_partition(entry.path).items()), []).append(entry.path)
        return paths

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self.folder.absolute()).as_posix()

    def _label(self, path: Path) -> str:
        return f"{self.contract.name}/{path.relative_to(self.path).as_posix()}"


def read_blocks(artifact: Artifact, columns: list[str], rows: int = 1_024, **partition: str) -> Iterator[pa.Table]:
    """Read an artifact in tables of few rows, so that no whole file has to fit into memory.

    Args:
        artifact: what to read.
        columns: names of columns inside the files, in the order of the contract.
        rows: most rows of a table; all of them are from one file.
        partition: wanted values of partition columns; all by default.

    Raises:
        OSError: a file is missing or damaged.
    """
    schema = pa.schema([field for field in artifact.contract.file_schema if field.name in columns])
    for path in artifact.files(**partition):
        artifact.checked(path)
        with open_parquet(path, artifact.entry(path).rows, artifact.path) as file:
            for batch in file.iter_batches(rows, columns=columns):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        pa.default_memory_pool().release_unused()  # otherwise it keeps as much as a file's largest column


Artifacts = Mapping[str, Artifact]
"""Artifacts by their role in a run."""

NO_ARTIFACTS: Artifacts = MappingProxyType({})
