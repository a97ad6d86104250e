"""Bring runs up to date the cheapest way: if there is nothing to do, nothing heavy is imported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.resources import MemoryLimitError
from flows.config.run_config import RunSpec
from flows.output.console import Watch
from flows.report.keep import keep_report
from flows.runner.execute import Execution, Outcome, is_finished, is_recorded, known_costs, record, run_stages
from flows.runner.plan import make_plan
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)

CANNOT_BE_MADE = (MemoryLimitError, ModuleNotFoundError, ArithmeticError)
"""Errors of one model, not of the data or the machine: too large, an extra is not installed, or training diverged."""


@dataclass(frozen=True)
class Refusal:
    """A run that cannot be made, and why, with a remedy."""

    name: str
    reason: str


def bring_each_up_to_date(
    specs: Sequence[RunSpec], stage: str | None, watch: Watch, *, prefect: bool, digests: Digests | None = None
) -> list[Outcome | Refusal]:
    """Make what is missing of each run, as `bring_up_to_date`; a run that cannot be made does not stop the others."""
    results: list[Outcome | Refusal] = []
    digests = digests or Digests()
    for number, spec in enumerate(specs, 1):
        log.info("run %d of %d: %s", number, len(specs), spec.config.name)
        try:
            results += bring_up_to_date([spec], stage, watch, prefect=prefect, digests=digests)
        except CANNOT_BE_MADE as error:
            results.append(Refusal(spec.config.name, "; ".join(str(error).splitlines())))
    return results


def bring_up_to_date(
    specs: Sequence[RunSpec], stage: str | None, watch: Watch, *, prefect: bool, digests: Digests | None = None
) -> list[Outcome]:
    """Make what is missing of each run. Every log file is read only once for its digest, however many runs use it.

    Args:
        specs: the runs, to be made one after another.
        stage: one stage and what it needs; all stages if None.
        watch: shows progress.
        prefect: run as a Prefect flow, otherwise as plain functions.
        digests: of log files that this process has read already.

    Returns:
        The outcome of each run, in the same order; `made` is empty if there was nothing to do.
    """
    digests = digests or Digests()
    finished = _find_finished(specs, stage, digests)
    if finished is not None:
        return finished
    if prefect:
        from flows.orchestration.embedded import run_flows

        return run_flows(specs, stage, watch, digests)
    return [_run(spec, stage, watch, digests) for spec in specs]


def _run(spec: RunSpec, stage: str | None, watch: Watch, digests: Digests) -> Outcome:
    execution = Execution(watch=watch, command=f"edda {stage or 'run'} {spec}", digests=digests)
    outcome = run_stages(spec.config, stage, execution)
    if stage is None:
        keep_report(outcome.config.name, outcome.plan.store)
    return outcome


def _find_finished(specs: Sequence[RunSpec], stage: str | None, digests: Digests) -> list[Outcome] | None:
    """The runs' outcomes if nothing is missing of any of them, otherwise None."""
    outcomes = []
    for spec in specs:
        plan = make_plan(spec.config, digests)
        if not is_finished(plan, stage):
            return None
        artifacts = plan.existing()
        outcome = Outcome(plan, artifacts, [], known_costs(plan, artifacts))
        outcomes.append(outcome)
        if not is_recorded(outcome) and not plan.store.is_run_locked(spec.config.name):
            record(outcome)  # if another process works on a run of this name, that will record it
        if stage is None:
            keep_report(spec.config.name, plan.store)
    return outcomes
