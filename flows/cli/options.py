"""What commands accept, and how those that work on runs do it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.config.run_config import RunSpec, store_override
from flows.orchestration import up_to_date
from flows.output.console import tell, watcher
from flows.runner.execute import Outcome
from flows.runner.torchrun import are_several

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
"""Exit statuses; 0 is success."""

Run = Annotated[str, Parameter(help="a run's name in the store, or its TOML file.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Viewing:
    """What every command that looks at a run accepts."""

    store: str | None = None
    """Folder of all artifacts, or s3://, gs://, abfs://; without it the file's, else $EDDA_STORE, else ./edda-store."""
    debug: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Show tracebacks and debugging messages."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options(Viewing):
    """What every command that works on a run accepts."""

    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = ()
    """KEY=VALUE over the file's value, e.g. train.epochs=5; may be repeated."""
    update: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Go on from what the run's name made last, in place of from scratch; as `update = true` in the file."""
    prefect: bool = True
    """Run as a Prefect flow, on its embedded API unless PREFECT_API_URL names a server; or as plain functions."""

    def spec(self, path: Path) -> RunSpec:
        """The run of a TOML file, with the overrides of all options."""
        update = ["update=true"] if self.update else []
        return RunSpec(path, (*self.set, *store_override(self.store), *update))


def bring_up_to_date(
    specs: Sequence[RunSpec], options: Options, stage: str | None = None, *, quietly: bool = False
) -> list[Outcome]:
    """Make what is missing of each run, as a Prefect flow where the options have it.

    Args:
        specs: the runs.
        options: of the command.
        stage: one stage and what it needs; all by default.
        quietly: say nothing where there was nothing to do.

    Returns:
        What each run has, in the same order.
    """
    prefect = options.prefect and not are_several(os.environ)
    outcomes = up_to_date.bring_up_to_date(specs, stage, watcher(), prefect=prefect)
    if not quietly:
        say_where_nothing_was_made(outcomes)
    return outcomes


def say_where_nothing_was_made(outcomes: Sequence[Outcome]) -> None:
    """Say so where there was nothing to do for any of them."""
    if not any(outcome.made for outcome in outcomes):
        tell("nothing to do, everything is up to date")
