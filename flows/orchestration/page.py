"""The page of a run in Prefect's UI: artifacts, metrics, costs, the learning curve, progress."""

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
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun, TaskRunResult
from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed, Running
from prefect.utilities.engine import emit_task_run_state_change_event

from data_contracts.contracts import METRICS
from data_contracts.progress import FinishedPart, Logged, Progress
from data_contracts.store.artifact import Artifact
from flows.output.console import log_lines
from flows.output.plots import learning_curve
from flows.output.tables import Table, artifacts_table, metrics_table, reuse_table
from flows.runner.execute import Outcome

_IGNORE_OUTAGE = suppress(HTTPError)
"""A server that is unreachable even after Prefect's own retries stops no stage; the next run shows what is missing."""


def show_artifact(run: str, role: str, artifact: Artifact) -> None:
    """Show where an artifact is; without a link, because no browser opens a folder or s3:// from a page of a server."""
    address = artifact.address if artifact.origin else artifact.path.absolute()
    rows = f"{artifact.manifest.rows:,} rows. {artifact.contract.meaning}"
    look = f"`edda inspect {run}/{role}` shows what it holds."
    with _IGNORE_OUTAGE:
        create_markdown_artifact(f"`{address}`\n\n{rows}\n\n{look}", key=_key(run, role), description=rows)


def tag_flow_run(run: str, stage: str) -> None:
    """Tag the flow run in progress with its run and stage, so that the UI finds it by them."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with _IGNORE_OUTAGE, get_client(sync_client=True) as client:
        tags = {*context.flow_run.tags, "edda", f"run:{run}", f"stage:{stage}"}
        client.update_flow_run(context.flow_run.id, tags=sorted(tags))


def show_outcome(outcome: Outcome) -> None:
    """Show a run's metrics, artifacts and costs as a page, its costs as a table, and its training as a picture."""
    name, costs = outcome.config.name, costs_table(outcome)
    picture = learning_curve(outcome.artifacts)
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}" if picture else None
    page, reused = markdown_summary(outcome, url), reuse_table(outcome.artifacts)
    page += f"\n\n{reused.markdown()}" if reused else ""
    with _IGNORE_OUTAGE:
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
    """Show progress in the flow run's log and as a bar on the stage's page.

    Each finished part of the work (a domain, or a pair of domains) becomes a task run beside the stage's.
    """
    log, percent, is_logged = get_run_logger(), 0.0, False
    bar: Any = None
    with _IGNORE_OUTAGE:
        bar = create_progress_artifact(percent, description=role)
    record = _build_part_recorder(role)

    def update(line: str) -> None:
        with _IGNORE_OUTAGE:
            if bar:
                update_progress_artifact(bar, percent, line)

    def show(line: str) -> None:
        if not is_logged:
            log.info(line)
        update(line)

    with log_lines(show, with_logged=True)(role) as logged:

        def progress(done: int, total: int, unit: str, note: str = "") -> None:
            nonlocal percent, is_logged
            is_logged = isinstance(note, Logged)
            percent = 100 * done / total if total else percent
            logged(done, total, unit, note)
            if record and isinstance(note, FinishedPart):
                record(note)

        yield progress
    percent = 100.0
    update(f"{role} is made")


def _build_part_recorder(role: str) -> Callable[[FinishedPart], None] | None:
    """A function that adds a finished part as a task run, which starts when the last part ended; None without a task.

    As for Prefect's own tasks, states are sent as events in the background.
    """
    stage = TaskRunContext.get()
    if stage is None:
        return None
    context, started = copy_context(), datetime.now(UTC)  # parts may end on any thread

    def record(part: FinishedPart) -> None:
        nonlocal started
        ended = datetime.now(UTC)
        running: State[Any] = Running(timestamp=started)
        run = TaskRun(
            flow_run_id=stage.task_run.flow_run_id,
            task_key="part",
            dynamic_key=str(uuid4()),
            name=f"{role}: {part}",
            run_count=1,
            task_inputs={"__parents__": [TaskRunResult(id=stage.task_run.id)]},
            expected_start_time=started,
            start_time=started,
            end_time=ended,
            total_run_time=ended - started,
        )
        context.run(emit_task_run_state_change_event, run, running, Completed(timestamp=ended))
        started = ended

    return record


def _key(*names: str) -> str:
    """A key of a Prefect artifact, in which only lower-case letters, digits and dashes are allowed."""
    text = "-".join(names).lower()
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)


def costs_table(outcome: Outcome) -> Table:
    """Cost of each stage, the last time that it had something to do; memory is unknown if another run made all."""
    stages: dict[str, list[str]] = {}
    for role in outcome.artifacts:
        stages.setdefault(outcome.plan.steps[role].stage, []).append(role)
    rows = []
    for stage, roles in stages.items():
        cost = outcome.costs.get(stage)
        seconds = cost.seconds if cost else sum(outcome.artifacts[role].manifest.made["seconds"] for role in roles)
        state = "made" if set(roles) & set(outcome.made) else "kept"
        rows.append((stage, ", ".join(roles), f"{seconds:.1f}", f"{cost.memory_mib:,}" if cost else "–", state))
    return Table("Time and peak memory by stage", ("stage", "artifacts", "seconds", "MiB", "state"), tuple(rows))


def markdown_summary(outcome: Outcome, curve: str | None = None) -> str:
    """A run's page as Markdown: metrics and learning curve if there are any, then costs and artifacts.

    Args:
        outcome: of the run.
        curve: URL of the learning curve's picture.
    """
    name, artifacts = outcome.config.name, outcome.artifacts
    blocks = [f"# EDDA run `{name}`"]
    blocks += [metrics_table(artifacts).markdown()] if METRICS.name in artifacts else []
    blocks += [f"![Loss and validation score by epoch]({curve})"] if curve else []
    blocks += [costs_table(outcome).markdown(), artifacts_table(name, artifacts, outcome.made).markdown()]
    return "\n\n".join(blocks)
