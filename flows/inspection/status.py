"""The status of a run: which artifacts are made, missing or damaged, what they cost, and how to make the rest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_contracts.contracts import CONTRACTS, WORLD
from data_contracts.schema import Contract
from data_contracts.store.claims import STAGING
from data_contracts.store.store import Store
from flows.config.run_config import RunSpec
from flows.output.tables import Table
from flows.runner.lookup import describe_missing
from flows.runner.plan import make_plan
from flows.runner.preview import ALL_FOLLOWS_FROM_WORLD, preview


@dataclass(frozen=True)
class ArtifactStatus:
    """An artifact of a run.

    Attributes:
        role: in the run.
        state: made, missing, begun (an interrupted or running stage has left files to continue from) or damaged.
        rows: None unless it is made.
        bytes: of its files, or of those that a stage has begun.
        seconds: that it took to make, in whichever run; None unless it is made.
        at: when it was made, ISO 8601.
        problem: what is wrong with its files, and what to do; empty if nothing is.
    """

    role: str
    state: str
    rows: int | None = None
    bytes: int = 0
    seconds: float | None = None
    at: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class RunStatus:
    """A run's artifacts, parents first, and a sentence on how to make what is missing, empty if nothing is."""

    name: str
    store: str
    artifacts: tuple[ArtifactStatus, ...]
    remedy: str
    free_bytes: int | None
    """On the disk of the store, or of its cache; None if its folder does not exist."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def status_of_file(spec: RunSpec) -> RunStatus:
    """The status of the run that a TOML file describes."""
    plan = make_plan(spec.config)
    planned = {artifact.role for artifact in preview(plan, None)}
    wanted = {role: (step.contract, step.key) for role, step in plan.steps.items() if role in planned}
    artifacts = _statuses(plan.store, wanted)
    remedy = ""
    if any(artifact.state != "made" for artifact in artifacts):
        at_work = plan.store.record(spec.config.name) and plan.store.is_run_locked(spec.config.name)
        remedy = (
            f"a command is at work on run {spec.config.name!r} now"
            if at_work
            else f"make the rest with: edda run {spec}"
        )
    if list(plan.steps) == [WORLD.name]:
        remedy = f"{ALL_FOLLOWS_FROM_WORLD}\n{remedy}"
    return RunStatus(spec.config.name, str(plan.store), artifacts, remedy, _free_bytes(plan.store.root))


def status_of_name(name: str, store: Store) -> RunStatus:
    """The status of a run by its record: of the attempt that is in progress or was interrupted, else of the last run.

    Raises:
        FileNotFoundError: no run of that name.
    """
    record, remedy = store.run(name), describe_missing(name, store)
    named = record.attempt.planned if record.attempt and remedy else record.artifacts
    artifacts = _statuses(store, {role: (CONTRACTS[contract], key) for role, (contract, key) in named.items()})
    if not remedy and any(artifact.state != "made" for artifact in artifacts):
        remedy = "make the rest by `edda run` with the run's TOML file"
    return RunStatus(name, str(store), artifacts, remedy or "", _free_bytes(store.root))


def status_text(status: RunStatus, width: int | None = None) -> str:
    """A table of the artifacts for a terminal of this width, their sums, and what is missing."""
    rows = tuple(
        (
            artifact.role,
            artifact.state,
            "–" if artifact.rows is None else f"{artifact.rows:,}",
            f"{artifact.bytes / 2**20:,.2f}" if artifact.bytes else "–",
            "–" if artifact.seconds is None else f"{artifact.seconds:,.1f}",
            artifact.at or "–",
        )
        for artifact in status.artifacts
    )
    title, header = f"Run {status.name} in {status.store}", ("artifact", "state", "rows", "MiB", "seconds", "made at")
    made = [artifact for artifact in status.artifacts if artifact.state == "made"]
    size, seconds = sum(artifact.bytes for artifact in status.artifacts), sum(item.seconds or 0 for item in made)
    free = "" if status.free_bytes is None else f"; {status.free_bytes / 2**30:,.1f} GiB are free there"
    sums = f"{len(made)} of {len(rows)} artifacts made, in {seconds:,.1f} s; {size / 2**20:,.1f} MiB on disk{free}"
    problems = [f"DAMAGED: {artifact.problem}" for artifact in status.artifacts if artifact.problem]
    return "\n".join([Table(title, header, rows).plain(width), "", sums, *problems, *filter(None, [status.remedy])])


def _statuses(store: Store, artifacts: Mapping[str, tuple[Contract, str]]) -> tuple[ArtifactStatus, ...]:
    return tuple(_status(store, role, contract, key) for role, (contract, key) in artifacts.items())


def _status(store: Store, role: str, contract: Contract, key: str) -> ArtifactStatus:
    try:
        artifact = store.find(contract, key)
        manifest = artifact.manifest if artifact else None
    except OSError as error:
        return ArtifactStatus(role, "damaged", problem=str(error))
    if manifest is None:
        begun = _folder_bytes(store.root / STAGING / contract.name / key)
        return ArtifactStatus(role, "begun" if begun else "missing", bytes=begun)
    size = sum(entry.size for entry in manifest.files)
    return ArtifactStatus(role, "made", manifest.rows, size, manifest.made["seconds"], manifest.made["at"])


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, which another process may be writing or removing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _free_bytes(folder: Path) -> int | None:
    return shutil.disk_usage(folder).free if folder.is_dir() else None
