"""Commands that look at what there is, `inspect`, `report`, `config`, and one that clears it up, `gc`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.cli.options import FAILURE, Run, Viewing
from flows.output.console import answer

if TYPE_CHECKING:
    from data_contracts.store.artifact import Artifact


def inspect(
    place: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    head: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 3,
    sql: str | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> int:
    """Show what an artifact holds, whether it keeps its contract, where it comes from; or so for a run; or all runs.

    Parameters
    ----------
    place:
        an artifact's folder, RUN/ARTIFACT (demo/pairs), ARTIFACT/KEY; a run's name, folder or TOML file; or, to
        list its runs, a store's folder or address, by default the store.
    head:
        rows to show of each artifact.
    sql:
        print what this query finds instead; every artifact of the run, or every ancestor of the artifact, is a view.
    json_:
        print JSON.
    """
    from flows.inspection.describe import as_text, describe
    from flows.inspection.lineage import ancestors, as_tree, without_children
    from flows.inspection.overview import find_store, overview, overview_text
    from flows.runner.lookup import find_artifact, find_run

    home = None if sql else find_store(place, options.store)
    if home is not None:
        runs = overview(home)
        answer(_json(runs) if json_ else overview_text(runs))
        return 0
    artifact = find_artifact(place, options.store)
    if artifact is not None:
        if sql is not None:
            return _queried(ancestors(artifact.contract.name, artifact), sql, json_)
        found = describe(artifact, head)
        answer(_json(found) if json_ else f"{as_text(found)}\n{as_tree('made from:', found['parents'])}")
        return FAILURE if found["violations"] else 0
    name, artifacts, missing = find_run(place, options.store)
    if sql is not None:
        return _queried(artifacts, sql, json_, missing)
    every = {role: describe(artifact, head) for role, artifact in artifacts.items()}
    if json_:
        answer(_json({"run": name, "unfinished": missing, "artifacts": every}))
    else:
        texts = [
            f"run {name}",
            *map(as_text, every.values()),
            as_tree("what was made from what:", without_children(every)),
            *([f"UNFINISHED: {missing}"] if missing else []),
        ]
        answer("\n\n".join(texts))
    return FAILURE if any(found["violations"] for found in every.values()) else 0


def report(run: Run, /, *, output: Path | None = None, options: Viewing = Viewing()) -> None:
    """Write a run's report, finished or not, as one HTML file, and print its path.

    Parameters
    ----------
    output:
        the file; by default report.html in the run's folder in the store.
    """
    from flows.report.html import write_report
    from flows.runner.lookup import told_run

    answer(str(write_report(told_run(run, options.store), output)))


def _queried(artifacts: Mapping[str, Artifact], sql: str, as_json: bool, missing: str | None = None) -> int:
    from flows.inspection.describe import rows_table
    from flows.inspection.sql import ask

    with ask(artifacts, sql, missing) as found:
        if as_json:
            answer(_json([dict(zip(found.columns, row, strict=True)) for row in found.rows]))
        else:
            answer(rows_table(found.columns, found.rows))
    return 0


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def config() -> None:
    """Print every key of a run's TOML file with its default, type and meaning; the text is itself a valid run."""
    from flows.config.reference import reference

    answer(reference())


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    older_than: timedelta | None = None,
    options: Viewing = Viewing(),
) -> None:
    """Remove artifacts that no run in the store refers to, and what is left of interrupted stages; bytes, then folder.

    What a run's record or its links name stays, with all its parents; so does
    what an interrupted run will go on with, and whatever a running command uses.

    Parameters
    ----------
    dry_run:
        say what would go, and remove nothing.
    older_than:
        on object storage, where nobody can tell what is in use, younger files stay: 12h, 7d; by default a week.
    """
    from data_contracts.open_store import open_store
    from data_contracts.remote.garbage import GRACE, collect_remote_garbage, find_remote_garbage
    from data_contracts.remote.store import RemoteStore
    from data_contracts.store.garbage import collect_garbage, find_garbage
    from flows.config.run_config import store_place

    store = open_store(options.store or store_place())
    if isinstance(store, RemoteStore):
        grace = GRACE if older_than is None else older_than
        garbage = (find_remote_garbage if dry_run else collect_remote_garbage)(store.remote, grace)
    elif older_than is not None:
        raise ValueError(f"--older-than is for object storage, the store is {store}; leave it out, what is used stays")
    else:
        garbage = (find_garbage if dry_run else collect_garbage)(store.root)
    for found in garbage:
        answer(f"{found.size:>15,}  {found.path}")
    size = sum(found.size for found in garbage)
    answer(f"{'would remove' if dry_run else 'removed'} {len(garbage)} folders, {size:,} bytes, from {store}")
