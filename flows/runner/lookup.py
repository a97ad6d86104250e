"""Look up a run, finished or not, by its name, file or folder: what exists of it, and how to resume it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_contracts.contracts import ALL, CHECKPOINT, CONTRACTS, INDEX, METRICS, TEST
from data_contracts.open_store import open_store
from data_contracts.store.artifact import Artifact
from data_contracts.store.json_files import CompleteDict, require_kind
from data_contracts.store.manifest import MANIFEST
from data_contracts.store.runs import Attempt, Cost, generation_id
from data_contracts.store.store import Store, open_artifact
from flows.config.run_config import RunConfig, RunSpec, store_location, store_override
from flows.output.tables import domain_sizes, values_by_stratum
from flows.runner.execute import Outcome, known_costs
from flows.runner.plan import make_plan


@dataclass(frozen=True)
class RunView:
    """A run, finished or not, as commands that only read it need it."""

    name: str
    store: Store
    config: Mapping[str, Any]
    """Its settings as JSON."""
    artifacts: Mapping[str, Artifact]
    """What exists of it, by role."""
    costs: Mapping[str, Cost] = field(default_factory=dict)
    """Stage → cost, if it is known."""
    missing: str | None = None
    """A sentence: what is missing, and how to resume the run; None if the run is finished."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Interactions by domain, the largest first."""
        sizes = domain_sizes(self.artifacts)
        return {domain: sizes[domain] for domain in sorted(sizes, key=lambda domain: (-sizes[domain], domain))}

    @cached_property
    def checkpoints(self) -> list[Artifact]:
        """One for each seed."""
        return [artifact for artifact in self.artifacts.values() if artifact.contract is CHECKPOINT]

    @property
    def values(self) -> dict[tuple[str, str], dict[str, float]]:
        """Test value and 95 % interval of every (domain, metric): over seeds, or of the held-out rows for one seed."""
        return self.values_by_stratum.get(ALL, {})

    @cached_property
    def values_by_stratum(self) -> dict[str, dict[tuple[str, str], dict[str, float]]]:
        """The same for each stratum of the held-out rows."""
        return values_by_stratum(self.artifacts[METRICS.name])

    @property
    def by_seed(self) -> dict[tuple[str, str], dict[int, float]]:
        """Test value of every (domain, metric) by training seed."""
        return self.seeds_by_stratum.get(ALL, {})

    @cached_property
    def seeds_by_stratum(self) -> dict[str, dict[tuple[str, str], dict[int, float]]]:
        """The same for each stratum of the held-out rows."""
        table = self.artifacts[METRICS.name].read()
        table = table.filter(pc.and_(pc.equal(table["split"], TEST), pc.is_valid(table["seed"])))
        values: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
        for row in table.to_pylist():
            of_stratum = values.setdefault(row["stratum"], {})
            of_stratum.setdefault((row["domain"], row["metric"]), {})[row["seed"]] = row["value"]
        return values


def report_path(root: Path, name: str) -> Path:
    """Path of a run's report in the store's folder."""
    return root / "runs" / name / "report.html"


def find_run(run: str, store: str | None = None) -> RunView:
    """Look up a run by its TOML file, its folder in a store, or its name.

    Args:
        run: path or name.
        store: path or address of the store; by default the file's, else $EDDA_STORE, else ./edda-store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    if run.endswith(".toml"):
        plan = make_plan(RunSpec(Path(run), tuple(store_override(store))).config)
        artifacts = plan.existing()
        return build_view(Outcome(plan, artifacts, [], known_costs(plan, artifacts)))
    if (Path(run) / "run.json").exists():
        folder = Path(run).absolute()
        return recorded_run(folder.name, Store(folder.parent.parent))
    return recorded_run(run, open_store(store or store_location()))


def build_view(outcome: Outcome) -> RunView:
    """Build the view of a run that was just planned or brought up to date."""
    name, store = outcome.config.name, outcome.plan.store
    config = outcome.config.model_dump(mode="json")
    return RunView(name, store, config, outcome.artifacts, outcome.costs, describe_missing(name, store))


def recorded_run(name: str, store: Store) -> RunView:
    """Look up a run by its record: the last finished run's artifacts, or what the first attempt has made so far.

    Args:
        name: of the run; `name@id` for one of its generations.
        store: the store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    name, at, identifier = name.partition("@")
    if at:
        record = store.generation(name, identifier)
        settings = _settings(record.config or {}, name, store)
        return RunView(f"{name}@{identifier}", store, settings, store.recorded(record), record.costs)
    record = store.run(name)
    missing = describe_missing(name, store)
    attempt = record.attempt if record.config is None else None
    settings = _settings((attempt.config if attempt else record.config) or {}, name, store)
    if attempt:
        return RunView(name, store, settings, store.find_planned(attempt), attempt.costs, missing)
    return RunView(name, store, settings, store.recorded(record), record.costs, missing)


def _settings(config: Mapping[str, Any], name: str, store: Store) -> Mapping[str, Any]:
    """A record's settings, of whichever version; a value of another type, or a missing one that is used, is damage."""
    address, remedy = f"{store}/runs/{name}/run.json", "run its TOML file again"
    require_kind(config, RunConfig, address, remedy)
    return CompleteDict(config, address, remedy)


def describe_missing(name: str, store: Store) -> str | None:
    """A sentence: what is missing of an unfinished run, and how to resume it; None if the run is finished.

    A complete run stays finished while another generation of its name is made, or after that has failed.
    """
    record = store.record(name)
    if record is None or record.attempt is None:
        return None
    if record.is_whole and generation_id(record.attempt.config) != record.generation:
        return None
    return _describe_attempt(name, store, record.attempt)


def _describe_attempt(name: str, store: Store, attempt: Attempt) -> str:
    made = store.find_planned(attempt)
    missing = ", ".join(role for role in attempt.planned if role not in made) or "nothing but its record"
    run = f"run {name!r}, started {attempt.at},"
    in_progress = store.is_run_locked(name)
    if in_progress:
        return f"{run} is in progress; missing so far: {missing}"
    if in_progress is None:
        return f"{run} is not finished; missing: {missing}; resume it with: {attempt.command}"
    return f"{run} ended before it was finished; missing: {missing}; resume it with: {attempt.command}"


def find_artifact(location: str, store: str | None = None) -> Artifact | None:
    """Look up an artifact.

    Args:
        location: its folder, or `run/role` or `contract/key` in the store.
        store: path or address of the store; by default $EDDA_STORE, else ./edda-store.

    Returns:
        None if the location does not name an artifact.

    Raises:
        FileNotFoundError: the run has no such artifact.
    """
    if (Path(location) / MANIFEST).exists():
        return open_artifact(Path(location))
    opened, (name, slash, role) = open_store(store or store_location()), location.partition("/")
    if not slash:
        return None
    if name in CONTRACTS and (artifact := opened.find(CONTRACTS[name], role)):
        return artifact
    if not opened.record(name.partition("@")[0]):
        return None
    artifacts = recorded_run(name, opened).artifacts
    # Links other than the index's may be of an earlier run.
    artifact = opened.linked(name, role) if role == INDEX.name else artifacts.get(role)
    if artifact is None:
        raise FileNotFoundError(
            f"run {name!r} has no artifact {role!r}, must be one of {', '.join(artifacts) or 'none'}"
        )
    return artifact
