"""Runs by name, unfinished ones too: what there is of them, what is missing, how to go on."""

from __future__ import annotations

from typing import Any

from data_contracts.artifact import Artifact
from data_contracts.attempts import Attempt, attempt_of
from data_contracts.claims import is_for_reading, is_held
from data_contracts.remote_store import RemoteStore
from data_contracts.store import Store
from flows.running import run_lock


def run_by_name(name: str, store: Store) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """Artifacts and record of a run: those of the last one that was finished, else what the first has made so far.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    artifacts, record = store.run(name)
    attempt = attempt_of(record)
    if attempt and "config" not in record:
        return attempt.found(store), {**record, "config": attempt.config, "costs": attempt.costs}
    return artifacts, record


def what_is_missing(name: str, store: Store) -> str | None:
    """In words: that a run of this name works or was interrupted, what is yet to be made, and how; None otherwise."""
    attempt = attempt_of(store.record(name) or {})
    return _in_words(name, store, attempt) if attempt else None


def _in_words(name: str, store: Store, attempt: Attempt) -> str:
    missing = ", ".join(attempt.missing(store)) or "nothing but its record"
    begun = f"run {name!r}, begun {attempt.at},"
    works = _is_worked_on(name, store)
    if works:
        return f"{begun} is being worked on; missing so far: {missing}"
    if works is None:
        return f"{begun} is not finished; missing: {missing}; it goes on with: {attempt.command}"
    return f"{begun} ended before it was finished; missing: {missing}; go on with: {attempt.command}"


def _is_worked_on(name: str, store: Store) -> bool | None:
    """None where nobody here can know: who may only read the store, or where other machines' locks are not seen."""
    try:
        return is_held(run_lock(store, name)) or (None if isinstance(store, RemoteStore) else False)
    except OSError as error:
        if not is_for_reading(error):
            raise
        return None
