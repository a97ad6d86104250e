"""Shares: what the first process of a training tells the others, and how they wait for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_contracts.settings import ComputeSettings, EvaluateSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import open_artifact
from data_contracts.train_settings import TrainSettings
from model.compute.column_parallel import Columns
from model.learners.divergence import DivergedError


@dataclass(frozen=True)
class Share:
    """All that a process needs to take part in a training; paths are those of the first process.

    Attributes:
        settings, seed, validation, compute: as `model.training.stage.train` takes them.
        parents: role → folder of the artifact.
        scratch: folder of the states that survive a kill.
    """

    settings: TrainSettings
    seed: int
    validation: EvaluateSettings
    parents: Mapping[str, str]
    compute: ComputeSettings
    scratch: str

    def artifacts(self) -> dict[str, Artifact]:
        """The artifacts that training reads."""
        return {role: open_artifact(Path(path)) for role, path in self.parents.items()}

    def as_text(self) -> str:
        """As JSON."""
        plain = {"seed": self.seed, "parents": dict(self.parents), "scratch": self.scratch}
        settings = {name: getattr(self, name).keyed() for name in ("settings", "validation", "compute")}
        return json.dumps(plain | settings)


def share_of(text: str) -> Share:
    """The share that a text states."""
    plain = json.loads(text)
    return Share(
        TrainSettings.model_validate(plain["settings"]),
        plain["seed"],
        EvaluateSettings.model_validate(plain["validation"]),
        plain["parents"],
        ComputeSettings.model_validate(plain["compute"]),
        plain["scratch"],
    )


def follow(columns: Columns, take_part: Callable[[Share, Columns], None]) -> None:
    """Take part in every training that the first process begins, until it has no more or is gone.

    A training that diverges does so in every process at once; the first one tells.
    """
    while (text := _next(columns)) is not None:
        with suppress(DivergedError):
            take_part(share_of(text), columns)


def dismiss(columns: Columns) -> None:
    """Let the other processes end."""
    columns.agreed(None)


def _next(columns: Columns) -> str | None:
    nothing: str | None = None
    try:
        return columns.agreed(nothing)
    except ConnectionError:
        return None
