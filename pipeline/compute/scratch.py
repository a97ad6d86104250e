"""Scratch: folders of an unfinished stage, whole or absent, so that a kill loses at most the task that it struck."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from data_contracts.store.files import flush, flush_all


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


Array = npt.NDArray[Any]

_SMALL = 1000

_LOADING = threading.Lock()


def is_small(nodes: int) -> bool:
    """Of one or two domains with so many nodes keeping arrays in files would take longer than the work on them."""
    return nodes <= _SMALL


class Memory:
    """Stands in for a folder: arrays by name, in this process alone."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._inner: dict[str, Memory] = {}

    def __truediv__(self, name: str) -> Memory:
        return self._inner.setdefault(name, Memory())

    def exists(self) -> bool:
        """Arrays were put here."""
        return bool(self.arrays)


Folder = Path | Memory
"""Where arrays are kept."""


def load_array(path: Path, mode: Literal["r", "c"] | None = None) -> Array:
    """As `np.load`, one thread at a time; `mode` maps the file.

    Two threads that parse headers at once may fail in CPython before 3.11.8 (its issue 106905).
    """
    with _LOADING:
        array: Array = np.load(path, mmap_mode=mode)
    return array


def spill_arrays(folder: Folder, **arrays: Array) -> None:
    """Write arrays to a folder, all of them or none; a folder that exists is left as it is."""
    if isinstance(folder, Memory):
        folder.arrays = arrays
        return

    def write(folder: Path) -> None:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    made(folder, write)


def spilled_arrays(folder: Folder) -> dict[str, Array]:
    """The arrays of a folder by name, mapped into memory; what is written to them does not reach the files."""
    if isinstance(folder, Memory):
        return folder.arrays
    return {path.stem: np.asarray(load_array(path, mode="c")) for path in sorted(folder.glob("*.npy"))}


def dropped(folder: Folder) -> None:
    """Remove a folder's arrays."""
    if isinstance(folder, Memory):
        folder.arrays = {}
    else:
        shutil.rmtree(folder)
