"""Raw log files in a folder, and their ingest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.settings.ingest import IngestSettings, SplitSettings
from data_contracts.settings.logs import LogSource
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import number_nodes
from pipeline.ingest.stage import ingest
from pipeline.logs.discovery import find_logs

COMPUTE = ComputeSettings(threads=1)
KEEP: dict[str, Any] = {"cold": "keep", "rejected_share_at_most": 1.0, "kept_share_at_least": 0.0}
ALL_TRAIN = SplitSettings(valid_share=0.0, test_share=0.0)
GIVEN = SplitSettings(method="given")
BY_PATH = r"/(?P<domain>[^/_]+)_(?P<split>train|val|test)\.csv$"


CSV, TSV = b"user_id,item_id\nu1,i1\nu2,i2\n", b"user_id\titem_id\nu1\ti1\nu2\ti2\n"
JSON = b'{"user_id": "u1", "item_id": "i1"}\n{"item_id": "i2", "user_id": "u2"}\n'


class RawLogs:
    """A folder of logs and a store."""

    def __init__(self, folder: Path) -> None:
        self.logs, self.store = folder / "logs", Store(folder / "store")
        self.logs.mkdir(exist_ok=True)

    def put(self, name: str, content: str | bytes) -> None:
        path = self.logs / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def ingest(self, source: LogSource, compute: ComputeSettings | None = None, **options: Any) -> dict[str, Any]:
        """Ingest the logs; by default everything is train, and no row is too cold or too malformed."""
        stage = IngestSettings(**{"split": ALL_TRAIN, **KEEP, **options})
        logs = find_logs([source], self.logs)
        return ingest(self.store, stage, logs, compute or ComputeSettings(threads=2))

    def rows(self, source: LogSource, *columns: str, **options: Any) -> list[tuple[Any, ...]]:
        table = self.ingest(source, **options)["interactions"].read(list(columns))
        return [tuple(row.values()) for row in table.to_pylist()]

    def rejects(self, source: LogSource, **options: Any) -> list[tuple[int, str, str]]:
        table = self.ingest(source, **options)["rejects"].read(["line", "reason", "text"])
        return [tuple(row.values()) for row in table.to_pylist()]


def source(path: str, **keys: Any) -> LogSource:
    return LogSource(**{"path": path, "domain": "d", **keys})


PAIR = ("user_id", "item_id")


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def numbered(store: Store, folder: Path, method: str, before: Mapping[str, Artifact] = {}) -> tuple[Artifact, Artifact]:
    """Interactions and nodes of all logs in a folder."""
    split = SplitSettings(method=method, valid_from=2, test_from=3)
    columns = {"domain": "domain", "timestamp": "time"}
    logs = find_logs((LogSource(path=f"{folder}/*.csv", columns=columns),), folder)
    settings = IngestSettings(split=split, cold="keep", kept_share_at_least=0)
    made = ingest(store, settings, logs, COMPUTE, previous=before)["interactions"]
    return made, number_nodes(store, GraphSettings(), {"interactions": made}, COMPUTE)
