"""A run's TOML file: every key typed, documented and checked, all mistakes told at once."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from data_contracts.remote.client import is_remote
from data_contracts.settings import (
    BlendSettings,
    ComputeSettings,
    EvaluateSettings,
    ExportSettings,
    GraphSettings,
    IngestSettings,
    LogSource,
    NeighboursSettings,
    PairsSettings,
    Protocol,
    ReachSettings,
    Settings,
    TrackingSettings,
    WorldSettings,
)
from data_contracts.train_settings import TrainSettings
from flows.config.errors import dotted, mistakes
from flows.config.tune_settings import TuneSettings

DEFAULT_STORE = "edda-store"


class ConfigError(ValueError):
    """Everything wrong with a run's file and its overrides, one line each: file, key, found, allowed."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RunConfig(Settings):
    """A run: where its logs come from and how each stage works on them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run; links to what it made are under `<store>/runs/<name>`."""
    protocol: Protocol = "clean"
    """Rules of ingest and evaluate: clean, or as the authors' released code has them."""
    store: Annotated[str, Field(min_length=1)] | None = None
    """Folder of all artifacts, relative to the run's file, or s3://, gs://, abfs://; else $EDDA_STORE, ./edda-store."""
    update: bool = False
    """Where logs have grown, go on from what the run's name made last; else from scratch (docs/operate/updating.md)."""
    world: WorldSettings | None = None
    """Generate the logs; either this or [[logs]]."""
    logs: tuple[LogSource, ...] = ()
    """Read these logs; either these or [world]."""
    ingest: IngestSettings = IngestSettings()
    """Raw logs → interactions and rejects."""
    graph: GraphSettings = GraphSettings()
    """Interactions → nodes and graph."""
    neighbours: NeighboursSettings = NeighboursSettings()
    """Graph → weights between items, from three-step walks."""
    reach: ReachSettings = ReachSettings()
    """Graph → anchor-reach vectors."""
    pairs: PairsSettings = PairsSettings()
    """Reach vectors → aligned pairs."""
    train: TrainSettings = TrainSettings()
    """Graph and pairs → checkpoint."""
    blend: BlendSettings = BlendSettings()
    """Checkpoint and neighbours → weights of vectors and evidence."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Checkpoint → metrics."""
    export: ExportSettings = ExportSettings()
    """Checkpoint → embeddings and recommendations."""
    compute: ComputeSettings = ComputeSettings()
    """How the run uses the machine; no result depends on it."""
    tracking: TrackingSettings = TrackingSettings()
    """Curves of training while it runs; each checkpoint has the same measures as Parquet afterwards."""
    tune: TuneSettings = TuneSettings()
    """Search for the settings that validate best: `edda tune`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.world is None) == (not self.logs):
            found = "neither [world] nor [[logs]]" if self.world is None else "both [world] and [[logs]]"
            raise ValueError(f"found {found}, must be exactly one of them")
        return self

    @model_validator(mode="after")
    def _something_ranks(self) -> Self:
        if self.train.model == "walks" and not self.blend.evidence:
            raise ValueError(
                "train.model is 'walks', which has no vectors, and blend.evidence is false; set blend.evidence = true"
            )
        return self

    @property
    def aligns(self) -> bool:
        """Training reads the aligned pairs."""
        return self.train.aligns


@dataclass(frozen=True)
class RunSpec:
    """A run as a command line names it: its file, and settings that replace the file's."""

    path: Path
    overrides: tuple[str, ...] = ()
    """KEY=VALUE, as `load_config` takes them."""

    @cached_property
    def config(self) -> RunConfig:
        """The settings, loaded once.

        Raises:
            ConfigError: as `load_config`.
        """
        return load_config(self.path, self.overrides)

    def with_overrides(self, *overrides: str) -> RunSpec:
        """The same run with further overrides."""
        return RunSpec(self.path, (*self.overrides, *overrides))

    def __str__(self) -> str:
        """As a command line takes it, from any folder."""
        options = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join([str(self.path.absolute()), *options])


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's file, apply overrides, and check everything.

    Args:
        path: the TOML file.
        overrides: `key=value` with a dotted key and a TOML value, e.g. `train.epochs=5`; a bare word is a string.

    Returns:
        The settings; paths of logs and store absolute, `${NAME}` in them expanded.

    Raises:
        ConfigError: file unreadable or not TOML, unknown key, wrong type, value out of range; all of them at once.
    """
    raw = _read(path)
    origins = {key: f"--set {text}" for text in overrides for key in [_override(raw, text)]}
    _hand_down_protocol(raw)
    problems = [*_expand(raw, path)]
    try:
        config = RunConfig.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems += mistakes(error, RunConfig, raw)
    if problems:
        raise ConfigError(tuple(_placed(problem, path, origins) for problem in problems))
    return config


def store_place(config: RunConfig | None = None) -> str:
    """The run's store, a path or an address: the file's, else $EDDA_STORE, else ./edda-store."""
    if config is not None and config.store is not None:
        return config.store
    return absolute(os.environ.get("EDDA_STORE") or DEFAULT_STORE)


def store_override(place: str | None) -> list[str]:
    """The override that has a run use the store at a path or an address; none without."""
    return [f"store={json.dumps(absolute(place))}"] if place else []


def absolute(place: str, folder: Path = Path()) -> str:
    """A path that is relative to a folder, absolute; an address as it is."""
    return place if is_remote(place) else str((folder / place).absolute())


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        rule = "" if path.suffix == ".toml" else ", must be a run's TOML file"
        raise ConfigError((f"{path}: no such file{rule}",)) from None
    except IsADirectoryError:
        raise ConfigError((f"{path}: is a folder, must be a TOML file",)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError((f"{path}: not TOML: {error}",)) from None


def _override(raw: dict[str, Any], text: str) -> str:
    """Put one `key=value` in its place; the dotted key."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError((f"--set {text}: must be KEY=VALUE, e.g. train.epochs=5",))
    *tables, last = key.split(".")
    place: Any = raw
    for table in tables:
        place = _inside(place, table, text)
    if isinstance(place, list):
        place[_index(place, last, text)] = _toml_value(value)
    else:
        place[last] = _toml_value(value)
    return dotted(tuple(int(part) if part.isdecimal() else part for part in key.split(".")))


