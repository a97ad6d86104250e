"""The command line `edda`: registers all commands and turns errors into exit codes."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, UnusedCliTokensError, ValidationError

from data_contracts.cache_folders import provide_caches
from data_contracts.resources import raise_open_files
from flows import NO_TELEMETRY
from flows.cli.arguments import Messages, fill_in_baselines
from flows.output.characters import show_what_can_be_shown
from flows.output.console import inform, show_logs
from flows.output.help_panels import ReflowedPanels
from flows.runner.failures import (
    FAILURE,
    INTERRUPTED,
    USAGE,
    describe_error,
    format_failure,
    is_out_of_memory,
    is_system_error,
)
from flows.runner.stage_names import STAGE_HELP
from flows.runner.torchrun import is_first, record_error, run_under_torchrun

EXAMPLES = {
    "demo": ["edda demo"],
    "init": ["edda init books.csv films.jsonl.gz --name shop"],
    "run": ["edda run my.toml --set train.epochs=5"],
    "train": ["edda train my.toml"],
    "status": ["edda status my.toml", "edda status my-run"],
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
    "compare": [
        "edda compare my.toml --baselines",
        "edda compare my.toml --baselines ease,ials",
        "edda compare my-run my-other-run --markdown",
    ],
    "tune": ["edda tune my.toml --trials 30", "edda tune my.toml --baselines --trials 30"],
    "scoreboard": ["edda scoreboard my.toml --trials 20", "edda scoreboard --seeds 2022,2023,2024,2025,2026"],
    "experiment": ["edda experiment overlap --small", "edda experiment oracle-twins my.toml --seeds 5"],
    "runs": ["edda runs", "edda runs my-run"],
    "promote": ["edda promote my-run@1f3a9c02"],
    "delete": ["edda delete my-run@1f3a9c02", "edda delete my-run"],
    "gc": ["edda gc --dry-run"],
}
"""Command → examples in its help; the help of `edda` shows all."""

COMMANDS = {
    "demo": ("flows.cli.demo:demo", "Run the pipeline on a generated world and compare it with simpler recommenders."),
    "init": (
        "flows.cli.datasets:init",
        "Write a first TOML file for your logs, guessed from their first rows.",
    ),
    "run": ("flows.cli.run:run", "Run all stages of a run's TOML file; only what is missing is made."),
    **{
        stage: (f"flows.cli.run:{stage}", f"{first_line} Makes what this needs first.")
        for stage, first_line in STAGE_HELP.items()
    },
    "status": (
        "flows.cli.runs:status",
        "Show which artifacts of a run are made, missing or damaged, how long each took, and its size.",
    ),
    "inspect": (
        "flows.cli.inspect:inspect",
        "Show what an artifact or a run holds, whether it keeps its contract, and where it comes from; or all runs.",
    ),
    "report": (
        "flows.cli.inspect:report",
        "Write a run's report, finished or not, as one HTML file, and print its path.",
    ),
    "recommend": (
        "flows.cli.serve:recommend",
        "Print the best items for a user, known or new, or those most like an item: rank, item, score.",
    ),
    "index": (
        "flows.cli.serve:index",
        "Build an approximate index (HNSW) of each domain's items and compare it with exact search.",
    ),
    "serve": (
        "flows.cli.serve:serve",
        "Answer over HTTP what `recommend` answers, until interrupted; read-only, OpenAPI at /openapi.json.",
    ),
    "runs": (
        "flows.cli.runs:runs",
        "List what each name was run with, when, how accurate that is, and which of its generations the name means.",
    ),
    "promote": (
        "flows.cli.runs:promote",
        "Point a run's name at another of its generations; the current one is kept.",
    ),
    "delete": (
        "flows.cli.runs:delete",
        "Forget a run or one of its generations; `edda gc` then removes what nothing else refers to.",
    ),
    "compare": (
        "flows.cli.compare:compare",
        "Bring runs up to date and print their test metrics side by side, with the settings that differ.",
    ),
    "tune": (
        "flows.cli.compare:tune",
        "Search for the settings that validate best; several runs are judged by their mean. Resumes where it stopped.",
    ),
    "scoreboard": (
        "flows.cli.scoreboard:scoreboard",
        "Tune, train and compare all models on several data sets, and write a page about it. Resumes where it stopped.",
    ),
    "experiment": (
        "flows.cli.experiment:experiment",
        "Answer a question about the method by the runs of an experiment. Resumes where it stopped.",
    ),
    "config": (
        "flows.cli.inspect:config",
        "Print every key of a run's TOML file with its default, type and meaning; the text is itself a valid run.",
    ),
    "gc": (
        "flows.cli.inspect:gc",
        "Remove artifacts that no run in the store refers to, and what interrupted stages left behind.",
    ),
    "help": ("flows.cli.main:show_help", "Show the help of a command, as its option --help does."),
    "datasets": ("flows.cli.datasets:datasets", "Public data: list, fetch, check it, convert it to logs."),
}
"""Name → the function, which is imported when the command runs, and the first line of its help."""


def _examples(*commands: str) -> str:
    shown = [f"    {line}" for command in commands for line in EXAMPLES.get(command, ())]
    return "\n".join(["Examples:", "", *shown]) if shown else ""


app = App(
    name="edda",
    help="Recommend in many domains at once: raw logs → graph → aligned pairs → embeddings → recommendations.",
    help_epilogue="A run is a TOML file; `edda config` prints every key with its default and meaning. Any key can be "
    "set on the command line: `--set train.epochs=5`. Existing artifacts are never made again.\n\n"
    + _examples(*EXAMPLES),
    help_format="plaintext",
    help_formatter=ReflowedPanels(),
    version=lambda: version("edda-recsys"),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")
for _number, (_name, (_function, _help)) in enumerate(COMMANDS.items()):
    _options = {} if _name == "datasets" else {"help_epilogue": _examples(_name)}
    app.command(_function, name=_name, help=_help, sort_key=_number, **_options)


def show_help(*command: str) -> None:
    """Show the help of a command, as its option --help does.

    Parameters
    ----------
    command:
        the command, e.g. run, or datasets fetch; all if left out.
    """
    if command and command[0] not in COMMANDS:
        close = difflib.get_close_matches(command[0], COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"edda help {command[0]}: there is no such command{hint}")
    app.help_print([*command])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first, messages = is_first(os.environ), Messages.given(arguments)
    show_what_can_be_shown()
    provide_caches()
    raise_open_files()
    show_logs(messages.level(is_first=first), as_json=messages.log_json)
    prefect_level = "INFO" if messages.debug else "CRITICAL"
    for name, value in {**NO_TELEMETRY, "PREFECT_LOGGING_LEVEL": prefect_level}.items():
        os.environ.setdefault(name, value)
    try:
        result = run_under_torchrun(lambda: _run_command(arguments))
    except CycloptsError as error:
        _report(_usage_problem(error))
        sys.exit(USAGE)
    except KeyboardInterrupt:
        if first:
            inform("interrupted; what was finished is kept, the same command continues from there")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as error:  # shown as one message, not as a traceback
        if messages.debug:
            raise
        _report(_message(error))
        sys.exit(FAILURE)
    sys.exit(result or 0)


def _run_command(arguments: Sequence[str]) -> int | None:
    result: int | None = app(fill_in_baselines(arguments), exit_on_error=False, print_error=False)
    return result


def _report(problem: str) -> None:
    inform(f"edda: {problem}", logging.ERROR)
    record_error(f"edda: {problem}", os.environ)


def _usage_problem(error: CycloptsError) -> str:
    """What is wrong with the arguments, and where their help is; the parser's words where they are clear."""
    command = " ".join(error.command_chain or ())
    problem = str(error)
    if isinstance(error, UnusedCliTokensError):
        extra = ", ".join(map(repr, error.unused_tokens or ()))
        problem = f"{command}: found {extra} after its last argument, must be left out"
    elif isinstance(error, ValidationError) and error.group and not error.argument:
        problem = f"{command}: {error.exception_message}"
    return f"{problem} (see: edda help{' ' * bool(command)}{command})"


def _message(error: Exception) -> str:
    """The error's message; for an unexpected error also its type, the stage, and how to see the traceback."""
    import pydantic

    notes = [*getattr(error, "__notes__", [])][-1:]
    if (is_system_error(error) or is_out_of_memory(error)) and notes:
        return format_failure(error)
    if is_out_of_memory(error):
        return describe_error(error)
    is_expected = isinstance(error, ValueError | OSError | LookupError)
    if is_expected and not isinstance(error, pydantic.ValidationError | IndexError):
        return describe_error(error)
    return f"{': '.join([*notes, type(error).__name__, str(error)])} (--debug shows where)"
