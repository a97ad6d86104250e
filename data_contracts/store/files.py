"""Files of an artifact: where those of a partition are, what their bytes hash to, their rows, and their damages."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.schema import Contract, check_table

T = TypeVar("T")
DAMAGES = (OSError, KeyError, pa.ArrowException, UnicodeDecodeError)
"""What reading a damaged Parquet file raises; KeyError where it lacks a column."""


def partition_folder(partition: Mapping[str, str]) -> str:
    """Hive folder of partition values, percent-encoded so that any text is one path component."""
    return "/".join(f"{name}={quote(value, safe='')}" for name, value in partition.items())


def partition_of(path: str) -> dict[str, str]:
    """Partition values in a hive path."""
    parts = (part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
    return {name: unquote(value) for name, value in parts}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one file, page checksums verified, and of its columns those named.

    `pq.read_table` would do, but makes a data set of each file, which takes longer than reading a small one.

    Raises:
        DAMAGES: the file is missing or damaged.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read(columns)
    return table if columns is None else table.select(columns)


def damaged(path: Path, folder: Path, error: Exception) -> OSError:
    """The error that tells of a file, of the artifact in a folder, that cannot be read."""
    return OSError(f"{path} is damaged: {error}; delete {folder} to make it again")


def neighbours_file(domain: str) -> str:
    """Path of a domain's rows, or with an empty name those of the union, in a `neighbours` artifact."""
    return f"rows/{quote(domain, safe='') or 'union'}.safetensors"


def tensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """What a safetensors file begins with; the tensors' bytes follow in the same order, without gaps.

    Args:
        tensors: name → type as safetensors calls it, shape, and bytes in all.
    """
    header, place = {}, 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def coalesce(tables: Iterable[T], rows: int, rows_of: Callable[[T], int] = attrgetter("num_rows")) -> Iterator[list[T]]:
    """Consecutive tables in groups of at least `rows` rows together, but for the last group.

    Args:
        tables: Arrow tables, or anything else that has rows.
        rows: least rows of a group.
        rows_of: the number of rows of a table.

    Yields:
        Groups that are not empty, though their tables may be; none without tables.
    """
    group: list[T] = []
    total = 0
    for table in tables:
        group.append(table)
        total += rows_of(table)
        if total >= rows:
            yield group
            group, total = [], 0
    if group:
        yield group


def single_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; a column of one chunk is not copied."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


_FLUSHES = 16
"""Files that are flushed at once: a disk takes many in the time of one."""


def write_checked(contract: Contract, table: pa.Table, path: Path, label: str) -> None:
    """Write one Parquet file of an artifact; under its name it is whole, whoever else writes the same one meanwhile.

    Args:
        contract: what the file promises.
        table: the contract's file columns, in any order.
        path: where it goes.
        label: how errors call it.

    Raises:
        ContractError: the table breaks the contract; nothing is written.
    """
    check_table(contract, table, label)
    temporary = _beside(path)
    write_parquet(table.select(contract.file_schema.names).cast(contract.file_schema), temporary)
    temporary.replace(path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write one Parquet file with page checksums and encodings that suit sorted numbers and floats."""
    encodings: dict[str, str] = {}
    dictionary = []
    for field in table.schema:
        name, inner = field.name, field.type
        while pa.types.is_list(inner):
            name, inner = f"{name}.list.element", inner.value_type
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


def write_atomically(contents: Mapping[Path, bytes]) -> None:
    """Replace files so that readers of each, and a kill at any moment, see its old bytes or the new ones."""
    temporary = {path: _beside(path) for path in contents}
    for path, content in contents.items():
        temporary[path].write_bytes(content)
    flush_all(temporary.values())
    for path in contents:
        temporary[path].replace(path)
    flush_all({path.parent for path in contents})


def require_writable(folder: Path, purpose: str, remedy: str) -> None:
    """Say in words, before anything is done, what the system would say by number.

    Raises:
        PermissionError: the folder is there and may only be read.
    """
    if folder.exists() and not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is read-only, must be writable to {purpose}; {remedy}")


def _beside(path: Path) -> Path:
    """A name that no other process or thread of this machine writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")


def flush_all(paths: Iterable[Path]) -> None:
    """As `flush`, of several files side by side."""
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for _ in pool.map(flush, paths):
            pass


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
