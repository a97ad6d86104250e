"""The pairs that an update's tables were trained on, partitioned by user as the logs are.

The earlier tables have learned from such a pair, which would make it no honest test. So it stays in training, whatever
the split of the update would do with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import TRAIN
from data_contracts.store.artifact import Artifact, read_blocks
from pipeline.compute.scratch import ensure_folder
from pipeline.ingest.partition import SortedRunWriter
from pipeline.logs.cleaning import CLEAN_SCHEMA

_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class TrainedPairsTask:
    """The train rows of one domain of earlier interactions, to be written as runs to a folder."""

    interactions: Artifact
    domain: str
    folder: Path


def partition_trained_pairs(task: TrainedPairsTask) -> Path:
    """Write the pairs as runs, unless an earlier attempt did: a folder for `pipeline.ingest.partition.SortedRuns`."""
    return ensure_folder(task.folder, partial(_write_runs, task))


def _write_runs(task: TrainedPairsTask, folder: Path) -> None:
    with SortedRunWriter(folder) as runs:
        columns = ["user_id", "item_id", "split"]
        for block in read_blocks(task.interactions, columns, _BLOCK_ROWS, domain=task.domain):
            trained = block.filter(pc.equal(block["split"], TRAIN))
            domain = pa.DictionaryArray.from_arrays(pa.nulls(trained.num_rows, pa.int32()).fill_null(0), [task.domain])
            columns_by_name = {"domain": domain, "user_id": trained["user_id"], "item_id": trained["item_id"]}
            missing = (name for name in CLEAN_SCHEMA.names if name not in columns_by_name)
            columns_by_name |= {name: pa.nulls(trained.num_rows, CLEAN_SCHEMA.field(name).type) for name in missing}
            runs.write(pa.table(columns_by_name).select(CLEAN_SCHEMA.names).cast(CLEAN_SCHEMA))
