"""Runs by name, unfinished ones too: what there is of them, what is missing, how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.contracts import CHECKPOINT, CONTRACTS, INDEX
from data_contracts.open_store import open_store
from data_contracts.remote.store import RemoteStore
from data_contracts.store.artifact import MANIFEST, Artifact
from data_contracts.store.claims import is_for_reading, is_held
from data_contracts.store.runs import Attempt, attempt_of
from data_contracts.store.store import Store, open_artifact
from flows.config.run_config import load_config, store_override, store_place
from flows.output.plots import COLOURS
from flows.output.tables import domain_sizes
from flows.runner.execute import Cost, Outcome, costs_before, run_lock
from flows.runner.plan import make_plan


def run_by_name(name: str, store: Store) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """Artifacts and record of a run: those of the last one that was finished, else what the first has made so far.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    artifacts, record = store.run(name)
    attempt = attempt_of(record)
    if attempt and "config" not in record:
        return attempt.found(store), {**record, "config": attempt.config, "costs": attempt.costs}
    return artifacts, record


def what_is_missing(name: str, store: Store) -> str | None:
    """In words: that a run of this name works or was interrupted, what is yet to be made, and how; None otherwise."""
    attempt = attempt_of(store.record(name) or {})
    return _in_words(name, store, attempt) if attempt else None


def _in_words(name: str, store: Store, attempt: Attempt) -> str:
    missing = ", ".join(attempt.missing(store)) or "nothing but its record"
    begun = f"run {name!r}, begun {attempt.at},"
    works = _is_worked_on(name, store)
    if works:
        return f"{begun} is being worked on; missing so far: {missing}"
    if works is None:
        return f"{begun} is not finished; missing: {missing}; it goes on with: {attempt.command}"
    return f"{begun} ended before it was finished; missing: {missing}; go on with: {attempt.command}"


def _is_worked_on(name: str, store: Store) -> bool | None:
    """None where nobody here can know: who may only read the store, or where other machines' locks are not seen."""
    try:
        return is_held(run_lock(store, name)) or (None if isinstance(store, RemoteStore) else False)
    except OSError as error:
        if not is_for_reading(error):
            raise
        return None


def find_run(run: str, store: str | None = None) -> tuple[str, dict[str, Artifact], str | None]:
    """A run's name, its artifacts and, if it is not finished, what is missing; from its file, its folder, or its name.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    if run.endswith(".toml"):
        plan = make_plan(load_config(Path(run), store_override(store)))
        return plan.config.name, plan.found(), what_is_missing(plan.config.name, plan.store)
    if (Path(run) / "run.json").exists():
        folder = Path(run).absolute()
        name, home = folder.name, Store(folder.parent.parent)
    else:
        name, home = run, open_store(store or store_place())
    return name, run_by_name(name, home)[0], what_is_missing(name, home)


def find_artifact(place: str, store: str | None = None) -> Artifact | None:
    """The artifact in a folder or, as `run/role` or `contract/key`, in the store; None where the place names none.

    Raises:
        FileNotFoundError: the run has no such artifact.
    """
    if (Path(place) / MANIFEST).exists():
        return open_artifact(Path(place))
    home, (name, slash, role) = open_store(store or store_place()), place.partition("/")
    if not slash:
        return None
    if name in CONTRACTS and (found := home.find(CONTRACTS[name], role)):
        return found
    if not home.record(name):
        return None
    made = run_by_name(name, home)[0]
    found = home.linked(name, role) if role == INDEX.name else made.get(role)  # other links may be of earlier runs
    if found is None:
        raise FileNotFoundError(f"run {name!r} has no artifact {role!r}, must be one of {', '.join(made) or 'none'}")
    return found


@dataclass(frozen=True)
class Told:
    """A run that a report tells of, finished or not."""

    name: str
    store: Store
    config: Mapping[str, Any]
    """Its settings as JSON."""
    artifacts: Mapping[str, Artifact]
    """What exists of it, by role."""
    costs: Mapping[str, Cost]
    """By stage, where they are known."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Interactions by domain, the largest first."""
        sizes = domain_sizes(self.artifacts)
        return {domain: sizes[domain] for domain in sorted(sizes, key=lambda domain: (-sizes[domain], domain))}

    @cached_property
    def checkpoints(self) -> list[Artifact]:
        """One for each seed."""
        return [found for found in self.artifacts.values() if found.contract is CHECKPOINT]

    @cached_property
    def colours(self) -> dict[str, int]:
        """The domains that plots tell apart, all or the largest, and their colours."""
        told = list(self.sizes) if len(self.sizes) <= COLOURS else list(self.sizes)[: COLOURS - 1]
        return {domain: number for number, domain in enumerate(told)}


def told_of(outcome: Outcome) -> Told:
    """A run that was just brought up to date."""
    config = outcome.config
    return Told(config.name, outcome.plan.store, config.model_dump(mode="json"), outcome.artifacts, outcome.costs)


def told_run(run: str, store: str | None = None) -> Told:
    """A run from its TOML file, finished or not, or from its name in the store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    if run.endswith(".toml"):
        plan = make_plan(load_config(Path(run), store_override(store)))
        return told_of(Outcome(plan, plan.found(), [], costs_before(plan, plan.found())))
    return told_recorded(run, open_store(store or store_place()))


def told_recorded(name: str, store: Store) -> Told:
    """A run by its record in a store.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    artifacts, record = run_by_name(name, store)
    costs = {stage: Cost(**cost) for stage, cost in record.get("costs", {}).items()}
    return Told(name, store, record["config"], artifacts, costs)
