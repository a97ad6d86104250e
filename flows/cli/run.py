"""Commands that work on a run: `run`, and one for each stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.cli.options import Options, bring_up_to_date
from flows.output.console import answer
from flows.output.tables import NOTHING_MEASURED, artifacts_table, metrics_table, reuse_table
from flows.runner.execute import Outcome
from flows.runner.lookup import report_path
from flows.runner.stages import STAGES, Stage


def run(run: Path, /, *, options: Options = Options()) -> None:
    """Run all stages of a run's TOML file; only what is missing is made.

    Parameters
    ----------
    run:
        TOML file of the run.
    """
    (outcome,) = bring_up_to_date([options.spec(run)], options)
    _show(outcome)
    if (path := report_path(outcome.plan.store.root, outcome.config.name)).exists():
        answer(f"\nReport: {path}")


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(run: Path, /, *, options: Options = Options()) -> None:
        _show(*bring_up_to_date([options.spec(run)], options, stage.command))

    command.__doc__ = (
        f"{stage.help} Makes what this needs first.\n\nParameters\n----------\nrun:\n    TOML file of the run."
    )
    return command


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a stage, `ingest` and so on, as the table of commands names it."""
    for stage in STAGES:
        if stage.command == name:
            return _stage_command(stage)
    raise AttributeError(name)


def _show(outcome: Outcome) -> None:
    answer(artifacts_table(outcome.config.name, outcome.artifacts, outcome.made).plain())
    if reused := reuse_table(outcome.artifacts):
        answer("\n" + reused.plain())
    if "metrics" in outcome.artifacts:
        metrics = metrics_table(outcome.artifacts)
        answer("\n" + (metrics.plain() if metrics.rows else NOTHING_MEASURED))
