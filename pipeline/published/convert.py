"""Adapters: published logs that `[[logs]]` cannot read as they are, made Parquet logs that it can.

Each goes through its files block by block. Lines that are no record, or that name what another file should know and
does not, are kept with file, line and reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.progress import Progress, silent
from pipeline.compute.scratch import made
from pipeline.logs.discovery import LogError
from pipeline.published.ali_ccp import _ali_ccp
from pipeline.published.blocks import GroupWriter, Part
from pipeline.published.movielens import _films_1m, _films_32m, _films_100k, _movielens
from pipeline.published.taobao_ad import _taobao_ad

LOGS, REJECTS = "logs.parquet", "rejects.parquet"
"""Files of a converted folder: the log, all columns text; what was rejected (file, line, reason, text)."""


class Converted(NamedTuple):
    """What a conversion left: the folder, rows of the log, rejected lines by reason."""

    folder: Path
    rows: int
    rejects: Mapping[str, int]


def convert(adapter: str, folder: Path, progress: Progress = silent) -> Converted:
    """Convert published files to `converted/logs.parquet` and `converted/rejects.parquet`; done before, it is kept.

    Args:
        adapter: one of ADAPTERS.
        folder: where the published files lie.
        progress: is told the lines read.

    Raises:
        FileNotFoundError: a published file is missing.
        LogError: a file is another than expected, empty or damaged.
    """

    def write(target: Path) -> None:
        lines = 0
        with GroupWriter(target / LOGS) as logs, GroupWriter(target / REJECTS) as rejects:
            for part in ADAPTERS[adapter](folder):
                if part.rows is not None:
                    logs.write(part.rows)
                rejects.write(part.rejects.add_column(0, "file", pa.repeat(part.file, part.rejects.num_rows)))
                lines += part.lines
                progress(lines, 0, "lines")
        if not (target / LOGS).exists():
            raise LogError(f"{folder}: the file that should become the log is empty; fetch it again")

    converted = made(folder / "converted", write)
    reasons: Counter[str] = Counter()
    for batch in pq.ParquetFile(converted / REJECTS).iter_batches(columns=["reason"]):
        reasons.update(batch.column(0).to_pylist())
    return Converted(converted, pq.read_metadata(converted / LOGS).num_rows, dict(sorted(reasons.items())))


ADAPTERS: Mapping[str, Callable[[Path], Iterator[Part]]] = {
    "ali-ccp": _ali_ccp,
    "taobao-ad": _taobao_ad,
    "ml-100k": _movielens(_films_100k, "u.data"),
    "ml-1m": _movielens(_films_1m, "ratings.dat"),
    "ml-32m": _movielens(_films_32m, "ratings.csv"),
}
"""By the data set's name, the parts of its files."""
