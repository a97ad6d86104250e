"""The command `run`, and one command for each stage."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from data_contracts.contracts import RECOMMENDATIONS, WORLD
from data_contracts.store.artifact import read_blocks
from flows.cli.options import Options, bring_up_to_date
from flows.config.run_config import DEFAULT_STORE, RunSpec
from flows.output.console import print_result, terminal_width
from flows.output.tables import NOTHING_MEASURED, Table, artifacts_table, metrics_table, reuse_table
from flows.runner.execute import Outcome
from flows.runner.lookup import report_path
from flows.runner.plan import make_plan
from flows.runner.preview import ALL_FOLLOWS_FROM_WORLD, preview
from flows.runner.stages import STAGES, Stage

DryRun = Annotated[bool, Parameter(negative="", show_default=False)]


def run(run: Path, /, *, dry_run: DryRun = False, options: Options = Options()) -> None:
    """Run all stages of a run's TOML file; only what is missing is made.

    Parameters
    ----------
    run:
        TOML file of the run.
    dry_run:
        only show what would be made and why.
    """
    if dry_run:
        _show_plan(options.spec(run))
        return
    (outcome,) = bring_up_to_date([options.spec(run)], options)
    _show(outcome)
    if (path := report_path(outcome.plan.store.root, outcome.config.name)).exists():
        print_result(f"\nReport: {path}")
    if RECOMMENDATIONS.name in outcome.made and (command := recommend_command(outcome)):
        print_result(f"Try: {command}")


def recommend_command(outcome: Outcome) -> str:
    """The command that recommends items to the first user of the last domain; empty if no user has any."""
    recommendations = outcome.artifacts[RECOMMENDATIONS.name]
    for domain in reversed([partition["domain"] for partition in recommendations.partitions()]):
        for rows in read_blocks(recommendations, ["user_id"], 1, domain=domain):
            store = outcome.plan.store
            option = "" if store.root == Path.cwd() / DEFAULT_STORE else f" --store {shlex.quote(str(store))}"
            words = (f"--domain={domain}", f"--user={rows['user_id'][0].as_py()}")
            return f"edda recommend {outcome.config.name} {shlex.join(words)} --top 5{option}"
    return ""


def _stage_command(stage: Stage) -> Callable[..., None]:
    def command(run: Path, /, *, dry_run: DryRun = False, options: Options = Options()) -> None:
        if dry_run:
            _show_plan(options.spec(run), stage.command)
            return
        _show(*bring_up_to_date([options.spec(run)], options, stage.command))

    command.__doc__ = (
        f"{stage.help} Makes what this needs first.\n\nParameters\n----------\nrun:\n    TOML file of the run.\n"
        "dry_run:\n    only show what would be made and why."
    )
    return command


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a stage, by the stage's name: the table of commands refers to `flows.cli.run:ingest` and so on."""
    for stage in STAGES:
        if stage.command == name:
            return _stage_command(stage)
    raise AttributeError(name)


def _show_plan(spec: RunSpec, stage: str | None = None) -> None:
    planned = preview(make_plan(spec.config), stage)
    rows = tuple(
        (
            artifact.role,
            "damaged" if artifact.is_damaged else "to make" if artifact.reason else "exists",
            "–" if artifact.seconds is None else f"{artifact.seconds:,.1f}",
            artifact.reason,
        )
        for artifact in planned
    )
    header = ("artifact", "state", "seconds last time", "why")
    print_result(
        Table(f"What {spec.config.name} needs; nothing was made", header, rows, left=True).plain(terminal_width())
    )
    to_make = [artifact for artifact in planned if artifact.reason and not artifact.is_damaged]
    known = [artifact.seconds for artifact in to_make if artifact.seconds is not None]
    took = f"; {len(known)} of them took {sum(known):,.1f} s the last time" if known else ""
    print_result(f"\n{len(to_make)} of {len(planned)} artifacts would be made{took}")
    if [artifact.role for artifact in to_make] == [WORLD.name]:
        print_result(ALL_FOLLOWS_FROM_WORLD)


def _show(outcome: Outcome) -> None:
    print_result(artifacts_table(outcome.config.name, outcome.artifacts, outcome.made).plain(terminal_width()))
    if reused := reuse_table(outcome.artifacts):
        print_result("\n" + reused.plain(terminal_width()))
    if "metrics" in outcome.artifacts:
        metrics = metrics_table(outcome.artifacts)
        print_result("\n" + (metrics.plain(terminal_width()) if metrics.rows else NOTHING_MEASURED))
