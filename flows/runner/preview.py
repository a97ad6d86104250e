"""What a run would make, why, and how long that took the last time; nothing is made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.contracts import WORLD
from data_contracts.store.artifact import Artifact
from flows.config.run_config import flatten
from flows.runner.plan import Plan, Step

ALL_FOLLOWS_FROM_WORLD = "All other stages depend on the generated logs, and can be planned when these exist."


@dataclass(frozen=True)
class PlannedArtifact:
    """An artifact of a run.

    Attributes:
        role: in the run.
        reason: why it would be made; empty if it exists, or if nothing that would be made needs it.
        seconds: that it took the last time, in whichever run; None if it was never made.
        is_damaged: it exists, but not as it was published; a run stops there, and the reason says what to do.
    """

    role: str
    reason: str
    seconds: float | None
    is_damaged: bool = False


def preview(plan: Plan, stage: str | None) -> list[PlannedArtifact]:
    """Every artifact of a stage, or of the full run, and of what it needs; parents first.

    Args:
        plan: of the run.
        stage: its command; all stages if None.
    """
    record = plan.store.record(plan.config.name)
    recorded = plan.store.recorded(record) if record else {}
    seconds = record.seconds if record else {}
    wanted = plan.roles(stage)
    if stage is not None and not wanted:
        wanted = [WORLD.name]
    damage = {role: problem for role in plan.steps if (problem := plan.damage(role))}
    missing, waiting, needed = plan.missing(wanted, damage), list(wanted), set[str]()
    while waiting:
        role = waiting.pop()
        needed.add(role)
        waiting += [parent for parent in plan.own_parents(role) if parent not in needed]
    return [
        PlannedArtifact(
            role,
            damage.get(role) or (_reason(step, recorded.get(role)) if role in missing else ""),
            seconds.get(role),
            is_damaged=role in damage,
        )
        for role, step in plan.steps.items()
        if role in needed or role in missing
    ]


def _reason(step: Step, before: Artifact | None) -> str:
    """What is new since an earlier artifact, the one of the run's record."""
    if before is None:
        return "never made"
    if before.folder.name == step.key:
        return "missing: it was deleted"
    if not before.is_readable:
        return "input or setting changed; what was made before is not there to compare with"
    manifest = before.manifest
    inputs = [role for role, key in step.parents.items() if manifest.parents.get(role) != key]
    old, new = dict(manifest.settings), dict(step.settings)
    inputs += list(_changed_logs(old.pop("files", []), new.pop("files", [])))
    old, new = dict(flatten(old)), dict(flatten(new))
    settings = [key.removeprefix("settings.") for key in {**old, **new} if old.get(key) != new.get(key)]
    causes = [f"input changed: {', '.join(inputs)}"] if inputs else []
    causes += [f"setting changed: {', '.join(settings)}"] if settings else []
    return "; ".join(causes) or "a newer version of its contract"


def _changed_logs(before: list[Mapping[str, Any]], now: list[Mapping[str, Any]]) -> Iterator[str]:
    """Log files of ingest that are new, gone, or have other content or settings; counts where files have no names."""
    if not all("name" in file for file in (*before, *now)):
        old_files, new_files = (Counter(json.dumps(file, sort_keys=True) for file in files) for files in (before, now))
        added, removed = (new_files - old_files).total(), (old_files - new_files).total()
        yield from [f"logs ({added} new, {removed} gone)"] if added or removed else []
        return
    old, new = ({file["name"]: file for file in files} for files in (before, now))
    for name in {**old, **new}:
        if name not in old:
            yield f"{name} (new)"
        elif name not in new:
            yield f"{name} (gone)"
        elif old[name] != new[name]:
            yield name if old[name]["sha256"] != new[name]["sha256"] else f"{name} (read in another way)"
