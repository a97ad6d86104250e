"""The command line: `edda run`, a command per stage, and what there is to look at."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console

from flows.console import Watch, bars, log_lines, show_logs
from flows.ranks import are_several, in_ranks, is_first

if TYPE_CHECKING:
    from flows.comparison import Compared
    from flows.running import Outcome

log = logging.getLogger(__name__)

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

EPILOGUE = """\
A run is a TOML file; `edda config` prints every key with its default and meaning. Any key can be set on the command
line: `--set train.epochs=5`. What exists already is never made again.

Examples:

    edda demo
    edda run my.toml --set train.epochs=5
    edda train my.toml
    edda inspect my-run
    edda inspect my-run/pairs --head 5
    edda recommend my-run --domain books --user u17 --top 5
    edda compare my.toml --baselines
"""

app = App(
    name="edda",
    help="Recommend in many domains at once: raw logs → graph → aligned pairs → embeddings → recommendations.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=lambda: version("edda-recsys"),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@Parameter(name="*")
@dataclass(frozen=True)
class Viewing:
    """What every command that looks at a run accepts."""

    store: Path | None = None
    """Folder of all artifacts; without it the file's, else $EDDA_STORE, else ./edda-store."""
    debug: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Show tracebacks and debugging messages."""


@Parameter(name="*")
@dataclass(frozen=True)
class Options(Viewing):
    """What every command that works on a run accepts."""

    set: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = ()
    """KEY=VALUE over the file's value, e.g. train.epochs=5; may be repeated."""
    prefect: bool = True
    """Run as a Prefect flow, on its embedded API unless PREFECT_API_URL names a server; or as plain functions."""

    @property
    def overrides(self) -> list[str]:
        """The overrides, the store's among them."""
        return [*self.set, *([f"store={json.dumps(str(self.store.absolute()))}"] if self.store else [])]


@app.command(name="run", sort_key=1)
def run_all(run: Path, /, *, options: Options = Options()) -> None:
    """Run all stages of a run's TOML file; only what is missing is made.

    Parameters
    ----------
    run:
        TOML file of the run.
    """
    _show(*_up_to_date([(run, options.overrides)], options))


def _stage_command(stage: str, does: str) -> Callable[..., None]:
    def command(run: Path, /, *, options: Options = Options()) -> None:
        _show(*_up_to_date([(run, options.overrides)], options, stage))

    command.__doc__ = f"{does} Makes what this needs first.\n\nParameters\n----------\nrun:\n    TOML file of the run."
    return command


for _stage, _does in {
    "ingest": "Read the raw logs: interactions and rejects.",
    "graph": "Number users and items and build each domain's train graph.",
    "walk": "Describe each user and item by the anchors that random walks reach.",
    "align": "Pair users and items of different domains that reach the same anchors.",
    "train": "Train a checkpoint per seed, under torchrun by several processes; continues where it was interrupted.",
    "evaluate": "Measure the checkpoints on held-out interactions.",
    "export": "Write embeddings and recommendations with the logs' own ids.",
}.items():
    app.command(_stage_command(_stage, _does), name=_stage, sort_key=2)


