import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tiny_world import Tiny, seeded

from data_contracts.settings.machine import ComputeSettings, TrackingSettings
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from model.learners.base import Measure
from model.training.stage import train
from model.training.tracking import Tracking, tracked

SMALL = TrainSettings(width=8, epochs=5, batch_size=64, learning_rate=0.01, alignment=0.3)
Points = list[tuple[str, int, float]]


def fitted(world: Tiny, settings: TrackingSettings, stops: tuple[int, ...] = ()) -> Artifact:
    """Train, interrupted after each of some epochs as by a kill between two epochs."""
    tracking = Tracking(settings, "my-run", "checkpoint-7")

    def stop(done: int, total: int, unit: str, note: str = "") -> None:
        if done in stops:
            raise KeyboardInterrupt

    rest = world.parents, ComputeSettings(threads=1, state_seconds=0), stop
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            train(world.store, seeded(SMALL, 7, EvaluateSettings(candidates=5)), *rest, tracking=tracking)
    return train(world.store, seeded(SMALL, 7, EvaluateSettings(candidates=5)), *rest, tracking=tracking)


def measured(checkpoint: Artifact, form: str) -> Points:
    """Every point that ought to be shown, in order."""
    rows = checkpoint.read().to_pylist()
    return sorted((form.format(**row).replace("@", "-"), row["epoch"], row["value"]) for row in rows)


def events(folder: Path) -> Points:
    """Every scalar in the event files, exactly as they lie there."""
    files = folder.glob("events.out.tfevents.*")
    every = [event for path in files for event in EventFileLoader(str(path)).Load()]
    return sorted((value.tag.replace("@", "-"), event.step, value.tensor.float_val[0])
                  for event in every for value in event.summary.value)  # fmt: skip


class FakeMlflow(ModuleType):
    """As much of MLflow as is used, keeping every point it is sent."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.points: dict[str, list[Any]] = defaultdict(list)
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step)
        )

    def MlflowClient(self, tracking_uri: str) -> "FakeMlflow":  # noqa: N802 - MLflow's own name
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, f"x{len(self.experiments)}")

    def search_runs(self, places: list[str], filter_string: str) -> list[Any]:
        name = filter_string.split("'")[1]
        return [self._run(number) for number, run in self.runs.items() if run["tags"]["edda.training"] == name]

    def create_run(self, place: str, tags: dict[str, str], run_name: str) -> Any:
        self.runs[f"r{len(self.runs)}"] = {"tags": tags, "status": "RUNNING"}
        return self._run(f"r{len(self.runs) - 1}")

    def _run(self, number: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def update_run(self, number: str, status: str) -> None:
        self.runs[number]["status"] = status

    set_terminated = update_run

    def get_metric_history(self, number: str, key: str) -> list[Any]:
        return [point for point in self.points[number] if point.key == key]

    def log_batch(self, number: str, metrics: list[Any]) -> None:
        self.points[number] += metrics


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_event_files_of_a_killed_training_have_every_point_once(tiny_world: Tiny, tmp_path: Path) -> None:
    settings = TrackingSettings(tensorboard=str(tmp_path / "curves"))
    checkpoint = fitted(tiny_world, settings, (2, 3))
    expected = measured(checkpoint, "{metric}/{domain}")
    found = events(tmp_path / "curves" / "my-run" / "checkpoint-7")
    assert [point[:2] for point in found] == [point[:2] for point in expected]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in expected])


def test_points_of_an_epoch_that_is_trained_again_are_not_kept(tmp_path: Path) -> None:
    tracking = Tracking(TrackingSettings(tensorboard=str(tmp_path)), "r", "t")
    first: list[Measure] = [(1, "a", "loss", 0.5)]
    with tracked(tracking, []) as track:
        track(first)
        track([(2, "a", "loss", 0.4)])
    with tracked(tracking, first) as track:
        assert events(tmp_path / "r" / "t") == [("loss/a", 1, 0.5)]


def test_event_files_can_be_read_while_training_goes_on(tiny_world: Tiny, tmp_path: Path) -> None:
    shown = []

    def look(done: int, total: int, unit: str, note: str = "") -> None:
        shown.append(max(step for _, step, _ in events(tmp_path / "my-run" / "t")))

    tracking = Tracking(TrackingSettings(tensorboard=str(tmp_path)), "my-run", "t")
    rest = tiny_world.parents, ComputeSettings(threads=1, state_seconds=0), look
    train(tiny_world.store, seeded(SMALL, 7, EvaluateSettings(candidates=5)), *rest, tracking=tracking)
    assert shown == [1, 2, 3, 4, 5]


def test_mlflow_has_one_run_with_every_point_once(tiny_world: Tiny, mlflow: FakeMlflow) -> None:
    checkpoint = fitted(tiny_world, TrackingSettings(mlflow="http://tracking"), (1, 4))
    found = sorted((point.key, point.step, point.value) for point in mlflow.points["r0"])
    assert found == measured(checkpoint, "{metric}/{domain}")
    assert [run["status"] for run in mlflow.runs.values()] == ["FINISHED"]


def test_mlflow_is_sent_what_an_earlier_attempt_kept_to_itself(mlflow: FakeMlflow) -> None:
    tracking = Tracking(TrackingSettings(mlflow="uri"), "r", "t")
    history: list[Measure] = [(1, "a", "recall@1", 0.5), (1, "a", "loss", 0.4)]
    with tracked(tracking, []) as track:
        track(history[:1])
    with tracked(tracking, history):
        pass
    assert [(point.key, point.step) for point in mlflow.points["r0"]] == [("recall-1/a", 1), ("loss/a", 1)]


def test_a_training_that_fails_is_failed_in_mlflow(mlflow: FakeMlflow) -> None:
    with pytest.raises(ValueError, match="oops"), tracked(Tracking(TrackingSettings(mlflow="u"), "r", "t"), []):
        raise ValueError("oops")
    assert mlflow.runs["r0"]["status"] == "FAILED"


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_named_with_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    for module in [module for module in sys.modules if module.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    settings = TrackingSettings(**{name: str(tmp_path)})
    message = f"tracking.{name} is '.*', which needs the package {name}: .*; install it: pip install {name}$"
    with pytest.raises(ModuleNotFoundError, match=message), tracked(Tracking(settings, "r", "t"), []):
        pass


def test_tracking_changes_no_byte_of_the_checkpoint(tiny_world: Tiny, tmp_path: Path) -> None:
    tracked_ = fitted(tiny_world, TrackingSettings(tensorboard=str(tmp_path / "curves")))
    other = fitted(Tiny(Store(tmp_path / "other"), tiny_world.parents), TrackingSettings())
    assert (tracked_.key, tracked_.manifest.files) == (other.key, other.manifest.files)
