"""The Prefect flow `edda`: every stage is a task, in a full run or up to a single stage.

Several deployments share the flow; `prefect.yaml` lists them. The keys of its artifacts show whether a stage has
anything to do, so a repeated run consists of tasks in state `Skipped`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from pydantic import Field

from data_contracts.store.artifact import Artifact
from flows.config.run_config import RunSpec
from flows.orchestration.page import page_progress, show_artifact, show_outcome, tag_flow_run
from flows.output.characters import escape
from flows.output.console import PACKAGES, Watch
from flows.report.keep import keep_report
from flows.runner.execute import Execution, Outcome, make_roles, run_stages
from flows.runner.failures import format_failure, is_transient
from flows.runner.plan import Plan
from flows.runner.stages import STAGE_NAMES
from pipeline.logs.discovery import Digests

StageName = Literal["full", *STAGE_NAMES]  # type: ignore[valid-type]  # the server's form offers these
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass
class _Session:
    """Objects that a flow and the process that starts it exchange; they cannot be parameters, which must be JSON."""

    watch: Watch
    digests: Digests
    outcome: Outcome | None = None


_session: ContextVar[_Session | None] = ContextVar("session", default=None)


def run_flow(spec: RunSpec, stage: str | None, watch: Watch, digests: Digests) -> Outcome:
    """Run the flow in this process.

    Args:
        spec: the run.
        stage: one stage and what it needs; all stages if None.
        watch: shows progress.
        digests: of the log files that this process has read.
    """
    session = _Session(watch, digests)
    token = _session.set(session)
    try:
        edda(str(spec.path), overrides=list(spec.overrides), stage=stage or "full")
    finally:
        _session.reset(token)
    if session.outcome is None:
        raise RuntimeError(f"the flow of run {spec.config.name!r} ended without an outcome")
    return session.outcome


def _retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry only after errors that may pass; wrong input stays wrong."""
    return is_transient(state.data)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=_retry,
)
def work_on_stage(plan: Plan, stage: str, roles: list[str], watch: Watch) -> Any:
    """Make a stage's missing artifacts and show where all of its artifacts are; `Skipped` if none are missing."""
    try:
        made = make_roles(plan, stage, roles, watch)
    except Exception as error:  # the state shows people one line in place of a traceback
        return _failed_state(error)
    for role, step in plan.steps.items():
        if step.stage == stage and (artifact := plan.find(role)):
            show_artifact(plan.config.name, role, artifact)
    keys = {role: artifact.key for role, artifact in made.items()}
    if not roles:
        return Completed(name="Skipped", message=f"{stage}: everything exists already", data=keys)
    return Completed(message=f"{stage}: made {', '.join(roles)}", data=keys)


def _work(plan: Plan, stage: str, roles: list[str], watch: Watch) -> dict[str, Artifact]:
    state: Any = work_on_stage(plan, stage, roles, watch)
    keys = state.result()  # raises the task's error
    return {role: artifact for role in keys if (artifact := plan.find(role))}


def _failed_state(error: Exception) -> Any:
    get_run_logger().debug("traceback of the failure", exc_info=error)
    return Failed(message=format_failure(error), data=error)


def _silence_traceback(error: Exception) -> None:
    """Keep Prefect from logging the traceback of an error that is already in the log, when the process ends.

    Unexpected errors, which may be bugs of this program, keep their traceback.
    """

    def is_another_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or not record.exc_info or record.exc_info[1] is not error

    if isinstance(error, ValueError | OSError):
        for name in ("prefect.flow_runs", "prefect.engine"):
            logging.getLogger(name).addFilter(is_another_error)


def _escape_record(record: logging.LogRecord) -> bool:
    """Escape control characters of ids in a log record, whoever prints it."""
    record.msg, record.args = escape(record.getMessage(), "\n\t"), None
    return True


@contextmanager
def _show_package_logs() -> Iterator[None]:
    """In a worker, send the packages' log messages, which a terminal would show, to the flow run's log."""
    unset = [logger for name in PACKAGES if (logger := logging.getLogger(name)).level == logging.NOTSET]
    for handler in {handler for name in PACKAGES for handler in logging.getLogger(name).handlers}:
        handler.addFilter(_escape_record)
    try:
        for logger in unset:
            logger.setLevel(logging.INFO)
        yield
    finally:
        for logger in unset:
            logger.setLevel(logging.NOTSET)


def _run(spec: RunSpec, stage: str | None) -> None:
    """Bring a run, or one stage of it, up to date as tasks of the flow run that is in progress."""
    session, command = _session.get(), f"edda {stage or 'run'} {spec}"
    tag_flow_run(spec.config.name, stage or "full")
    if session:
        execution = Execution(_work, session.watch, command, session.digests)
        session.outcome = outcome = run_stages(spec.config, stage, execution)
    else:  # a worker's process, without a terminal
        with _show_package_logs():
            outcome = run_stages(spec.config, stage, Execution(_work, page_progress, command))
    if stage is None:
        keep_report(outcome.config.name, outcome.plan.store)
    show_outcome(outcome)


@flow(name="edda", flow_run_name="{stage}: {run}", persist_result=False)
def edda(
    run: str,
    seed: Seed | None = None,
    overrides: list[str] = [],  # noqa: B006 - never changed, and None would be no list in the page's form
    stage: StageName = "full",
) -> Any:
    """Bring a run up to date: make what is missing, skip what exists.

    Args:
        run: Path of the run's TOML file, as the worker sees it.
        seed: Train with this seed only, instead of the file's train.seeds.
        overrides: KEY=VALUE to override the file's values, one per line, e.g. train.epochs=5.
        stage: The stage to bring up to date, with all that it needs; all stages by default.
    """
    seeds = [] if seed is None else [f"train.seeds=[{seed}]"]
    try:
        _run(RunSpec(Path(run), (*overrides, *seeds)), None if stage == "full" else stage)
    except Exception as error:  # as in the task
        get_run_logger().error(format_failure(error))
        _silence_traceback(error)
        return _failed_state(error)
    return Completed()
