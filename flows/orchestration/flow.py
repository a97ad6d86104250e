"""The Prefect flow `edda`: every stage a task, as one full run or up to a single stage.

Several deployments share the flow; `prefect.yaml` names them. A stage decides by its artifacts' keys whether there is
anything to do, so a repeated run is a row of tasks in state `Skipped`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from pydantic import Field

from data_contracts.store.artifact import Artifact
from flows.config.run_config import load_config
from flows.orchestration.page import link_artifact, show_outcome, shown_progress
from flows.output.console import PACKAGES
from flows.report.html import keep_report
from flows.runner.execute import file_with_options, make_roles, nobody, run_stages, watch
from flows.runner.failures import in_one_line, is_passing
from flows.runner.plan import Plan

Stage = Literal["full", "ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _retry(_task: Any, _run: Any, state: Any) -> bool:
    """Wrong input stays wrong: only errors that pass are tried again."""
    return is_passing(state.data)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=_retry,
)
def work_on_stage(plan: Plan, stage: str, roles: list[str]) -> Any:
    """Make a stage's missing artifacts; `Skipped` where there are none. Each artifact of the stage gets a link."""
    try:
        made = make_roles(plan, stage, roles)
    except Exception as error:  # the task's border: the state tells a person what a traceback would bury
        return _failed(error)
    for role, step in plan.steps.items():
        if step.stage == stage and (artifact := plan.find(role)):
            link_artifact(plan.config.name, role, artifact)
    keys = {role: artifact.key for role, artifact in made.items()}
    if not roles:
        return Completed(name="Skipped", message=f"{stage}: everything exists already", data=keys)
    return Completed(message=f"{stage}: made {', '.join(roles)}", data=keys)


def _work(plan: Plan, stage: str, roles: list[str]) -> dict[str, Artifact]:
    state: Any = work_on_stage(plan, stage, roles)
    keys = state.result()  # raises what made the task fail
    return {role: artifact for role in keys if (artifact := plan.find(role))}


def _failed(error: Exception) -> Any:
    get_run_logger().debug("what led to it", exc_info=error)
    return Failed(message=in_one_line(error), data=error)


def _tell_no_more(error: Exception) -> None:
    """Keep Prefect from logging, when the process of a flow run ends, the traceback of what was told in one line.

    What no words were found for, a mistake of this program perhaps, keeps its traceback.
    """

    def is_news(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or not record.exc_info or record.exc_info[1] is not error

    if isinstance(error, ValueError | OSError):
        for name in ("prefect.flow_runs", "prefect.engine"):
            logging.getLogger(name).addFilter(is_news)


@contextmanager
def _shown() -> Iterator[None]:
    """Where nobody watches the process, progress goes to the page, and to the log what terminals show."""
    if watch.get() is not nobody:
        yield
        return
    token = watch.set(shown_progress)
    unset = [logger for name in PACKAGES if (logger := logging.getLogger(name)).level == logging.NOTSET]
    try:
        for logger in unset:
            logger.setLevel(logging.INFO)
        yield
    finally:
        watch.reset(token)
        for logger in unset:
            logger.setLevel(logging.NOTSET)


def _run(run: str, overrides: list[str], stage: str | None = None) -> None:
    """Bring a run, or one stage of it, up to date as tasks of the flow run that is in progress."""
    with _shown():
        file = file_with_options(Path(run), overrides)
        outcome = run_stages(load_config(Path(run), overrides), stage, _work, file)
        if stage is None:
            keep_report(outcome.config.name, outcome.plan.store)
    show_outcome(outcome)


@flow(name="edda", flow_run_name="{stage}: {run}", persist_result=False)
def edda(
    run: str,
    seed: Seed | None = None,
    overrides: list[str] = [],  # noqa: B006 - never changed, and None would be no list in the page's form
    stage: Stage = "full",
) -> Any:
    """Bring a run up to date: what exists is skipped, what is missing is made.

    Args:
        run: Path of the run's TOML file, as the worker sees it.
        seed: Train with this seed only, in place of the file's train.seeds.
        overrides: KEY=VALUE over the file's values, each a line of its own, e.g. train.epochs=5.
        stage: The stage to bring up to date, with all that it needs; all stages by default.
    """
    seeds = [] if seed is None else [f"train.seeds=[{seed}]"]
    try:
        _run(run, [*overrides, *seeds], None if stage == "full" else stage)
    except Exception as error:  # the flow's border, as the task's
        get_run_logger().error(in_one_line(error))
        _tell_no_more(error)
        return _failed(error)
    return Completed()
