"""A run's TOML file: every key typed, documented and checked; all errors are reported at once."""

from __future__ import annotations

import glob
import json
import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from data_contracts.remote.client import is_remote
from data_contracts.settings.base import Protocol, Settings
from data_contracts.settings.ingest import IngestSettings
from data_contracts.settings.logs import LogSource, expand_variables
from data_contracts.settings.machine import ComputeSettings, TrackingSettings
from data_contracts.settings.preparation import GraphSettings, NeighboursSettings, PairsSettings, ReachSettings
from data_contracts.settings.ranking import BlendSettings, EvaluateSettings, ExportSettings
from data_contracts.settings.train import TrainSettings
from data_contracts.settings.world import WorldSettings
from flows.config.errors import describe_errors, dotted
from flows.config.serve_settings import ServeSettings
from flows.config.toml_file import TomlError, check_depth, read_toml
from flows.config.tune_settings import TuneSettings

DEFAULT_STORE = "edda-store"
_LARGEST_FLOAT = 3.4e38
"""Largest float32, nearly."""
RUN_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Regular expression of a run's name, which is one component of a path."""


class ConfigError(ValueError):
    """All errors in a run's file and its overrides, one line each: file, key, found value, allowed values."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class RunConfig(Settings):
    """The settings of a run: where its logs come from, and those of each stage."""

    name: Annotated[str, Field(pattern=RUN_NAME, max_length=100)]
    """Name of the run; links to what it made are under `<store>/runs/<name>`."""
    protocol: Protocol = "clean"
    """Rules of ingest and evaluate: clean, or those of the authors' released code."""
    store: Annotated[str, Field(min_length=1)] | None = None
    """Folder of all artifacts, relative to the run's file, or s3://, gs://, abfs://; else $EDDA_STORE, ./edda-store."""
    update: bool = False
    """If logs have grown, continue from the last run of the name, not from scratch (docs/operate/updating.md)."""
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
    serve: ServeSettings = ServeSettings()
    """Titles and pictures of items for `edda serve`; no result depends on it."""

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
    def reads_pairs(self) -> bool:
        """Training reads the aligned pairs."""
        return self.train.reads_pairs


@dataclass(frozen=True)
class RunSpec:
    """A run as given on a command line: its file, and settings that override the file's."""

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
        """The run as arguments of a command line, valid in any folder."""
        options = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join([str(self.path.absolute()), *options])


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's file, apply overrides, and check everything.

    Args:
        path: the TOML file.
        overrides: `key=value` with a dotted key and a TOML value, e.g. `train.epochs=5`; a bare word is a string.

    Returns:
        The settings; paths of logs and store are absolute, with `${NAME}` expanded.

    Raises:
        ConfigError: the file is unreadable or not TOML, or has unknown keys, wrong types or values out of range; all
            errors at once.
    """
    try:
        raw = read_toml(path)
        origins = {key: f"--set {text}" for text in overrides for key in [_override(raw, text)]}
        check_depth(path, raw)
    except TomlError as error:
        raise ConfigError((str(error),)) from None
    _pass_on_protocol(raw)
    problems = _resolve_paths(raw, path.parent)
    try:
        config = RunConfig.model_validate_json(json.dumps(raw, default=str), strict=True)
        problems += _too_wide_numbers(raw)
    except ValidationError as error:
        problems += describe_errors(error, RunConfig, raw)
    if problems:
        raise ConfigError(tuple(_with_origin(problem, path, origins) for problem in problems))
    return config


def _too_wide_numbers(raw: Mapping[str, Any]) -> Iterator[str]:
    """A message for each integer that 64 bits do not hold, as TOML's, and each float beyond float32, as the model's."""
    for key, value in flatten(raw):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                yield f"{key} is {value}, must be of at most 64 bits"
            if isinstance(number, float) and abs(number) > _LARGEST_FLOAT:
                yield f"{key} is {value}, must be at most {_LARGEST_FLOAT:g}"


def store_location(config: RunConfig | None = None) -> str:
    """Path or address of a run's store: the file's, else $EDDA_STORE, else ./edda-store."""
    if config is not None and config.store is not None:
        return config.store
    return absolute(os.environ.get("EDDA_STORE") or DEFAULT_STORE)


def store_override(location: str | None) -> list[str]:
    """The override that sets a run's store to a path or an address; empty without one."""
    return [f"store={json.dumps(absolute(location))}"] if location else []


