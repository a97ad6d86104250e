"""What a Prefect server's page shows of a run: links, metrics, costs, the learning curve, progress."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from httpx import HTTPError
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.context import TaskRunContext
from prefect.states import Completed, Running
from prefect.utilities.engine import emit_task_run_state_change_event

from data_contracts.contracts import METRICS
from data_contracts.progress import FinishedPart, Progress
from data_contracts.store.artifact import Artifact
from flows.output.console import log_lines
from flows.output.plots import learning_curve
from flows.output.tables import Table, artifacts_table, metrics_table, reuse_table
from flows.runner.execute import Outcome

_UNLESS_AWAY = suppress(HTTPError)
"""A server away for longer than Prefect itself tries again stops no stage; the next run shows what is missing."""


def link_artifact(run: str, role: str, artifact: Artifact) -> None:
    """Link an artifact's folder."""
    with _UNLESS_AWAY:
        create_link_artifact(
            link=artifact.address if artifact.origin else artifact.path.absolute().as_uri(),
            link_text=f"{role} {artifact.key}",
            key=_key(run, role),
            description=f"{artifact.manifest.rows:,} rows. {artifact.contract.meaning}",
        )


def show_outcome(outcome: Outcome) -> None:
    """Show a run's metrics, artifacts and costs as a page, its costs as a table, its training as a picture."""
    name, costs = outcome.config.name, costs_table(outcome)
    picture = learning_curve(outcome.artifacts)
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}" if picture else None
    page, reused = markdown_summary(outcome, url), reuse_table(outcome.artifacts)
    page += f"\n\n{reused.markdown()}" if reused else ""
    with _UNLESS_AWAY:
        create_table_artifact(
            [dict(zip(costs.header, row, strict=True)) for row in costs.rows],
            key=_key("edda", name, "costs"),
            description=costs.title,
        )
        if url:
            create_image_artifact(url, key=_key("edda", name, "curve"), description=f"Training of EDDA run {name}")
        create_markdown_artifact(page, key=_key("edda", name), description=f"EDDA run {name}")


@contextmanager
def page_progress(role: str) -> Iterator[Progress]:
    """Without a terminal that watches, progress goes to the flow run's log and to a bar on the stage's page.

    Each part of the work (a domain, two domains) that is finished becomes a task run beside the stage's.
    """
    log, percent = get_run_logger(), 0.0
    bar: Any = None
    with _UNLESS_AWAY:
        bar = create_progress_artifact(percent, description=role)
    record = _part_recorder(role)

    def update(line: str) -> None:
        with _UNLESS_AWAY:
            if bar:
                update_progress_artifact(bar, percent, line)

    def show(line: str) -> None:
        log.info(line)
        update(line)

    with log_lines(show)(role) as logged:

        def progress(done: int, total: int, unit: str, note: str = "") -> None:
            nonlocal percent
            percent = 100 * done / total if total else percent
            logged(done, total, unit, note)
            if record and isinstance(note, FinishedPart):
                record(note)

        yield progress
    percent = 100.0
    update(f"{role} is made")


def _part_recorder(role: str) -> Callable[[FinishedPart], None] | None:
    """Puts finished parts beside the stage's task; each is taken to have begun when the one before it ended.

    They are told as Prefect's own tasks tell their states, by events that leave in the background.
    """
    stage = TaskRunContext.get()
    if stage is None:
        return None
    here, flow_run, began = copy_context(), stage.task_run.flow_run_id, datetime.now(UTC)  # parts end on any thread

    def record(part: FinishedPart) -> None:
        nonlocal began
        ended = datetime.now(UTC)
        running: State[Any] = Running(timestamp=began)
        run = TaskRun(
            flow_run_id=flow_run,
            task_key="part",
            dynamic_key=str(uuid4()),
            name=f"{role}: {part}",
            run_count=1,
            task_inputs={"__parents__": [TaskRunResult(id=stage.task_run.id)]},
            expected_start_time=began,
            start_time=began,
            end_time=ended,
            total_run_time=ended - began,
        )
        here.run(emit_task_run_state_change_event, run, running, Completed(timestamp=ended))
        began = ended

    return record


def _key(*names: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    text = "-".join(names).lower()
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)


def costs_table(outcome: Outcome) -> Table:
    """What each stage of a run took, the last time that it had something to do; memory is unknown of another run's."""
    stages: dict[str, list[str]] = {}
    for role in outcome.artifacts:
        stages.setdefault(outcome.plan.steps[role].stage, []).append(role)
    rows = []
    for stage, roles in stages.items():
        cost = outcome.costs.get(stage)
        taken = cost.seconds if cost else sum(outcome.artifacts[role].manifest.made["seconds"] for role in roles)
        state = "made" if set(roles) & set(outcome.made) else "kept"
        rows.append((stage, ", ".join(roles), f"{taken:.1f}", f"{cost.memory_mib:,}" if cost else "–", state))
    return Table("Time and peak memory by stage", ("stage", "artifacts", "seconds", "MiB", "state"), tuple(rows))


def markdown_summary(outcome: Outcome, curve: str | None = None) -> str:
    """The page a scheduler shows for a run: metrics and learning curve where there are any, then costs and artifacts.

    Args:
        outcome: of the run.
        curve: address of the learning curve's picture.
    """
    name, artifacts = outcome.config.name, outcome.artifacts
    parts = [f"# EDDA run `{name}`"]
    parts += [metrics_table(artifacts).markdown()] if METRICS.name in artifacts else []
    parts += [f"![Loss and validation score by epoch]({curve})"] if curve else []
    return "\n\n".join(
        [*parts, costs_table(outcome).markdown(), artifacts_table(name, artifacts, outcome.made).markdown()]
    )
