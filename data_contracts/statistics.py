"""Types of the statistics in the manifests of artifacts: what `Draft.statistics` holds, by contract."""

from __future__ import annotations

from typing import NotRequired, TypedDict

# ---- artifacts made by `model` ----


class InitialRowCounts(TypedDict):
    """Rows of a table by how a warm start began them: copied, averaged from neighbours, or drawn."""

    kept: int
    from_neighbours: int
    as_usual: int


WarmStartStatistics = TypedDict(
    "WarmStartStatistics", {"from": str, "tables": dict[str, InitialRowCounts], "held_out_rows_seen": int}
)
"""Of a checkpoint's warm start: key of the earlier checkpoint, rows by table, held-out rows it had trained on."""


class StepTraffic(TypedDict):
    """Steps of one kind, and the bytes that the first process sent to their all-reduces."""

    steps: int
    bytes: int


class CheckpointStatistics(TypedDict):
    """Statistics of a `checkpoint`.

    Attributes:
        epoch: the epoch that validated best; 0 is a warm start's.
        epochs: epochs that were trained.
        score: validation score of the best epoch; None if nothing can be validated.
        epoch_seconds: seconds of each epoch since the last start of the training.
        peak_memory_mib: the largest peak memory of a process, since that process started.
        memory_mib: peak memory of the first process while it trained.
        without_intra: domains without an intra table, and the share of their interactions that they share.
        warm_start: of the earlier checkpoint that tables came from.
        memory_mib_by_process, bytes_by_step: only of a training by several processes.
    """

    epoch: int
    epochs: int
    score: float | None
    epoch_seconds: list[float]
    peak_memory_mib: int
    memory_mib: NotRequired[int]
    without_intra: NotRequired[dict[str, float]]
    warm_start: NotRequired[WarmStartStatistics]
    memory_mib_by_process: NotRequired[list[int]]
    bytes_by_step: NotRequired[dict[str, StepTraffic]]


class NoStatistics(TypedDict):
    """Statistics of `blend`, `metrics`, `embeddings`, `recommendations` and `index`: none."""
