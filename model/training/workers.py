"""Workers: the other processes of a training wait for jobs from the first process and do their columns' part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.train import CheckpointSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import open_artifact
from model.compute.column_parallel import ColumnParallel
from model.learners.divergence import DivergedError


@dataclass(frozen=True)
class TrainingJob:
    """Everything that another process needs to take part in a training; paths are those of the first process.

    Attributes:
        settings, compute: as for `model.training.stage.train`.
        parents: role → folder of the artifact.
        scratch: folder of the states that survive a kill.
    """

    settings: CheckpointSettings
    parents: Mapping[str, str]
    compute: ComputeSettings
    scratch: str

    def artifacts(self) -> dict[str, Artifact]:
        """The artifacts that the training reads."""
        return {role: open_artifact(Path(path)) for role, path in self.parents.items()}

    def to_json(self) -> str:
        """The job as JSON."""
        settings, compute = (each.model_dump(mode="json") for each in (self.settings, self.compute))
        job = {"settings": settings, "parents": dict(self.parents), "compute": compute, "scratch": self.scratch}
        return json.dumps(job)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The job that was written by `to_json`."""
        job = json.loads(text)
        settings = CheckpointSettings.model_validate(job["settings"])
        return cls(settings, job["parents"], ComputeSettings.model_validate(job["compute"]), job["scratch"])


def worker_loop(processes: ColumnParallel, train_worker: Callable[[TrainingJob, ColumnParallel], None]) -> None:
    """Take part in every training that the first process starts, until it stops its workers or is gone.

    A training that diverges does so in every process at once; the first one reports it.
    """
    while True:
        no_job: str | None = None
        try:
            text = processes.broadcast(no_job)
        except ConnectionError:
            return
        if text is None:
            return
        with suppress(DivergedError):
            train_worker(TrainingJob.from_json(text), processes)


def stop_workers(processes: ColumnParallel) -> None:
    """Let the other processes leave their `worker_loop`."""
    processes.broadcast(None)