def _inside(place: Any, name: str, text: str) -> Any:
    inner = place[_index(place, name, text)] if isinstance(place, list) else place.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise ConfigError((f"--set {text}: {name} is {inner!r}, which has no keys",))
    return inner


def _index(place: list[Any], name: str, text: str) -> int:
    if not name.isdecimal() or int(name) >= len(place):
        raise ConfigError((f"--set {text}: {name} must be a number from 0 to {len(place) - 1}",))
    return int(name)


def _toml_value(text: str) -> Any:
    """`5`, `true`, `[1, 2]`, `"text"` as TOML has them; anything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _hand_down_protocol(raw: dict[str, Any]) -> None:
    """The run's protocol holds for ingest and evaluate unless they name their own."""
    for stage in ("ingest", "evaluate"):
        if raw.get("protocol") in ("clean", "released") and isinstance(raw.setdefault(stage, {}), dict):
            raw[stage].setdefault("protocol", raw["protocol"])


def _expand(raw: dict[str, Any], path: Path) -> list[str]:
    """Make paths absolute and put environment variables in; the problems met."""
    logs = raw.get("logs")
    places = [("store", raw)]
    if isinstance(logs, list):
        places += [(f"logs[{i}].path", log) for i, log in enumerate(logs) if isinstance(log, dict)]
    if isinstance(raw.get("tracking"), dict):
        places.append(("tracking.tensorboard", raw["tracking"]))
    problems = []
    for key, table in places:
        name = key.rsplit(".", 1)[-1]
        if isinstance(table.get(name), str) and table[name]:
            text, missing = _with_environment(table[name], os.environ)
            table[name] = absolute(text, path.parent)
            problems += [f"{key} needs the environment variable {name}, which is not set" for name in missing]
    return problems


def _with_environment(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    names = re.findall(r"\$\{(\w+)\}", text)
    expanded = re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], match[0]), text)
    return expanded, [name for name in names if name not in environment]


def _placed(problem: str, path: Path, origins: Mapping[str, str]) -> str:
    """The problem with the file it stands in, or the override that caused it."""
    place = problem.partition(" ")[0]
    for key, origin in origins.items():
        if place == key or place.startswith(f"{key}[") or key.startswith(f"{place}."):
            return f"{origin}: {problem}"
    return f"{path}: {problem}"
