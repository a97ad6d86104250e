"""Tracking: a training's measures as curves in TensorBoard or MLflow, each point once however often it is killed."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.settings.machine import TrackingSettings
from model.learners.base import Measure

Track = Callable[[Sequence[Measure]], None]
"""Shows the measures of one or several epochs."""

_BATCH = 500
"""Points sent to MLflow at once; it takes 1,000 at most."""
_TRAINING = "edda.training"


@dataclass(frozen=True)
class Tracking:
    """Where a training's curves are shown, and under which names.

    Attributes:
        settings: the destinations.
        run: name of the run that the training belongs to.
        training: a unique name, which ends in the checkpoint's key.
        listener: called with the measures of the epochs done before, and of each new one when its state is saved; an
            error that it raises ends the training there.
    """

    settings: TrackingSettings
    run: str
    training: str
    listener: Track | None = None


NOWHERE = Tracking(TrackingSettings(), "", "")


@contextmanager
def tracked(tracking: Tracking, history: Sequence[Measure]) -> Iterator[Track]:
    """Show a training's curves until the block ends.

    A killed attempt may have shown later epochs than `history` has; they will be trained again, to the same values.

    Args:
        tracking: the destinations.
        history: the measures of the epochs done before; those that are missing there are shown first.

    Raises:
        ModuleNotFoundError: a package that the settings need is not installed.
    """
    settings = tracking.settings
    with ExitStack() as stack:
        tracks = []
        if settings.tensorboard is not None:
            tracks.append(stack.enter_context(_tensorboard(tracking, Path(settings.tensorboard))))
        if settings.mlflow is not None:
            tracks.append(stack.enter_context(_mlflow(tracking, settings.mlflow, history)))

        if tracking.listener is not None:
            tracks.append(tracking.listener)

        def track(measures: Sequence[Measure]) -> None:
            for show in tracks:
                show(measures)

        track(history)
        yield track


@contextmanager
def _tensorboard(tracking: Tracking, root: Path) -> Iterator[Track]:
    """Event files cannot be truncated, so those of an earlier attempt are replaced; their readers start anew."""
    writer_class = _import_package("tensorboard", "torch.utils.tensorboard", str(root)).SummaryWriter
    folder = root / tracking.run / tracking.training
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with writer_class(str(folder), purge_step=0) as writer:

        def show(measures: Sequence[Measure]) -> None:
            for epoch, domain, metric, value in measures:
                writer.add_scalar(f"{metric}/{domain}", value, epoch)
            writer.flush()

        yield show


@contextmanager
def _mlflow(tracking: Tracking, uri: str, history: Sequence[Measure]) -> Iterator[Track]:
    """A training is a run of MLflow, found again by its tag; only points that it lacks are sent."""
    mlflow = _import_package("mlflow", "mlflow", uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    run_id = _find_or_create_run(client, tracking)
    names = {_mlflow_name(measure) for measure in history}
    known = {(name, point.step) for name in names for point in client.get_metric_history(run_id, name)}

    def show(measures: Sequence[Measure]) -> None:
        now = int(time.time() * 1000)
        points = [(_mlflow_name(measure), measure[0], measure[3]) for measure in measures]
        missing = [point for point in points if point[:2] not in known]
        new = [mlflow.entities.Metric(name, value, now, epoch) for name, epoch, value in missing]
        for start in range(0, len(new), _BATCH):
            client.log_batch(run_id, metrics=new[start : start + _BATCH])
        known.update((name, epoch) for name, epoch, _ in points)

    try:
        yield show
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _find_or_create_run(client: Any, tracking: Tracking) -> str:
    experiment = client.get_experiment_by_name(tracking.run)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(tracking.run)
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{_TRAINING}` = '{tracking.training}'")
    if runs:
        client.update_run(runs[0].info.run_id, status="RUNNING")
        return str(runs[0].info.run_id)
    run = client.create_run(experiment_id, tags={_TRAINING: tracking.training}, run_name=tracking.training)
    return str(run.info.run_id)


def _mlflow_name(measure: Measure) -> str:
    """Name of a curve, in characters that MLflow accepts: `recall-1/books`."""
    return "/".join(re.sub(r"[^\w\-. ]", "-", part) for part in (measure[2], measure[1]))


def _import_package(name: str, module: str, destination: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tracking.{name} is {destination!r}, which needs the package {name}: {error}; "
            f"install it: pip install {name}"
        ) from error
