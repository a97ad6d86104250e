"""Files of an artifact: where those of a partition are, what their bytes hash to, their rows, and their damages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

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
