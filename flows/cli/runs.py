"""Commands on what a run has: `status`, and those on the generations of its name, `runs`, `promote`, `delete`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from data_contracts.open_store import open_store
from data_contracts.store.store import Store
from flows.cli.options import Overriding, Run, Viewing
from flows.config.run_config import store_location
from flows.inspection.generations import describe_all, describe_generations, generations_table
from flows.inspection.status import status_of_file, status_of_name, status_text
from flows.output.console import print_result, terminal_width


def status(
    run: Run,
    /,
    *,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Overriding = Overriding(),
) -> None:
    """Show which artifacts of a run are made, missing or damaged, how long each took, and its size.

    Parameters
    ----------
    json_:
        print JSON.
    """
    is_file = run.endswith(".toml")
    if not is_file and (options.set or options.update):
        raise ValueError(f"edda status {run}: --set and --update need the run's TOML file")
    described = status_of_file(options.spec(Path(run))) if is_file else status_of_name(run, _store(options))
    print_result(
        json.dumps(described.as_json(), indent=2, ensure_ascii=False)
        if json_
        else status_text(described, terminal_width())
    )


def runs(
    name: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> None:
    """List what each name was run with, when, how accurate that is, and which of its generations the name means.

    Parameters
    ----------
    name:
        only this run.
    json_:
        print JSON.
    """
    store = _store(options)
    described = describe_generations(name, store) if name else describe_all(store)
    if json_:
        print_result(json.dumps(described, indent=2, ensure_ascii=False))
    elif described:
        print_result(generations_table(store, described).plain(terminal_width()))
    else:
        print_result(f"Runs in {store}: none")


def promote(
    generation: Annotated[str, Parameter(help="NAME@ID, as `edda runs` prints it.")],
    /,
    *,
    options: Viewing = Viewing(),
) -> None:
    """Point a run's name at another of its generations; the current one is kept."""
    store, (name, at, identifier) = _store(options), generation.partition("@")
    if not at:
        raise ValueError(f"{generation!r} must be NAME@ID; `edda runs` lists them")
    with store.lock_run(name):
        present, record = store.run(name), store.generation(name, identifier)
        if record.generation == present.generation:
            raise ValueError(f"{generation} is what {name} means already")
        artifacts = store.recorded(record)
        gone = [role for role, artifact in artifacts.items() if not store.find(artifact.contract, artifact.folder.name)]
        if gone:
            remedy = "run it again with its settings"
            raise FileNotFoundError(f"{generation}: {', '.join(gone)} are not in {store} any more; {remedy}")
        store.keep_generation(present.model_copy(update={"attempt": None}))
        store.link_run(record)
    print_result(f"{name} is generation {identifier} now; {present.generation} is kept")


def delete(
    run: Annotated[str, Parameter(help="NAME@ID, or NAME for all generations.")], /, *, options: Viewing = Viewing()
) -> None:
    """Forget a run or one of its generations; `edda gc` then removes what nothing else refers to."""
    store, (name, at, identifier) = _store(options), run.partition("@")
    if at and not identifier:
        raise ValueError(f"{run!r} must be NAME@ID, or NAME for all generations; `edda runs` lists them")
    with store.lock_run(name):
        if not identifier:
            store.run(name)
            store.delete_run(name)
        elif store.generation(name, identifier).generation == store.run(name).generation:
            raise ValueError(f"{run} is what {name} means; promote another generation first, or delete {name}")
        else:
            store.delete_generation(name, identifier)
    print_result(f"{run} is forgotten; `edda gc` removes its artifacts")


def _store(options: Viewing) -> Store:
    return open_store(options.store or store_location())