@app.command(sort_key=3)
def inspect(
    place: str,
    /,
    *,
    head: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> int:
    """Show what an artifact holds and whether it keeps its contract; or all artifacts of a run.

    Parameters
    ----------
    place:
        an artifact's folder, RUN/ARTIFACT (demo/pairs), a run's name, or a run's TOML file.
    head:
        rows to show of each artifact.
    json_:
        print JSON.
    """
    from flows.inspection import as_text, describe, find_artifact, find_run

    artifact = find_artifact(place, options.store)
    if artifact is not None:
        found = describe(artifact, head)
        _answer(json.dumps(found, indent=2, ensure_ascii=False, default=str) if json_ else as_text(found))
        return FAILURE if found["violations"] else 0
    name, artifacts = find_run(place, options.store)
    every = {role: describe(artifact, head) for role, artifact in artifacts.items()}
    if json_:
        _answer(json.dumps({"run": name, "artifacts": every}, indent=2, ensure_ascii=False, default=str))
    else:
        _answer(f"run {name}\n\n" + "\n\n".join(as_text(found) for found in every.values()))
    return FAILURE if any(found["violations"] for found in every.values()) else 0


@app.command(sort_key=3)
def recommend(
    run: str,
    /,
    *,
    domain: str,
    user: str,
    top: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    options: Viewing = Viewing(),
) -> None:
    """Print the best items for a user, those seen in training left out: rank, item, score.

    Parameters
    ----------
    run:
        a run's name in the store, or its TOML file.
    domain:
        domain to recommend in.
    user:
        the user's id as in the logs.
    top:
        items to print.
    """
    from flows.recommending import best_items

    for rank, item, score in best_items(run, domain, user, top, options.store):
        _answer(f"{rank}\t{item}\t{score:.4f}")


@app.command(sort_key=3)
def compare(
    *runs: str,
    variant: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    baselines: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    markdown: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = Options(),
) -> None:
    """Bring runs up to date and print their test metrics side by side, and what sets them apart from the first.

    Parameters
    ----------
    runs:
        TOML files, or names of runs that the store has.
    variant:
        further overrides of the first file, e.g. "train.alignment=0 train.width=32": one more run; may be repeated.
    baselines:
        compare the first file's run with all baselines.
    json_:
        print JSON.
    markdown:
        print Markdown.
    """
    from flows.comparison import as_json, cautions
    from flows.comparison_tables import comparison_tables

    found = _compared(runs, variant, baselines, options)
    if json_:
        _answer(json.dumps(as_json(found), indent=2, ensure_ascii=False))
        return
    tables = comparison_tables(found)
    _answer("\n\n".join(table.markdown() if markdown else table.plain() for table in tables))
    for caution in cautions(found):
        _answer(f"\nCAUTION: {caution}")


@app.command(sort_key=3)
def tune(*runs: Path, options: Options = Options()) -> None:
    """Search for the settings that validate best; several runs are judged by their mean. Goes on where it stopped.

    Parameters
    ----------
    runs:
        TOML files; [tune] of the first says what is searched and how long. The test split is never looked at.
    """
    from flows.tuning import as_options, best_of, search_settings, trials_table

    if not runs:
        raise ValueError("edda tune: there must be at least one run's TOML file")
    trials = search_settings([(run, options.overrides) for run in runs], _watcher())
    best = best_of(trials)
    _answer(trials_table(trials).plain())
    _answer(f"\nBest of {len(trials)}: trial {best.number + 1}, validation score {best.score:.5f}")
    for run in runs:
        _answer(f"  edda run {run} {as_options(best.values)}")


def _compared(runs: Sequence[str], variants: Sequence[str], baselines: bool, options: Options) -> list[Compared]:
    from data_contracts.store import Store
    from flows.baselines import baseline_runs, variant_run
    from flows.comparison import finished, recorded
    from flows.config import store_folder

    files = [(Path(run), options.overrides) for run in runs if run.endswith(".toml")]
    if not runs or (not files and (variants or baselines)):
        raise ValueError("edda compare: there must be a run's TOML file, or, without --variant and --baselines, a name")
    more = [variant_run(files[0], shlex.split(variant)) for variant in variants]
    more += baseline_runs(files[0]) if baselines else []
    made = iter(_up_to_date([*files, *more], options, "evaluate") if files else ())
    store = Store(options.store or store_folder())
    found = [finished(next(made)) if run.endswith(".toml") else recorded(run, store) for run in runs]
    return [*found, *map(finished, made)]


@app.command(sort_key=0)
def demo(*, options: Options = Options()) -> None:
    """Run the whole pipeline on a generated world, then once more with each domain alone, and compare."""
    from flows.config import load_config
    from flows.demo import INTRA_ONLY, RUN, gains_table, twins_table, what_next
    from flows.summary import artifacts_table

    runs = [(RUN, options.overrides), (RUN, [*options.overrides, *INTRA_ONLY])]
    together, alone = _up_to_date(runs, options)
    _answer(artifacts_table(together.config.name, together.artifacts, together.made).plain() + "\n")
    if "pairs" in together.artifacts:
        _answer(twins_table(together.artifacts, load_config(RUN, options.overrides).pairs.k).plain() + "\n")
    _answer(gains_table(together.artifacts, alone.artifacts).plain() + "\n")
    _answer(what_next(together.plan.store.root, together.artifacts["recommendations"]))


@app.command(sort_key=3)
def config() -> None:
    """Print every key of a run's TOML file with its default, type and meaning; the text is itself a valid run."""
    from flows.reference import reference

    _answer(reference())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    first = is_first(os.environ)
    show_logs(Console(stderr=True), logging.DEBUG if debug else logging.INFO if first else logging.WARNING)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")
    try:
        result = in_ranks(lambda: _obeyed(arguments))
    except CycloptsError:
        sys.exit(USAGE)
    except KeyboardInterrupt:
        if first:
            _tell("interrupted; what was finished is kept, the same command goes on from there")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as error:  # the outermost border: one message in place of a traceback
        if debug:
            raise
        _tell(f"edda: {_message(error)}")
        sys.exit(FAILURE)
    sys.exit(result or 0)


def _obeyed(arguments: Sequence[str]) -> int | None:
    result: int | None = app(arguments, exit_on_error=False, print_error=True, error_console=Console(stderr=True))
    return result


def _message(error: Exception) -> str:
    """The error's own words where it was meant for people; else its type as well, and how to see more."""
    from pydantic import ValidationError

    if isinstance(error, ValueError | OSError | LookupError) and not isinstance(error, ValidationError):
        return str(error.args[0]) if isinstance(error, KeyError) else str(error)
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _up_to_date(runs: Sequence[tuple[Path, list[str]]], options: Options, stage: str | None = None) -> list[Outcome]:
    from flows.update import bring_up_to_date

    prefect = options.prefect and not are_several(os.environ)
    outcomes = bring_up_to_date(runs, stage, _watcher(), prefect=prefect)
    if not any(outcome.made for outcome in outcomes):
        _tell("nothing to do, everything is up to date")
    return outcomes


def _watcher() -> Watch:
    console = Console(stderr=True)
    return bars(console) if console.is_terminal else log_lines(log.info)


def _show(outcome: Outcome) -> None:
    from flows.summary import artifacts_table, metrics_table

    _answer(artifacts_table(outcome.config.name, outcome.artifacts, outcome.made).plain())
    if "metrics" in outcome.artifacts:
        _answer("\n" + metrics_table(outcome.artifacts).plain())


def _answer(text: str) -> None:
    print(text)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    from flows.cli import main as command  # under its own name, so that its log lines are the project's

    command()
