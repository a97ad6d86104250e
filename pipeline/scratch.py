"""Scratch: folders of an unfinished stage, whole or absent, so that a kill loses at most the task that it struck."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import ipc

from data_contracts.writing import flush, flush_all


def made(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder that `write` fills, now or in an earlier attempt.

    It is filled under another name and then renamed. Where two tasks make the same folder at once, the first one's
    stays and the second one's goes, so what `write` leaves there may not depend on who is first.

    Args:
        folder: the folder; taken as it is where it exists.
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
    """An Arrow file to write batches to, uncompressed, so that readers can map it and touch only what they need."""
    with pa.OSFile(str(path), "wb") as sink, ipc.new_file(sink, schema) as writer:
        yield writer


def write_table(path: Path, table: pa.Table) -> None:
    """Keep a table as an Arrow file of one batch."""
    with batch_writer(path, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(table.num_rows, 1))


def mapped(path: Path) -> ipc.RecordBatchFileReader:
    """An Arrow file whose batches are pages of the file, read when touched."""
    return ipc.open_file(pa.memory_map(str(path)))


def mapped_table(path: Path) -> pa.Table:
    """All batches of an Arrow file, as `mapped`; no file stays open."""
    with pa.memory_map(str(path)) as source:
        return ipc.open_file(source).read_all()
