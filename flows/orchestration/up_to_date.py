"""Bring runs up to date the cheapest way: nothing heavy is imported where there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_contracts.store.claims import is_held
from flows.config.run_config import load_config
from flows.output.console import Watch
from flows.report.html import keep_report
from flows.runner.execute import (
    Outcome,
    costs_before,
    file_with_options,
    is_finished,
    is_recorded,
    record,
    run_lock,
    run_stages,
    watch,
)
from flows.runner.plan import make_plan

Runs = Sequence[tuple[Path, list[str]]]
"""TOML files with their overrides."""


def bring_up_to_date(runs: Runs, stage: str | None, watcher: Watch, *, prefect: bool) -> list[Outcome]:
    """Make what is missing of each run.

    Args:
        runs: the runs, made one after another.
        stage: one stage and what it needs; all by default.
        watcher: is told how far the work is.
        prefect: work as a Prefect flow, else as plain functions.

    Returns:
        What each run has, in the same order; `made` is empty where there was nothing to do.
    """
    finished = _finished(runs, stage)
    if finished is not None:
        return finished
    token = watch.set(watcher)
    try:
        if prefect:
            from flows.orchestration.embedded import run_flows

            return run_flows(runs, stage)
        return [_run(path, overrides, stage) for path, overrides in runs]
    finally:
        watch.reset(token)


def _run(path: Path, overrides: list[str], stage: str | None) -> Outcome:
    outcome = run_stages(load_config(path, overrides), stage, file=file_with_options(path, overrides))
    if stage is None:
        keep_report(outcome.config.name, outcome.plan.store)
    return outcome


def _finished(runs: Runs, stage: str | None) -> list[Outcome] | None:
    """The runs' outcomes where nothing is missing, else None."""
    outcomes = []
    for path, overrides in runs:
        plan = make_plan(load_config(path, overrides))
        if not is_finished(plan, stage):
            return None
        found = plan.found()
        outcome = Outcome(plan, found, [], costs_before(plan, found))
        outcomes.append(outcome)
        if not is_recorded(outcome) and not is_held(run_lock(plan.store, outcome.config.name)):
            record(outcome)  # whoever works on a run of this name will record it itself
        if stage is None:
            keep_report(outcome.config.name, plan.store)
    return outcomes
