"""How files are written: checked, in encodings that suit them, whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract, check_table

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
