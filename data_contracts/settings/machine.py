"""Settings that no result depends on, and that are never part of a key: of the machine, and of tracking."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from data_contracts.settings.base import Settings


class ComputeSettings(Settings):
    """How a run uses the machine. Never part of a key: no result depends on it."""

    threads: int = Field(0, ge=0)
    """Threads for pipeline and training; 0 = as many as the process may use, in training shared among torchrun's."""
    memory_mib: int = Field(2048, ge=64)
    """Working memory per worker, in MiB, that blocks of the pipeline are sized for; EASE and SLIM may not exceed it."""
    state_seconds: float = Field(30.0, ge=0.0)
    """Seconds between two saved states of a training, at least; a killed one repeats what it did since. 0: saved after
    every epoch."""
    dask_scheduler: str | None = None
    """Address of a Dask scheduler; threads of this process without one."""


class TrackingSettings(Settings):
    """Where training shows its measures while it runs. Never part of a key."""

    tensorboard: str | None = None
    """Folder of TensorBoard event files, relative to the run's file; needs the package tensorboard."""
    mlflow: str | None = None
    """Tracking URI of MLflow, e.g. a server's address; needs the package mlflow."""

    @field_validator("mlflow")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        """Refuse passwords: a run's settings are kept in the store, where everybody may read them."""
        if uri is not None and urlsplit(uri).password is not None:
            raise ValueError("has a password in it, which would be kept in the store; set MLFLOW_TRACKING_PASSWORD")
        return uri
