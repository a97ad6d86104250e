"""Scratch folders of an unfinished stage: each is complete or absent, so a kill loses at most the running tasks."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from data_contracts.store.files import flush, flush_all
from pipeline.compute.dtypes import Array

_LOADING = threading.Lock()


def ensure_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that `write` filled, now or in an earlier attempt.

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
