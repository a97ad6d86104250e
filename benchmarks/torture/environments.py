"""Odd environments: the same bytes, or an error of one line and the same bytes once there is room."""

# mypy: ignore-errors
from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from commands import Case, edda, ended_same, verdict, write_run

from data_contracts.store.digests import file_digest

VARIABLES: dict[str, dict[str, str | None]] = {
    "PYTHONHASHSEED=1": {"PYTHONHASHSEED": "1"},
    "PYTHONHASHSEED=4294967295": {"PYTHONHASHSEED": "4294967295"},
    "TZ=Pacific/Kiritimati": {"TZ": "Pacific/Kiritimati"},
    "TZ=America/St_Johns": {"TZ": "America/St_Johns"},
    "ASCII terminal": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    "no HOME": {"HOME": None, "EDDA_CACHE": None},
    "HOME is not a folder": {"HOME": "/dev/null", "EDDA_CACHE": None},
    "OMP_NUM_THREADS=4": {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"},
}
SETTINGS = ("compute.threads=2", "compute.threads=3", "compute.memory_mib=64", "compute.memory_mib=100000")
FOLDERS = ("a b", "naïve ☃", 'quote\'d "x"', "-dash", "percent%20", "new\nline")


def limit(kind: int, value: int) -> None:
    """Set a resource limit of this process."""
    resource.setrlimit(kind, (value, value))


def run_in(folder: Path, right: Mapping[str, str], count: int) -> Iterator[Case]:
    """Each environment once, `count` of them."""
    ways: list[tuple[str, Callable[[Path], tuple[str, str]]]] = [
        *((name, partial(_with_variables, right, variables)) for name, variables in VARIABLES.items()),
        *((name, partial(_with_setting, right, name)) for name in SETTINGS),
        *((f"folder {name!r}", partial(_in_folder, right, name)) for name in FOLDERS),
        ("umask 077", partial(_limited, right, partial(os.umask, 0o077))),
        ("64 descriptors", partial(_limited, right, partial(limit, resource.RLIMIT_NOFILE, 64))),
        ("24 descriptors", partial(_limited, right, partial(limit, resource.RLIMIT_NOFILE, 24))),
        *((f"files of at most {size} bytes", partial(_limited, right, partial(limit, resource.RLIMIT_FSIZE, size)))
          for size in (0, 1000, 20_000)),
        ("disk of 200 KiB", partial(_small_disk, right)), ("read-only store", partial(_read_only, right)),
    ]  # fmt: skip
    step = max(len(ways) // count, 1)
    for number, (name, way) in enumerate(ways[::step][:count]):
        outcome, said = way(write_run(folder / f"{number}"))
        yield "environment", name, outcome, said


def _with_variables(right, variables, folder):
    process = edda(folder, "run", "run.toml", "--no-prefect", variables=variables)
    return ended_same(process, folder / "edda-store", right)


def _with_setting(right, setting, folder):
    process = edda(folder, "run", "run.toml", "--no-prefect", "--set", setting)
    return ended_same(process, folder / "edda-store", right)


def _in_folder(right, name, folder):
    inner = write_run(folder / name)
    return ended_same(edda(inner, "run", "run.toml", "--no-prefect"), inner / "edda-store", right)


def _limited(right, before, folder):
    """Under a limit, then without it."""
    limited = edda(folder, "run", "run.toml", "--no-prefect", before=before)
    if verdict(limited) == "crash":
        return "crash", limited.stderr[-1000:]
    return ended_same(edda(folder, "run", "run.toml", "--no-prefect"), folder / "edda-store", right)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def _small_disk(right, folder):
    """A tmpfs that is too small, then one that is large enough; a limit of file sizes where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)):
        return _limited(right, partial(limit, resource.RLIMIT_FSIZE, 5000), folder)
    try:
        full = edda(folder, "run", "run.toml", "--no-prefect", "--store", str(disk / "store"))
        if verdict(full) != "refused":
            return "crash", f"status {full.returncode}: {full.stderr[-1000:]}"
        _mount("-o", "remount,size=200m", str(disk))
        again = edda(folder, "run", "run.toml", "--no-prefect", "--store", str(disk / "store"))
        return ended_same(again, disk / "store", right)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _read_only(right, folder):
    """A finished run is read, and nothing in the store changes, not even a name."""
    made = edda(folder, "run", "run.toml", "--no-prefect")
    store = folder / "edda-store"
    if not _mount("--bind", str(store), str(store)):
        return ended_same(made, store, right)
    try:
        _mount("-o", "remount,ro,bind", str(store))
        before = {path: file_digest(path) for path in store.rglob("*") if path.is_file()}
        for command in (["inspect", "killed"], ["compare", "killed"], ["gc", "--dry-run"], ["run", "run.toml"]):
            process = edda(folder, *command, "--store", str(store))
            if verdict(process) == "crash":
                return "crash", f"{command}: {process.stderr[-1000:]}"
        after = {path: file_digest(path) for path in store.rglob("*") if path.is_file()}
        return ended_same(made, store, right) if before == after else ("WRONG", "the store changed")
    finally:
        subprocess.run(["umount", str(store)], check=False)
