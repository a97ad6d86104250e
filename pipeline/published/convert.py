"""Conversion of published data sets that `[[logs]]` cannot read to Parquet logs that it can.

Each adapter reads its files block by block. Lines that cannot be read, or whose ids are missing in another file of the
data set, are written to the rejects with file, line and reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.progress import Progress, silent
from pipeline.compute.scratch import fill_folder
from pipeline.logs.discovery import LogError
from pipeline.published.ali_ccp import adapt_ali_ccp
from pipeline.published.blocks import AdaptedBlock, GroupWriter
from pipeline.published.movielens import build_adapter, read_films_1m, read_films_32m, read_films_100k
from pipeline.published.taobao_ad import adapt_taobao_ad

LOGS, REJECTS = "logs.parquet", "rejects.parquet"
"""Files of a converted folder: the log, all columns text, and the rejects (file, line, reason, text)."""


class Converted(NamedTuple):
    """Result of a conversion: the folder, rows of the log, rejected lines by reason."""

    folder: Path
    rows: int
    rejects: Mapping[str, int]


def convert(adapter: str, folder: Path, progress: Progress = silent) -> Converted:
    """Convert published files to `converted/logs.parquet` and `converted/rejects.parquet`, unless that was done before.

    Args:
        adapter: one of ADAPTERS.
        folder: of the published files.
        progress: called with the lines read.

    Raises:
        FileNotFoundError: a published file is missing.
        LogError: a file has an unexpected form, is empty or damaged.
    """

    def write(target: Path) -> None:
        lines = 0
        with GroupWriter(target / LOGS) as logs, GroupWriter(target / REJECTS) as rejects:
            for block in ADAPTERS[adapter](folder):
                if block.rows is not None:
                    logs.write(block.rows)
                rejects.write(block.rejects.add_column(0, "file", pa.repeat(block.file, block.rejects.num_rows)))
                lines += block.lines
                progress(lines, 0, "lines")
        if not (target / LOGS).exists():
            raise LogError(f"{folder}: the file that should become the log is empty; fetch it again")

    converted = fill_folder(folder / "converted", write)
    reasons: Counter[str] = Counter()
    for batch in pq.ParquetFile(converted / REJECTS).iter_batches(columns=["reason"]):
        reasons.update(batch.column(0).to_pylist())
    return Converted(converted, pq.read_metadata(converted / LOGS).num_rows, dict(sorted(reasons.items())))


ADAPTERS: Mapping[str, Callable[[Path], Iterator[AdaptedBlock]]] = {
    "ali-ccp": adapt_ali_ccp,
    "taobao-ad": adapt_taobao_ad,
    "ml-100k": build_adapter(read_films_100k, "u.data"),
    "ml-1m": build_adapter(read_films_1m, "ratings.dat"),
    "ml-32m": build_adapter(read_films_32m, "ratings.csv"),
}
"""Name of a data set → its adapter."""
