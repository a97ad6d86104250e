"""Options that several commands share, and what commands do that bring runs up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from flows.cli.arguments import Messages
from flows.config.run_config import RunSpec, store_override
from flows.orchestration import up_to_date
from flows.output.console import inform, watcher
from flows.runner.execute import Outcome
from flows.runner.torchrun import is_multi_process
from pipeline.logs.discovery import Digests

Run = Annotated[str, Parameter(help="a run's name in the store, or its TOML file.")]


def _as_whole_number(_: type, tokens: Sequence[Token]) -> int:
    """The value of an option that counts something; the parser itself would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"found {tokens[0].value!r}, must be a whole number") from None


Whole = Annotated[int, Parameter(converter=_as_whole_number)]
"""A whole number in decimal digits."""


@Parameter(name="*")
@dataclass(frozen=True)
class Viewing(Messages):
    """Options of every command that reads a run."""

    store: Annotated[str | None, Parameter(metavar="FOLDER")] = None
    """Folder of all artifacts, or s3://, gs://, abfs://; by default the file's, else $EDDA_STORE, else ./edda-store."""


@Parameter(name="*")
@dataclass(frozen=True)
class Overriding(Viewing):
    """Options of every command that takes a run's TOML file."""

    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False, metavar="KEY=VALUE")] = ()
    """Override the file's value of a key, e.g. train.epochs=5; may be repeated."""
    update: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Continue from the last run of the name instead of from scratch, as `update = true` in the file."""

    def spec(self, path: Path) -> RunSpec:
        """The run of a TOML file, with the overrides of these options."""
        update = ["update=true"] if self.update else []
        return RunSpec(path, (*self.set, *store_override(self.store), *update))


@Parameter(name="*")
@dataclass(frozen=True)
class Options(Overriding):
    """Options of every command that makes artifacts of a run."""

    prefect: bool | None = None
    """Run as a Prefect flow, on Prefect's embedded API if PREFECT_API_URL names no server, or as plain functions; by
    default as a flow only if PREFECT_API_URL is set."""

    @property
    def uses_prefect(self) -> bool:
        """Runs are Prefect flows; never in one of several processes that train together."""
        is_wanted = bool(os.environ.get("PREFECT_API_URL")) if self.prefect is None else self.prefect
        return is_wanted and not is_multi_process(os.environ)


def bring_up_to_date(
    specs: Sequence[RunSpec],
    options: Options,
    stage: str | None = None,
    *,
    quietly: bool = False,
    digests: Digests | None = None,
) -> list[Outcome]:
    """Make what is missing of each run, as a Prefect flow if the options say so.

    Args:
        specs: the runs.
        options: of the command.
        stage: one stage and what it needs; all stages by default.
        quietly: print no message if there was nothing to do.
        digests: of log files that this process has read already.

    Returns:
        The outcome of each run, in the same order.
    """
    outcomes = up_to_date.bring_up_to_date(specs, stage, watcher(), prefect=options.uses_prefect, digests=digests)
    if not quietly:
        report_nothing_to_do(outcomes)
    return outcomes


def report_nothing_to_do(outcomes: Sequence[Outcome]) -> None:
    """Print a message if there was nothing to do for any of the runs."""
    if not any(outcome.made for outcome in outcomes):
        inform("nothing to do, everything is up to date")
