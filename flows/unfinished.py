"""Runs by name, unfinished ones too: what there is of them, what is missing, how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_contracts.artifact import Artifact
from data_contracts.attempts import Attempt, attempt_of
from data_contracts.claims import is_held
from data_contracts.store import Store
from flows.running import run_lock


def run_by_name(name: str, root: Path) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """Artifacts and record of a run: those of the last one that was finished, else what the first has made so far.

    Raises:
        FileNotFoundError: no run of that name in the store.
    """
    artifacts, record = Store(root).run(name)
    attempt = attempt_of(record)
    if attempt and "config" not in record:
        return attempt.found(root), {**record, "config": attempt.config}
    return artifacts, record


def what_is_missing(name: str, root: Path) -> str | None:
    """In words: that a run of this name works or was interrupted, what is yet to be made, and how; None otherwise."""
    if not (root / "runs" / name / "run.json").exists():
        return None
    record: Mapping[str, Any] = Store(root).run(name)[1]
    attempt = attempt_of(record)
    return _in_words(name, root, attempt) if attempt else None


def _in_words(name: str, root: Path, attempt: Attempt) -> str:
    missing = ", ".join(attempt.missing(root)) or "nothing but its record"
    begun = f"run {name!r}, begun {attempt.at},"
    try:
        works = is_held(run_lock(root, name))
    except PermissionError:  # who may only read the store cannot know
        return f"{begun} is not finished; missing: {missing}; it goes on with: {attempt.command}"
    if works:
        return f"{begun} is being worked on; missing so far: {missing}"
    return f"{begun} ended before it was finished; missing: {missing}; go on with: {attempt.command}"
