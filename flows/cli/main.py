"""The command line `edda`: what runs is here, what looks and what compares beside it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError
from rich.console import Console

from flows.cli.compare import compare, tune
from flows.cli.datasets import datasets
from flows.cli.inspect import config, gc, inspect, report
from flows.cli.options import (
    FAILURE,
    INTERRUPTED,
    USAGE,
    Options,
    up_to_date,
)
from flows.cli.serve import index, recommend, serve
from flows.output.console import answer, show_logs, tell
from flows.runner.torchrun import is_first, run_under_torchrun
from flows.telemetry import NO_TELEMETRY

if TYPE_CHECKING:
    from flows.runner.execute import Outcome

EXAMPLES = {
    "demo": ["edda demo"],
    "run": ["edda run my.toml --set train.epochs=5"],
    "train": ["edda train my.toml"],
    "inspect": [
        "edda inspect my-run",
        "edda inspect my-run/pairs --head 5",
        'edda inspect my-run --sql "select * from pairs limit 5"',
    ],
    "report": ["edda report my-run"],
    "recommend": [
        "edda recommend my-run --domain books --user u17 --top 5",
        "edda recommend my-run --domain books --new-user i7,i11",
    ],
    "serve": ["edda serve my-run --port 8000"],
    "compare": ["edda compare my.toml --baselines", "edda compare my-run my-other-run --markdown"],
    "tune": ["edda tune my.toml --set tune.trials=30"],
    "gc": ["edda gc --dry-run"],
}
"""By command; the help of `edda` shows all."""


def _examples(*commands: str) -> str:
    shown = [f"    {line}" for command in commands for line in EXAMPLES.get(command, ())]
    return "\n".join(["Examples:", "", *shown]) if shown else ""


app = App(
    name="edda",
    help="Recommend in many domains at once: raw logs → graph → aligned pairs → embeddings → recommendations.",
    help_epilogue="A run is a TOML file; `edda config` prints every key with its default and meaning. Any key can be "
    "set on the command line: `--set train.epochs=5`. What exists already is never made again.\n\n"
    + _examples(*EXAMPLES),
    help_format="plaintext",
    version=lambda: version("edda-recsys"),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@app.command(name="run", sort_key=1, help_epilogue=_examples("run"))
def run_all(run: Path, /, *, options: Options = Options()) -> None:
    """Run all stages of a run's TOML file; only what is missing is made.

    Parameters
    ----------
    run:
        TOML file of the run.
    """
    from flows.report.html import report_path

    (outcome,) = up_to_date([(run, options.overrides)], options)
    _show(outcome)
    if (path := report_path(outcome.plan.store.root, outcome.config.name)).exists():
        answer(f"\nReport: {path}")


def _stage_command(stage: str, does: str) -> Callable[..., None]:
    def command(run: Path, /, *, options: Options = Options()) -> None:
        _show(*up_to_date([(run, options.overrides)], options, stage))

    command.__doc__ = f"{does} Makes what this needs first.\n\nParameters\n----------\nrun:\n    TOML file of the run."
    return command


_STAGES = {
    "ingest": "Read the raw logs: interactions and rejects.",
    "graph": "Number users and items and build each domain's train graph.",
    "neighbours": "Find the items that three-step walks over all domains' train interactions tie each item to.",
    "walk": "Describe each user and item by the anchors that random walks reach.",
    "align": "Pair users and items of different domains that reach the same anchors.",
    "train": "Train a checkpoint per seed, under torchrun by several processes; continues where it was interrupted.",
    "blend": "Fit how much evidence from walks weighs beside the vectors, by domain.",
    "evaluate": "Measure the checkpoints on held-out interactions.",
    "export": "Write embeddings and recommendations with the logs' own ids.",
}
for _place, (_stage, _does) in enumerate(_STAGES.items(), start=2):
    app.command(_stage_command(_stage, _does), name=_stage, sort_key=_place, help_epilogue=_examples(_stage))

for _command in (inspect, report, recommend, index, serve, compare, tune, config, gc):
    app.command(_command, sort_key=len(_STAGES) + 2, help_epilogue=_examples(_command.__name__))
app.command(datasets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    first = is_first(os.environ)
    show_logs(Console(stderr=True), logging.DEBUG if debug else logging.INFO if first else logging.WARNING)
    for name, value in {**NO_TELEMETRY, "PREFECT_LOGGING_LEVEL": "INFO" if debug else "CRITICAL"}.items():
        os.environ.setdefault(name, value)
    try:
        result = run_under_torchrun(lambda: _obeyed(arguments))
    except CycloptsError:
        sys.exit(USAGE)
    except KeyboardInterrupt:
        if first:
            tell("interrupted; what was finished is kept, the same command goes on from there")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as error:  # the outermost border: one message in place of a traceback
        if debug:
            raise
        tell(f"edda: {_message(error)}")
        sys.exit(FAILURE)
    sys.exit(result or 0)


def _obeyed(arguments: Sequence[str]) -> int | None:
    result: int | None = app(arguments, exit_on_error=False, print_error=True, error_console=Console(stderr=True))
    return result


def _message(error: Exception) -> str:
    """The error's own words where it was meant for people; else its type and stage as well, and how to see more."""
    from pydantic import ValidationError

    from flows.runner.failures import in_one_line, is_the_machines

    if is_the_machines(error) and getattr(error, "__notes__", []):
        return in_one_line(error)
    meant = isinstance(error, ValueError | OSError | LookupError)
    if meant and not isinstance(error, ValidationError | IndexError):
        return str(error.args[0]) if isinstance(error, KeyError) else str(error)
    where = [*getattr(error, "__notes__", [])][-1:]
    return f"{': '.join([*where, type(error).__name__, str(error)])} (--debug shows where)"


def _show(outcome: Outcome) -> None:
    from flows.output.tables import NOTHING_MEASURED, artifacts_table, metrics_table, reuse_table

    answer(artifacts_table(outcome.config.name, outcome.artifacts, outcome.made).plain())
    if reused := reuse_table(outcome.artifacts):
        answer("\n" + reused.plain())
    if "metrics" in outcome.artifacts:
        metrics = metrics_table(outcome.artifacts)
        answer("\n" + (metrics.plain() if metrics.rows else NOTHING_MEASURED))
