"""How files are written: checked, in encodings that suit them, whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract, check_table


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
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
