"""The command `run`, and one command for each stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.cli.options import Options, bring_up_to_date
from flows.output.console import print_result
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
        print_result(f"\nReport: {path}")


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(run: Path, /, *, options: Options = Options()) -> None:
        _show(*bring_up_to_date([options.spec(run)], options, stage.command))

    command.__doc__ = (
        f"{stage.help} Makes what this needs first.\n\nParameters\n----------\nrun:\n    TOML file of the run."
    )
    return command


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a stage, by the stage's name: the table of commands refers to `flows.cli.run:ingest` and so on."""
    for stage in STAGES:
        if stage.command == name:
            return _stage_command(stage)
    raise AttributeError(name)


def _show(outcome: Outcome) -> None:
    print_result(artifacts_table(outcome.config.name, outcome.artifacts, outcome.made).plain())
    if reused := reuse_table(outcome.artifacts):
        print_result("\n" + reused.plain())
    if "metrics" in outcome.artifacts:
        metrics = metrics_table(outcome.artifacts)
        print_result("\n" + (metrics.plain() if metrics.rows else NOTHING_MEASURED))
