"""What commands accept, and how those that work on a run do it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.output.console import tell, watcher
from flows.runner.torchrun import are_several

if TYPE_CHECKING:
    from flows.orchestration.up_to_date import Runs
    from flows.runner.execute import Outcome

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

    @property
    def overrides(self) -> list[str]:
        """The overrides, those of other options among them."""
        from flows.config.run_config import store_override

        return [*self.set, *store_override(self.store), *(["update=true"] if self.update else [])]


def up_to_date(runs: Runs, options: Options, stage: str | None = None) -> list[Outcome]:
    """Make what is missing of each run, as a Prefect flow where the options have it; says so where nothing is.

    Args:
        runs: TOML files with their overrides.
        options: of the command.
        stage: one stage and what it needs; all by default.

    Returns:
        What each run has, in the same order.
    """
    outcomes = brought_up_to_date(runs, options, stage)
    tell_where_nothing_was_made(outcomes)
    return outcomes


def brought_up_to_date(runs: Runs, options: Options, stage: str | None = None) -> list[Outcome]:
    """As `up_to_date`, without a word where there was nothing to do."""
    from flows.orchestration.up_to_date import bring_up_to_date

    prefect = options.prefect and not are_several(os.environ)
    return bring_up_to_date(runs, stage, watcher(), prefect=prefect)


def tell_where_nothing_was_made(outcomes: Sequence[Outcome]) -> None:
    """Say so where there was nothing to do for any of them."""
    if not any(outcome.made for outcome in outcomes):
        tell("nothing to do, everything is up to date")
