"""Commands for data: `init`, for your own logs; `datasets list`, `fetch`, `verify` and `convert`, for public ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from flows.cli.arguments import Messages
from flows.config.errors import NAME_RULE
from flows.config.first_run import guess_log, write_first_run
from flows.config.log_head import read_head
from flows.config.run_config import RUN_NAME, load_config
from flows.datasets import registry
from flows.output.console import print_result, terminal_width, watcher
from flows.output.tables import Table
from flows.runner.failures import FAILURE
from pipeline.published.convert import convert as convert_dataset

datasets = App(
    name="datasets",
    help="Public data: list, fetch, check it, convert it to logs.",
    help_epilogue="Examples:\n\n    edda datasets list\n    edda datasets fetch ml-1m\n    edda datasets convert ml-1m",
    sort_key=10,
)

Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]


def init(
    *files: Annotated[Path, Parameter(show_default=False)],
    output: Annotated[Path | None, Parameter(show_default=False, metavar="FILE")] = None,
    name: Annotated[str, Parameter(show_default=False, metavar="NAME")] = "",
    force: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    _messages: Messages = Messages(),
) -> None:
    """Write a first TOML file for your logs, guessed from their first rows.

    Parameters
    ----------
    files:
        log files: CSV, TSV, JSON lines or Parquet; each becomes a source.
    output:
        file to write; by default named after the run, in this folder.
    name:
        name of the run; by default that of the first file.
    force:
        overwrite the file.
    """
    if not files:
        raise ValueError("init: no file is named, must be at least one log file")
    if again := [file for file in files if files.count(file) > 1]:
        raise ValueError(f"init: {again[0]} is named twice, must be named once")
    if name and not re.fullmatch(RUN_NAME, name):
        raise ValueError(f"init: --name is {name!r}, must be {NAME_RULE}")
    run_name = name or re.sub(r"[^A-Za-z0-9._-]", "-", files[0].name.partition(".")[0]).lstrip(".-") or "run"
    path = output or Path(f"{run_name}.toml")
    text = write_first_run([guess_log(read_head(file)) for file in files], run_name, path.parent)
    if path.exists() and any(path.samefile(file) for file in files):
        raise ValueError(f"init: {path} is a log, must not be overwritten; name another file by --output")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FileExistsError(f"{path} is there already, is not overwritten without --force") from error
    load_config(path)
    print_result(f"{text}\nWritten to {path}: read it, then edda ingest {path} and edda run {path}")


@datasets.command(name="list")
def list_(name: str | None = None, /, *, json_: Json = False, _messages: Messages = Messages()) -> None:
    """List the data sets, or all that is known of one.

    Parameters
    ----------
    name:
        one data set: files, addresses, digests, licence, citation.
    json_:
        print JSON.
    """
    chosen = [registry.find_dataset(name)] if name else list(registry.datasets().values())
    if json_:
        print_result(json.dumps([registry.as_json(dataset) for dataset in chosen], indent=2, ensure_ascii=False))
    elif name:
        print_result("\n".join(registry.details(chosen[0])))
    else:
        root = registry.data_folder()
        rows = tuple((dataset.name, registry.files_present(dataset, root), dataset.what) for dataset in chosen)
        print_result(
            Table(f"Data sets in {root}", ("name", "files there", "what it is"), rows, left=True).plain(
                terminal_width()
            )
        )


@datasets.command
def fetch(name: str, /, *, _messages: Messages = Messages()) -> None:
    """Fetch what is missing of a data set into $EDDA_DATA, or else a cache folder, and check all of it.

    Files that are there already are checked and used, so a folder that you have filled works as a mirror.

    Parameters
    ----------
    name:
        the data set.
    """
    dataset, root = registry.find_dataset(name), registry.data_folder()
    with watcher()(f"fetch {name}") as progress:
        states = registry.fetch(dataset, root, progress)
    unpublished = sum(state.state == "unknown" for state in states)
    note = f"; no digest is published for {unpublished}, so theirs are now in {registry.RECORD}" if unpublished else ""
    print_result(f"{name}: {len(states)} files in {root / dataset.folder}{note}\nNext:")
    print_result("\n".join(f"  {command}" for command in registry.next_commands(dataset, root)))


@datasets.command
def verify(name: str | None = None, /, *, json_: Json = False, _messages: Messages = Messages()) -> int:
    """Compare a data set's files with what was published, or with what was first fetched; exit 1 if one differs.

    Parameters
    ----------
    name:
        the data set; by default every one that has files there.
    json_:
        print JSON.
    """
    root, states = registry.data_folder(), []
    chosen = [registry.find_dataset(name)] if name else list(registry.started(root))
    for dataset in chosen:
        with watcher()(f"verify {dataset.name}") as progress:
            states += registry.verify(dataset, root, progress)
    if json_:
        print_result(json.dumps([state._asdict() for state in states], indent=2, ensure_ascii=False, default=str))
    else:
        lines = [f"{state.state:<8} {state.path} {state.digest}".rstrip() for state in states]
        print_result("\n".join(lines or [f"no file of any data set is in {root}"]))
    return FAILURE if any(state.state in ("missing", "wrong") for state in states) else 0


@datasets.command
def convert(name: str, /, *, _messages: Messages = Messages()) -> None:
    """Convert a data set's files to Parquet logs, if a run cannot read them as they are; rejected lines are kept.

    Parameters
    ----------
    name:
        the data set.
    """
    dataset, root = registry.find_dataset(name), registry.data_folder()
    if dataset.adapter is None:
        raise registry.DatasetError(f"{name} needs no conversion: edda run {dataset.toml}")
    with watcher()(f"convert {name}") as progress:
        made = convert_dataset(dataset.adapter, registry.files_folder(dataset, root), progress)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in made.rejects.items()) or "none"
    print_result(f"{made.rows:,} rows in {made.folder}/logs.parquet; rejected lines (rejects.parquet): {reasons}")
    print_result(f"Next:\n  {[*registry.next_commands(dataset, root)][-1]}")
