"""SQL answers the right rows of a damaged Parquet file, or says that it is damaged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import rehash

from data_contracts.contracts import PAIRS
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.inspection.sql import QueryError, ask

ROWS = [
    {"target_domain": "b", "source_node": node, "target_node": node * 7 % 200, "kind": "user",
     "similarity": 1 / (node + 1), "rank": 1, "identity": False}
    for node in range(200)
]  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> Artifact:
    table = pa.Table.from_pylist(ROWS, schema=PAIRS.file_schema)
    return Store(tmp_path).make(PAIRS, {}, {}, lambda draft: draft.write(table, source_domain="a"))


def _rows(pairs: Artifact) -> list[tuple[Any, ...]]:
    with ask({"pairs": pairs}, "select source_node, target_node, kind, similarity from pairs order by all") as result:
        return list(result.rows)


def test_no_flipped_bit_gives_other_rows(pairs):
    right, path, draw = _rows(pairs), pairs.files()[0], random.Random(1)
    assert right == [(row["source_node"], row["target_node"], "user", pytest.approx(row["similarity"])) for row in ROWS]
    whole = path.read_bytes()
    for _ in range(200):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(
            OSError, match=f"^{path} is damaged: sha256 is [0-9a-f]{{64}}, must be [0-9a-f]{{64}}; delete"
        ):
            _rows(pairs)
    path.write_bytes(whole)
    assert _rows(pairs) == right


@pytest.mark.parametrize("column", range(1, 5))
def test_a_page_that_changes_behind_its_digest_is_refused(pairs, column):
    """As if the disk changed it between hashing and reading."""
    path = pairs.files()[0]
    chunk = pq.read_metadata(path).row_group(0).column(column)
    changed = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    changed[start + chunk.total_compressed_size - 2] ^= 4
    path.write_bytes(changed)
    with pytest.raises(QueryError, match="could not verify page integrity"):
        _rows(rehash(pairs))
