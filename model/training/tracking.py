"""Tracking: a training's measures as curves elsewhere, while it runs; each point once, however often it is killed."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.settings import TrackingSettings
from model.learners.base import Measure

Track = Callable[[Sequence[Measure]], None]
"""Takes the measures of one epoch, or of several."""

_BATCH = 500
"""Points that MLflow is sent at once; it takes 1,000 at most."""
_TRAINING = "edda.training"


@dataclass(frozen=True)
class Tracking:
    """Where a training's curves go and what it is called there.

    Attributes:
        settings: the places.
        run: name of the run it belongs to.
        training: a name that no other training has: it ends in the checkpoint's key.
    """

    settings: TrackingSettings
    run: str
    training: str


NOWHERE = Tracking(TrackingSettings(), "", "")


@contextmanager
def tracked(tracking: Tracking, history: Sequence[Measure]) -> Iterator[Track]:
    """Show a training's curves until the block ends.

    What an earlier attempt had shown of later epochs than `history` knows will be trained again, to the same values.

    Args:
        tracking: where to.
        history: the measures of the epochs done before; they are shown where they are missing.

    Raises:
        ModuleNotFoundError: a package that the settings need is not installed.
    """
    settings = tracking.settings
    with ExitStack() as open_:
        tracks = []
        if settings.tensorboard is not None:
            tracks.append(open_.enter_context(_tensorboard(tracking, Path(settings.tensorboard))))
        if settings.mlflow is not None:
            tracks.append(open_.enter_context(_mlflow(tracking, settings.mlflow, history)))

        def track(measures: Sequence[Measure]) -> None:
            for show in tracks:
                show(measures)

        track(history)
        yield track


@contextmanager
def _tensorboard(tracking: Tracking, root: Path) -> Iterator[Track]:
    """Event files cannot be cut short, so an earlier attempt's are replaced; a reader that has them starts anew."""
    writer_of = _package("tensorboard", "torch.utils.tensorboard", str(root)).SummaryWriter
    folder = root / tracking.run / tracking.training
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with writer_of(str(folder), purge_step=0) as writer:

        def show(measures: Sequence[Measure]) -> None:
            for epoch, domain, metric, value in measures:
                writer.add_scalar(f"{metric}/{domain}", value, epoch)
            writer.flush()

        yield show


@contextmanager
def _mlflow(tracking: Tracking, uri: str, history: Sequence[Measure]) -> Iterator[Track]:
    """A run of MLflow per training, found again by its tag; it is sent the points it does not have."""
    mlflow = _package("mlflow", "mlflow", uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    number = _mlflow_run(client, tracking)
    names = {_mlflow_name(measure) for measure in history}
    known = {(name, point.step) for name in names for point in client.get_metric_history(number, name)}

    def show(measures: Sequence[Measure]) -> None:
        now = int(time.time() * 1000)
        points = [(_mlflow_name(measure), measure[0], measure[3]) for measure in measures]
        new = [mlflow.entities.Metric(name, value, now, epoch) for name, epoch, value in points
               if (name, epoch) not in known]  # fmt: skip
        for start in range(0, len(new), _BATCH):
            client.log_batch(number, metrics=new[start : start + _BATCH])
        known.update((name, epoch) for name, epoch, _ in points)

    try:
        yield show
    except BaseException:
        client.set_terminated(number, "FAILED")
        raise
    client.set_terminated(number, "FINISHED")


def _mlflow_run(client: Any, tracking: Tracking) -> str:
    experiment = client.get_experiment_by_name(tracking.run)
    place = experiment.experiment_id if experiment else client.create_experiment(tracking.run)
    for earlier in client.search_runs([place], filter_string=f"tags.`{_TRAINING}` = '{tracking.training}'"):
        client.update_run(earlier.info.run_id, status="RUNNING")
        return str(earlier.info.run_id)
    run = client.create_run(place, tags={_TRAINING: tracking.training}, run_name=tracking.training)
    return str(run.info.run_id)


def _mlflow_name(measure: Measure) -> str:
    """MLflow takes no other signs in a name: `recall-1/books`."""
    return "/".join(re.sub(r"[^\w\-. ]", "-", part) for part in (measure[2], measure[1]))


def _package(name: str, module: str, place: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"tracking.{name} is {place!r}, which needs the package {name}: {error}; install it: pip install {name}"
        ) from error
