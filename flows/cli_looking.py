"""Commands that look at what there is, `inspect`, `recommend`, `config`, and one that clears it up, `gc`."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter, validators

from flows.cli_options import FAILURE, Viewing
from flows.console import answer


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
        answer(json.dumps(found, indent=2, ensure_ascii=False, default=str) if json_ else as_text(found))
        return FAILURE if found["violations"] else 0
    name, artifacts, missing = find_run(place, options.store)
    every = {role: describe(artifact, head) for role, artifact in artifacts.items()}
    if json_:
        answer(
            json.dumps(
                {"run": name, "unfinished": missing, "artifacts": every}, indent=2, ensure_ascii=False, default=str
            )
        )
    else:
        answer(
            "\n\n".join(
                [f"run {name}", *map(as_text, every.values()), *([f"UNFINISHED: {missing}"] if missing else [])]
            )
        )
    return FAILURE if any(found["violations"] for found in every.values()) else 0


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
        answer(f"{rank}\t{item}\t{score:.4f}")


def config() -> None:
    """Print every key of a run's TOML file with its default, type and meaning; the text is itself a valid run."""
    from flows.reference import reference

    answer(reference())


def gc(
    *,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> None:
    """Remove artifacts that no run in the store refers to, and what is left of interrupted stages; bytes, then folder.

    What a run's record or its links name stays, with all its parents; so does what an interrupted run had made and will
    go on with, and whatever a running command uses.

    Parameters
    ----------
    dry_run:
        say what would go, and remove nothing.
    """
    from data_contracts.garbage import collect_garbage, find_garbage
    from flows.config import store_folder

    root = options.store or store_folder()
    garbage = find_garbage(root) if dry_run else collect_garbage(root)
    for found in garbage:
        answer(f"{found.size:>15,}  {found.path}")
    size = sum(found.size for found in garbage)
    answer(f"{'would remove' if dry_run else 'removed'} {len(garbage)} folders, {size:,} bytes, from {root}")
