"""What a run would make, why, and how long that took the last time; nothing is made."""

from __future__ import annotations

from dataclasses import dataclass

from data_contracts.contracts import WORLD
from flows.config.run_config import flatten
from flows.runner.plan import Plan, Step


@dataclass(frozen=True)
class PlannedArtifact:
    """An artifact of a run.

    Attributes:
        role: in the run.
        reason: why it would be made; empty if it exists, or if nothing that would be made needs it.
        seconds: that it took the last time, in whichever run; None if it was never made.
    """

    role: str
    reason: str
    seconds: float | None


def preview(plan: Plan, stage: str | None) -> list[PlannedArtifact]:
    """Every artifact of a stage, or of the full run, and of what it needs; parents first.

    Args:
        plan: of the run.
        stage: its command; all stages if None.
    """
    record = plan.store.record(plan.config.name)
    recorded = {role: key for role, (_, key) in record.artifacts.items()} if record else {}
    seconds = record.seconds if record else {}
    wanted = plan.roles(stage)
    if stage is not None and not wanted:
        wanted = [WORLD.name]
    missing, waiting, needed = plan.missing(wanted), list(wanted), set[str]()
    while waiting:
        role = waiting.pop()
        needed.add(role)
        waiting += [parent for parent in plan.own_parents(role) if parent not in needed]
    return [
        PlannedArtifact(
            role,
            _reason(plan, step, recorded.get(role)) if role in missing else "",
            seconds.get(role),
        )
        for role, step in plan.steps.items()
        if role in needed or role in missing
    ]


def _reason(plan: Plan, step: Step, recorded: str | None) -> str:
    """What is new since the run's last record."""
    if recorded is None:
        return "new"
    if recorded == step.key:
        return "deleted"
    before = plan.store.find(step.contract, recorded)
    if before is None or not before.is_readable:
        return "changed"
    manifest = before.manifest
    parents = [role for role, key in step.parents.items() if manifest.parents.get(role) != key]
    old, new = (dict(flatten(settings)) for settings in (manifest.settings, step.settings))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    causes = [f"other {', '.join(parents)}"] if parents else []
    causes += [f"changed {', '.join(changed)}"] if changed else []
    return "; ".join(causes) or "a newer version of its contract"
