"""Artifacts read in pieces smaller than their files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.artifact import Artifact
from data_contracts.files import DAMAGES, damaged


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
