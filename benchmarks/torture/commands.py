"""Commands of EDDA in processes of their own, and what their end says."""

# mypy: ignore-errors
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from small_run import SMALL_RUN, every_file

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ("same", "refused", "harmless", "WRONG", "crash")
Case = tuple[str, str, str, str]
"""Group, case, outcome and what was said."""


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with some variables changed or, where None, left out."""
    merged = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}
    return {name: value for name, value in merged.items() if value is not None}


def edda(
    folder: Path, *arguments: str, variables: Mapping[str, str | None] | None = None,
    before: Callable[[], None] | None = None, seconds: float = 300,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command in a folder; `before` is called in its process first."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=folder, env=environment(**(variables or {})),
        capture_output=True, text=True, errors="replace", preexec_fn=before, timeout=seconds, check=False,
    )  # fmt: skip


def verdict(process: subprocess.CompletedProcess[str]) -> str:
    """`harmless` if it succeeded, `refused` if it ended with an error of one line, else `crash`."""
    if process.returncode == 0:
        return "harmless"
    last = (process.stderr.strip().splitlines() or [""])[-1]
    is_told = process.returncode > 0 and last.startswith("edda") and "Traceback" not in process.stderr
    return "refused" if is_told else "crash"


def write_run(folder: Path, text: str = SMALL_RUN) -> Path:
    """A folder with the run's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(text)
    return folder


def compare_files(store: Path, right: Mapping[str, str]) -> tuple[str, str]:
    """`same`, or `WRONG` and the files that differ."""
    files = every_file(store)
    differing = sorted(name for name in files.keys() | right.keys() if files.get(name) != right.get(name))
    return ("WRONG", f"other files: {', '.join(differing[:5])}") if differing else ("same", "")


def ended_same(process: subprocess.CompletedProcess[str], store: Path, right: Mapping[str, str]) -> tuple[str, str]:
    """The outcome of a run that must succeed with the right files."""
    if process.returncode:
        return "crash", process.stderr[-1000:]
    return compare_files(store, right)


def counted(group: str, cases: Iterable[tuple[str, tuple[str, str]]]) -> Iterator[Case]:
    """Cases of a group, from their names, outcomes and texts."""
    for name, (outcome, text) in cases:
        yield group, name, outcome, text
