"""Artifacts as Arrow data sets, for engines that read only the columns and files that a query needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from data_contracts.store.artifact import Artifact
from data_contracts.store.files import damaged_file_error, parse_partition

PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Parquet whose page checksums are verified."""


class ArtifactDataset(ds.FileSystemDataset):  # type: ignore[misc] # pyarrow has no types
    """The rows of an artifact, with columns in the contract's order.

    Nothing is fetched or opened before a scan. Partition values come from the paths and stay text, so `0042` does not
    become 42.

    Attributes:
        error: why a scan was refused. An engine that scans reports it as an error of its own, without its type.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.error: OSError | None = None
        self._artifact = artifact
        schema = pa.schema([pa.field(column.name, column.type) for column in artifact.contract.columns])
        paths = sorted(entry.path for entry in artifact.manifest.files if entry.rows is not None)
        super().__init__([self._fragment(path) for path in paths], schema, PARQUET, LocalFileSystem())

    def scanner(self, *arguments: Any, **options: Any) -> ds.Scanner:
        """Read columns and rows as `pyarrow.dataset.Dataset.scanner` does.

        Raises:
            OSError: a file is missing or damaged.
        """
        try:
            for fragment in self.get_fragments(options.get("filter")):
                self._check(fragment)
        except OSError as error:
            self.error = error
            raise
        return super().scanner(*arguments, **options)

    def _check(self, fragment: ds.ParquetFileFragment) -> None:
        path, contract = self._artifact.checked(Path(fragment.path)), self._artifact.contract
        try:
            rows, schema = fragment.metadata.num_rows, fragment.physical_schema
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise damaged_file_error(path, self._artifact.folder, error) from error
        if rows != (expected := self._artifact.entry(path).rows):
            problem = f"it has {rows} rows, must have {expected} by its manifest"
            raise damaged_file_error(path, self._artifact.folder, problem)
        if path.name.startswith("part-") and schema.names != contract.file_schema.names:
            names = f"{', '.join(schema.names)}, must be {', '.join(contract.file_schema.names)}"
            raise damaged_file_error(path, self._artifact.folder, f"its columns are {names}")

    def _fragment(self, path: str) -> ds.ParquetFileFragment:
        values = [ds.field(name) == value for name, value in parse_partition(path).items()]
        partition = values[0] if values else None
        for value in values[1:]:
            partition &= value
        return PARQUET.make_fragment(str(self._artifact.folder / path), LocalFileSystem(), partition)
