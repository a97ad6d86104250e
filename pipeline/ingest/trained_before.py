"""Trained before: in an update, the pairs that were trained on, cut by user as the logs are.

A pair that the earlier tables have learned from would be no honest test, so it stays in training, whatever the split of
today would do with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import TRAIN
from data_contracts.store.artifact import Artifact, read_blocks
from pipeline.compute.scratch import made
from pipeline.ingest.partition import RunWriter
from pipeline.logs.cleaning import CLEAN_SCHEMA

_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class TrainedPairs:
    """The train rows of one domain of earlier interactions, and where their runs go."""

    interactions: Artifact
    domain: str
    folder: Path


def cut_trained(pairs: TrainedPairs) -> Path:
    """Write the pairs as runs, unless an earlier attempt did: a folder for `pipeline.ingest.partition.Runs`."""
    return made(pairs.folder, partial(_cut, pairs))


def _cut(pairs: TrainedPairs, folder: Path) -> None:
    with RunWriter(folder) as runs:
        columns = ["user_id", "item_id", "split"]
        for block in read_blocks(pairs.interactions, columns, _BLOCK_ROWS, domain=pairs.domain):
            trained = block.filter(pc.equal(block["split"], TRAIN))
            names = pa.DictionaryArray.from_arrays(pa.nulls(trained.num_rows, pa.int32()).fill_null(0), [pairs.domain])
            columns_by_name = {"domain": names, "user_id": trained["user_id"], "item_id": trained["item_id"]}
            missing = (name for name in CLEAN_SCHEMA.names if name not in columns_by_name)
            columns_by_name |= {name: pa.nulls(trained.num_rows, CLEAN_SCHEMA.field(name).type) for name in missing}
            runs.write(pa.table(columns_by_name).select(CLEAN_SCHEMA.names).cast(CLEAN_SCHEMA))