def absolute(location: str, folder: Path = Path()) -> str:
    """The absolute form of a path that is relative to a folder, `~` the home folder; an address unchanged."""
    try:
        return location if is_remote(location) else str((folder / Path(location).expanduser()).absolute())
    except RuntimeError:
        raise ConfigError((f"{location}: the home folder is not known, must be; write the whole path",)) from None


def _override(raw: dict[str, Any], text: str) -> str:
    """Set one `key=value` and return the key as `dotted` spells it."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError((f"--set {text}: must be KEY=VALUE, e.g. train.epochs=5",))
    *tables, last = key.split(".")
    table: Any = raw
    for name in tables:
        table = _inner_table(table, name, text)
    table[_index(table, last, text) if isinstance(table, list) else last] = _parse_value(value)
    return dotted(tuple(int(name) if name.isdecimal() else name for name in key.split(".")))


def _inner_table(table: Any, name: str, text: str) -> Any:
    inner = table[_index(table, name, text)] if isinstance(table, list) else table.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise ConfigError((f"--set {text}: {name} is {inner!r}, which has no keys",))
    return inner


def _index(values: list[Any], name: str, text: str) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        raise ConfigError((f"--set {text}: {name} must be a number from 0 to {len(values) - 1}",))
    return int(name)


def _parse_value(text: str) -> Any:
    """Parse a TOML value such as `5`, `true`, `[1, 2]` or `"text"`; anything else is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (RecursionError, ValueError):  # an integer of thousands of digits
        raise ConfigError((f"--set: value {text[:60]} is nested too deeply, or too long",)) from None
    return parsed["value"] if len(parsed) == 1 else text.strip()  # text of several lines may set other keys, too


def _pass_on_protocol(raw: dict[str, Any]) -> None:
    """Set the run's protocol for ingest and evaluate unless they have their own."""
    for stage in ("ingest", "evaluate"):
        if raw.get("protocol") in ("clean", "released") and isinstance(raw.setdefault(stage, {}), dict):
            raw[stage].setdefault("protocol", raw["protocol"])


def _resolve_paths(raw: dict[str, Any], folder: Path) -> list[str]:
    """Expand environment variables and make paths absolute; returns a message for each unset variable."""
    tables = {"store": raw, "tracking.tensorboard": raw.get("tracking"), "serve.items": raw.get("serve")}
    if isinstance(logs := raw.get("logs"), list):
        tables |= {f"logs[{number}].path": log for number, log in enumerate(logs)}
    problems = []
    for key, table in tables.items():
        name = key.rpartition(".")[2]
        if isinstance(table, dict) and isinstance(table.get(name), str) and table[name]:
            # Not left to find_logs: errors are reported at once, and the run's record holds the paths that were read.
            text, unset = expand_variables(table[name], os.environ)
            is_glob = key.endswith("].path")
            table[name] = absolute(text, Path(glob.escape(str(folder.absolute()))) if is_glob else folder)
            problems += [f"{key} needs the environment variable {variable}, which is not set" for variable in unset]
    return problems


def _with_origin(problem: str, path: Path, origins: Mapping[str, str]) -> str:
    """The problem after the file that has it, or after the override that caused it."""
    problem_key = problem.partition(" ")[0]
    for key, origin in origins.items():
        if problem_key == key or problem_key.startswith(f"{key}[") or key.startswith(f"{problem_key}."):
            return f"{origin}: {problem}"
    return f"{path}: {problem}"


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
