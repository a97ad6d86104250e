"""Commands for public data: `datasets list`, `fetch`, `verify`, `convert`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import App, Parameter

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


@datasets.command(name="list")
def list_(name: str | None = None, /, *, json_: Json = False) -> None:
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
def fetch(name: str, /) -> None:
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
def verify(name: str | None = None, /, *, json_: Json = False) -> int:
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
def convert(name: str, /) -> None:
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
