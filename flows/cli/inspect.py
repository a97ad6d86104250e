"""Commands that show what exists, `inspect`, `report`, `config`, and one that cleans up, `gc`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from data_contracts.open_store import open_store
from data_contracts.store.artifact import Artifact
from flows.cli.arguments import Messages
from flows.cli.options import Run, Viewing, Whole
from flows.config.reference import reference
from flows.config.run_config import store_location
from flows.inspection.describe import as_text, describe, rows_table
from flows.inspection.lineage import ancestors, as_tree, without_children
from flows.inspection.overview import overview, overview_text, resolve_store
from flows.inspection.sql import ask, parse_joined_files
from flows.output.console import print_result, terminal_width
from flows.report.html import write_report
from flows.runner.failures import FAILURE
from flows.runner.lookup import RunView, find_artifact, find_run


def inspect(
    place: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    head: Annotated[Whole, Parameter(validator=validators.Number(gte=0), metavar="N")] = 3,
    sql: Annotated[str | None, Parameter(metavar="QUERY")] = None,
    with_: Annotated[
        tuple[str, ...], Parameter(name="--with", negative="", show_default=False, metavar="NAME=FILE")
    ] = (),
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> int:
    """Show what an artifact or a run holds, whether it keeps its contract, and where it comes from; or all runs.

    Parameters
    ----------
    place:
        an artifact's folder, RUN/ARTIFACT (demo/pairs), ARTIFACT/KEY; a run's name, folder or TOML file; or, to
        list its runs, a store's folder or address, by default the store.
    head:
        rows to show of each artifact.
    sql:
        print the result of this query instead; each artifact of the run, or each ancestor of the artifact, is a view.
    with_:
        a file that the query may join under this name: .parquet, .csv, .tsv or .jsonl, also .gz; may be repeated. A
        query reads no other file.
    json_:
        print JSON.
    """
    if with_ and sql is None:
        raise ValueError(f"--with {with_[0]}: there is no --sql that could join it")
    store = None if sql else resolve_store(place, options.store)
    if store is not None:
        runs = overview(store)
        print_result(_json(runs) if json_ else overview_text(runs, terminal_width()))
        return 0
    artifact = find_artifact(place, options.store)
    if artifact is not None:
        if sql is not None:
            return _print_query(ancestors(artifact.contract.name, artifact), sql, with_, json_)
        return _print_artifact(artifact, head, json_)
    run = find_run(place, options.store)
    if sql is not None:
        return _print_query(run.artifacts, sql, with_, json_, run.missing)
    return _print_run(run, head, json_)


def _print_query(
    artifacts: Mapping[str, Artifact], sql: str, joined: Sequence[str], as_json: bool, missing: str | None = None
) -> int:
    with ask(artifacts, sql, missing, parse_joined_files(joined)) as result:
        if as_json:
            print_result(_json([dict(zip(result.columns, row, strict=True)) for row in result.rows]))
        else:
            print_result(rows_table(result.columns, result.rows, terminal_width()))
    return 0


def _print_artifact(artifact: Artifact, head: int, as_json: bool) -> int:
    """Print what an artifact holds and what it was made from; the status is `FAILURE` if it violates its contract."""
    description = describe(artifact, head)
    tree = as_tree("made from:", description["parents"])
    print_result(_json(description) if as_json else f"{as_text(description, terminal_width())}\n{tree}")
    return FAILURE if description["violations"] else 0


def _print_run(run: RunView, head: int, as_json: bool) -> int:
    """Print what all artifacts of a run hold; the status is `FAILURE` if any violates its contract."""
    descriptions = {role: describe(artifact, head) for role, artifact in run.artifacts.items()}
    if as_json:
        print_result(_json({"run": run.name, "unfinished": run.missing, "artifacts": descriptions}))
    else:
        texts = [
            f"run {run.name}",
            *(as_text(description, terminal_width()) for description in descriptions.values()),
            as_tree("what was made from what:", without_children(descriptions)),
            *([f"UNFINISHED: {run.missing}"] if run.missing else []),
        ]
        print_result("\n\n".join(texts))
    return FAILURE if any(description["violations"] for description in descriptions.values()) else 0


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def report(
    run: Run,
    /,
    *,
    output: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    against: Annotated[str | None, Parameter(metavar="RUNS")] = None,
    only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> None:
    """Write a run's report, finished or not, as one HTML file, and print its path.

    Parameters
    ----------
    output:
        the file; by default report.html in the run's folder in the store.
    against:
        runs to compare it with, e.g. my-run-ease,my-run-ials; by default all of the store on the same interactions.
    only:
        compare it with no other run.
    """
    if only and against is not None:
        raise ValueError("edda report: found --only and --against, must be at most one of them")
    names = None if against is None else [name.strip() for name in against.split(",") if name.strip()]
    print_result(str(write_report(find_run(run, options.store), output, [] if only else names)))


def config(*, _messages: Messages = Messages()) -> None:
    """Print every key of a run's TOML file with its default, type and meaning; the text is itself a valid run."""
    print_result(reference())


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    older_than: Annotated[timedelta | None, Parameter(metavar="AGE")] = None,
    options: Viewing = Viewing(),
) -> None:
    """Remove artifacts that no run in the store refers to, and what interrupted stages left behind.

    What a run's record or its links name stays, with all its ancestors; so does what an interrupted run will resume
    with, and what a running command uses. Each line shows the bytes and the folder.

    Parameters
    ----------
    dry_run:
        show what would be removed, and remove nothing.
    older_than:
        on object storage, which cannot show what is in use, younger files stay: 12h, 7d; by default a week.
    """
    store = open_store(options.store or store_location())
    garbage = store.collect_garbage(dry_run=dry_run, older_than=older_than)
    for folder in garbage:
        print_result(f"{folder.size:>15,}  {folder.path}")
    size = sum(folder.size for folder in garbage)
    folders = f"{len(garbage)} folder{'s' if len(garbage) != 1 else ''}"
    print_result(f"{'would remove' if dry_run else 'removed'} {folders}, {size:,} bytes, from {store}")
