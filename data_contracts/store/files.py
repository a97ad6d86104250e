"""Files of an artifact: partition folders, Parquet read with checks, and files written atomically."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import socket
import stat
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.schema import Contract, check_table

T = TypeVar("T")
_READ_ERRORS = (OSError, KeyError, pa.ArrowException, UnicodeDecodeError, OverflowError)
"""What reading a damaged Parquet file raises; KeyError if it lacks a column."""


class DamagedFileError(OSError, ValueError):
    """A file is not what was written there: which one, what is wrong with it, and what to do; one line."""


def partition_folder(partition: Mapping[str, str]) -> str:
    """Hive folder of partition values, percent-encoded so that any text becomes one path component."""
    return "/".join(f"{name}={quote(value, safe='')}" for name, value in partition.items())


def parse_partition(path: str) -> dict[str, str]:
    """Partition values in a hive path."""
    pairs = (folder.split("=", 1) for folder in path.split("/")[:-1] if "=" in folder)
    return {name: unquote(value) for name, value in pairs}


def is_plain_file(path: Path) -> bool:
    """It is a file and no link, so that opening it neither waits nor leads elsewhere."""
    return stat.S_ISREG(path.lstat().st_mode)


@contextmanager
def open_parquet(path: Path, rows: int | None = None, folder: Path | None = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of an artifact. Page checksums are verified when it is read, in the block.

    Args:
        path: the file.
        rows: how many it must have, by its artifact's manifest; None if there is none.
        folder: the artifact's, by default the file's.

    Raises:
        DamagedFileError: the file is missing or damaged, or what the block reads of it is.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if rows is not None and file.metadata.num_rows != rows:
                raise pa.ArrowInvalid(f"it has {file.metadata.num_rows} rows, must have {rows} by its manifest")
            yield file
    except DamagedFileError:
        raise
    except _READ_ERRORS as error:
        raise damaged_file_error(path, folder or path.parent, error) from error


def read_rows(
    path: Path, columns: Sequence[str] | None = None, rows: int | None = None, folder: Path | None = None
) -> pa.Table:
    """Read the rows of one file and verify page checksums.

    `pq.read_table` makes a data set of each file, which takes longer than reading a small one.

    Args:
        path: the file.
        columns: names to return, in this order; all by default.
        rows, folder: as for `open_parquet`.

    Raises:
        DamagedFileError: the file is missing or damaged.
    """
    with open_parquet(path, rows, folder) as file:
        table = file.read(columns)
        return table if columns is None else table.select(columns)


def damaged_file_error(path: Path, folder: Path | str, error: object) -> DamagedFileError:
    """The error to raise for a file that cannot be read, of the artifact in a folder; one line."""
    return DamagedFileError(f"{path} is damaged: {one_line(error)}; delete {folder} to make it again")


def fold_name(name: str) -> str:
    """A name without case, blanks and ways to compose letters: what people take for the same."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def show_name(name: str) -> str:
    """A name as a message shows it: with escapes where composed letters would look like others."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def one_line(problem: object) -> str:
    """A problem in one line; that of the operating system without its number and file."""
    if isinstance(problem, KeyError) and problem.args:
        problem = f"it lacks {problem.args[0]}"
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return "; ".join(text.splitlines())


def neighbours_file(domain: str) -> str:
    """Path of a domain's rows in a `neighbours` artifact; an empty name means the union of all domains."""
    return f"rows/{quote(domain, safe='') or 'union'}.safetensors"


def tensors_header(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """Header of a safetensors file; the tensors' bytes must follow in the same order, without gaps.

    Args:
        tensors: name → dtype as safetensors spells it, shape, and size in bytes.
    """
    header, offset = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def coalesce(tables: Iterable[T], rows: int, rows_of: Callable[[T], int] = attrgetter("num_rows")) -> Iterator[list[T]]:
    """Group consecutive tables until a group has at least `rows` rows; the last group may have fewer.

    Args:
        tables: Arrow tables, or anything else that has rows.
        rows: least rows of a group.
        rows_of: returns the number of rows of a table.

    Yields:
        Lists of at least one table, which may be empty itself; nothing if there are no tables.
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
    """A column as one array, without a copy if it has only one chunk."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


_PARALLEL_FLUSHES = 16
"""Files that are flushed at once: a disk flushes many in the time of one."""


def write_checked(contract: Contract, table: pa.Table, path: Path, label: str) -> None:
    """Write one Parquet file of an artifact atomically, even if several processes write the same one.

    Args:
        contract: the rules that the rows must follow.
        table: the contract's file columns, in any order.
        path: where to write the file.
        label: the file's name in errors.

    Raises:
        ContractError: the table violates the contract; nothing is written.
    """
    check_table(contract, table, label)
    temporary = _temporary_path(path)
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
    """Replace files, each atomically: readers see the old or the new content, even after a kill at any moment."""
    temporary = {path: _temporary_path(path) for path in contents}
    try:
        for path, content in contents.items():
            temporary[path].write_bytes(content)
        flush_all(temporary.values())
        for path in contents:
            temporary[path].replace(path)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise
    flush_all({path.parent for path in contents})


def write_alone(path: Path, content: bytes) -> None:
    """Replace a file as `write_atomically` does, and remove what killed processes have left of earlier tries."""
    for abandoned in abandoned_files(path.parent, path.name):
        abandoned.unlink(missing_ok=True)
    write_atomically({path: content})


def require_writable(folder: Path, purpose: str, remedy: str) -> None:
    """Check before any work that a folder may be written to, so that the error says what to do.

    Raises:
        PermissionError: the folder exists and is read-only.
    """
    if folder.exists() and not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is read-only, must be writable to {purpose}; {remedy}")


def _temporary_path(path: Path) -> Path:
    """A path in the same folder that no other process or thread writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.{_machine()}")


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.\d+(\.(?P<machine>[0-9a-f]{8}))?")
_ABANDONED_SECONDS = 3_600.0
"""Age from which a temporary file is nobody's if its process may be elsewhere; writing takes seconds."""


@cache
def _machine() -> str:
    """Digest of what process numbers count in: the machine since it was started, and the container's name space."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        space = boot = ""
    return hashlib.sha256(f"{socket.gethostname()} {boot} {space}".encode()).hexdigest()[:8]


def abandoned_files(folder: Path, name: str = "") -> list[Path]:
    """Temporary files that killed processes have left in a folder, of any file or of the one with this name.

    Those of other machines, and those of edda 0.1, which do not name theirs, count after an hour.
    """
    matches = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.glob(f".{glob.escape(name)}*"))
    return sorted(path for path, match in matches if match and match["name"] == (name or match["name"])
                  and _is_abandoned(path, int(match["process"]), match["machine"]))  # fmt: skip


def _is_abandoned(path: Path, process: int, machine: str | None) -> bool:
    if machine == _machine():
        return not psutil.pid_exists(process)
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS
    return False


def flush_all(paths: Iterable[Path]) -> None:
    """Flush several files or folders, in parallel."""
    with ThreadPoolExecutor(_PARALLEL_FLUSHES) as pool:
        for _ in pool.map(flush, paths):
            pass


def flush(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
