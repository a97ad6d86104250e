"""Pieces of an unfinished stage: folders, and files with a report. A kill loses at most the running tasks.

Each piece is complete or absent, and has the digests of its files beside it. The next attempt compares them before it
goes on from a piece; one that is damaged is deleted and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from data_contracts.store.digests import file_digest
from data_contracts.store.files import flush, flush_all, write_atomically
from pipeline.compute.dtypes import Array

log = logging.getLogger(__name__)

_LOADING = threading.Lock()
_DIGESTS = ".digests.json"
"""File of a folder with the digest of every file that it was filled with, by path."""


def ensure_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that `write` filled, now or in an earlier attempt; a damaged one is made again.

    Arguments as for `fill_folder`.
    """
    if is_damaged(folder):
        _log_damage(folder)
        remove_folder(folder)

    def write_with_digests(unfinished: Path) -> None:
        write(unfinished)
        paths = [path for path in unfinished.rglob("*") if not path.is_dir()]
        digests = {path.relative_to(unfinished).as_posix(): file_digest(path) for path in paths}
        (unfinished / _DIGESTS).write_text(json.dumps(digests))

    return fill_folder(folder, write_with_digests)


def is_damaged(folder: Path) -> bool:
    """The folder exists, and a file that `ensure_folder` wrote there is missing or has other content."""
    if not folder.exists():
        return False
    try:
        digests: dict[str, str] = json.loads((folder / _DIGESTS).read_bytes())
        return any(file_digest(folder / name) != digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def remove_folder(folder: Path) -> None:
    """Delete a folder with all that is in it; a kill leaves all of it under its name, or nothing."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(aside)
    shutil.rmtree(aside)


def _log_damage(piece: Path) -> None:
    log.warning("%s, left by an earlier attempt, is damaged; making it again", piece)


def write_reports(reports: Mapping[Path, tuple[Any, Sequence[Path]]]) -> None:
    """Write what there is to say of files that are written and flushed, which makes them pieces.

    Args:
        reports: by the path of the report, a JSON value and the files, which lie in the same folder.
    """
    contents = {}
    for path, (value, files) in reports.items():
        report = {"value": value, "files": {file.name: file_digest(file) for file in files}}
        contents[path] = json.dumps({**report, "sha256": _value_digest(report)}).encode()
    write_atomically(contents)


def read_report(path: Path) -> Any | None:
    """The value of a report; None if there is none, or if it or one of its files is damaged."""
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_bytes())
        digest = report.pop("sha256")
        is_whole = digest == _value_digest(report) and report["files"] == {
            name: file_digest(path.with_name(name)) for name in report["files"]
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        is_whole = False
    if is_whole:
        return report["value"]
    _log_damage(path)
    path.unlink()
    return None


def _value_digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fill_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that `write` filled, now or earlier, whatever has happened to it since.

    It is filled under another name and then renamed. Where two tasks make the same folder at once, the first one's
    stays and the second one's is deleted, so what `write` leaves there may not depend on which is first.

    Args:
        folder: the folder; left unchanged where it exists.
        write: fills an empty folder with plain files.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(temporary)
        flush_all(temporary.iterdir())
        temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not (isinstance(error, OSError) and folder.exists()):
            raise
    flush(folder.parent)
    return folder


@contextmanager
def batch_writer(path: Path, schema: pa.Schema) -> Iterator[ipc.RecordBatchFileWriter]:
    """An Arrow file to write batches to, uncompressed, so that readers can map it and load only what they touch."""
    with pa.OSFile(str(path), "wb") as sink, ipc.new_file(sink, schema) as writer:
        yield writer


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file of one batch."""
    with batch_writer(path, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(table.num_rows, 1))


def map_batches(path: Path) -> ipc.RecordBatchFileReader:
    """An Arrow file whose batches are mapped: pages are read when touched."""
    return ipc.open_file(pa.memory_map(str(path)))


def map_table(path: Path) -> pa.Table:
    """All batches of an Arrow file as one mapped table; no file stays open."""
    with pa.memory_map(str(path)) as source:
        return ipc.open_file(source).read_all()


def load_array(path: Path, mode: Literal["r", "c"] | None = None) -> Array:
    """`np.load`, one thread at a time; `mode` maps the file.

    Two threads that parse headers at once may fail in CPython before 3.11.8 (its issue 106905).
    """
    with _LOADING:
        array: Array = np.load(path, mmap_mode=mode)
    return array
