"""Ingest: raw logs → interactions and rejects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_contracts.artifact import Artifact
from data_contracts.contracts import BEFORE, INTERACTIONS, REJECTS
from data_contracts.progress import Progress, silent
from data_contracts.settings import ComputeSettings, IngestSettings
from data_contracts.store import Draft, Store
from pipeline.logs import LogFile


def ingest_inputs(settings: IngestSettings, logs: Sequence[LogFile]) -> dict[str, Any]:
    """What the result depends on: settings, and each file's content, name, domain, split and way of reading.

    Where the files lie is no part of it.
    """
    files = [
        {
            "name": log.name,
            "sha256": log.sha256,
            "domain": log.domain,
            "split": log.split,
            "source": {name: value for name, value in log.source.keyed().items() if name != "path"},
        }
        for log in sorted(logs, key=lambda log: log.name)
    ]
    return {"settings": settings.keyed(), "files": files}


def ingest(
    store: Store,
    settings: IngestSettings,
    logs: Sequence[LogFile],
    compute: ComputeSettings,
    progress: Progress = silent,
    before: Mapping[str, Artifact] = {},
) -> dict[str, Artifact]:
    """Read, clean, merge, split and number raw logs.

    Files are cut side by side, a block of each at a time; then buckets of users are sifted side by side, and files of
    the interactions put together. What is finished stays when the stage is killed. The rejects are published first,
    and also where the run then fails for too many of them.

    Args:
        store: where the artifacts go.
        settings: how to split, and what to drop.
        logs: from `pipeline.logs.find_logs`.
        compute: threads or Dask scheduler, and memory for blocks and buckets. Dask workers need the store's folder and
            the logs under the same paths.
        progress: told after each file, bucket, and part of the interactions.
        before: in an update the earlier `nodes` and `interactions`. Users and items keep the order of their numbers,
            others follow in the order of their ids; pairs that were trained on stay in training (protocol clean).

    Returns:
        `interactions` and `rejects`. Without any usable row, interactions without partitions.

    Raises:
        LogError: a file cannot be read as its source says, or too large a share of the rows is malformed.
    """
    inputs = ingest_inputs(settings, logs)

    def sifted(draft: Draft) -> Any:
        from pipeline.sifted import sift_logs  # noqa: PLC0415 - Dask is slow to import and not needed to find artifacts

        return sift_logs(draft.scratch, settings, logs, before, compute, progress)

    def write_rejects(draft: Draft) -> None:
        sifted(draft).write_rejects(draft)

    def write(draft: Draft) -> None:
        logs_sifted = sifted(draft)
        rejects = store.make(REJECTS, inputs, trained, logs_sifted.write_rejects)
        logs_sifted.require_few_malformed(settings.rejected_share_at_most, rejects.path)
        logs_sifted.write_interactions(draft)

    parents = {f"{role}-{BEFORE}": artifact for role, artifact in before.items()}
    trained = {role: artifact for role, artifact in parents.items() if artifact.contract is INTERACTIONS}
    interactions = store.make(INTERACTIONS, inputs, parents, write)
    return {"interactions": interactions, "rejects": store.make(REJECTS, inputs, trained, write_rejects)}
