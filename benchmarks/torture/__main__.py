"""Torture: kills, damage, mutated logs, degenerate worlds, odd environments, hostile ids, names, SQL and requests.

    python benchmarks/torture --seed 1            the long form, under half an hour on two idle cores
    python benchmarks/torture --seed 1 --small    some of each, 90 seconds
    python benchmarks/torture --only kills --only environment

Every case is drawn from the seed. The table counts by group

    same        the bytes of a run that nothing happened to
    refused     an error of one line
    harmless    it succeeded, and there is nothing to compare with
    WRONG       other bytes or answers, or something escaped
    crash       a traceback, a signal, no end, or an error of several lines

and the status is 1 if anything is WRONG or crashed. Kills of the scheduler, a worker or the server end with a run that
is started again and compared.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks" / "torture")]

import environments  # noqa: E402
import kills  # noqa: E402
import worlds  # noqa: E402
from commands import OUTCOMES, Case, edda, write_run  # noqa: E402
from small_run import every_file  # noqa: E402

GROUPS = ("kills", "damage", "logs", "worlds", "environment", "hostile")
LONG = {"run": 165, "worker": 10, "scheduler": 10, "rank": 10, "server": 5, "damage": 1000, "worlds": 99,
        "environments": 99, "domains": 99}  # fmt: skip
SMALL = {"run": 2, "worker": 1, "scheduler": 0, "rank": 0, "server": 0, "damage": 20, "worlds": 1,
         "environments": 3, "domains": 1}  # fmt: skip


def sources(folder: Path, counts: dict[str, int], groups: list[str], seed: int, small: bool) -> list[Iterator[Case]]:
    """The cases of the groups, by sources that do not touch each other's files or draws; the longest ones first."""
    whole = write_run(folder / "whole")
    made = edda(whole, "run", "run.toml", "--no-prefect")
    assert made.returncode == 0, made.stderr
    right = every_file(whole / "edda-store")

    def draw(source: str) -> random.Random:
        return random.Random(f"{seed} {source}")

    kill_dask = [kills.kill_dask(victim, folder, right, counts[victim], draw(victim))
                 for victim in ("worker", "scheduler")]  # fmt: skip
    kill_ranks = kills.kill_ranks(folder / "ranks", counts["rank"], draw("ranks")) if counts["rank"] else iter(())
    names = draw("worlds").sample(sorted(worlds.WORLDS), min(counts["worlds"], len(worlds.WORLDS)))
    hostile_domains = worlds.run_hostile_domains(folder / "hostile domains", counts["domains"], draw("domains"))
    by_group = {
        "kills": [
            kills.kill_runs(folder / "kills", right, counts["run"], draw("runs")),
            *kill_dask,
            kill_ranks,
            kills.kill_servers(folder / "servers", right, counts["server"], draw("servers")),
        ],
        "damage": [damage(whole, counts["damage"], seed)],
        "logs": [tests("logs", seed, "tests/pipeline/logs/test_agreement.py", "tests/pipeline/ingest/test_bounds.py")],
        "worlds": [worlds.run_worlds(folder / "worlds", names, "=popularity,ease" if small else "")],
        "environment": [environments.run_in(folder / "environments", right, counts["environments"])],
        "hostile": [
            hostile_domains,
            worlds.run_hostile_ids(folder / "hostile ids", draw("ids")),
            tests("hostile: SQL", seed, "tests/flows/inspection/test_hostile_sql.py"),
            tests("hostile: HTTP", seed, "tests/flows/serve/test_service.py"),
        ],
    }
    if small:
        by_group |= {"logs": [], "hostile": [hostile_domains]}
    return [source for group in groups for source in by_group[group]]


def damage(whole: Path, count: int, seed: int) -> Iterator[Case]:
    """The counts of `benchmarks/torture/damage.py`."""
    command = [sys.executable, str(ROOT / "benchmarks" / "torture" / "damage.py"), "--store", str(whole / "edda-store")]
    options = ["--run", "killed", "--config", str(whole / "run.toml"), "--count", str(count), "--seed", str(seed)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    table = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or not table:
        yield "damage", "benchmarks/torture/damage.py", "crash", done.stdout[-1000:] + done.stderr[-1000:]
        return
    told = [line for line in done.stdout.splitlines() if re.match(r"\d+ (WRONG|crash)", line)]
    for outcome, number in zip(("refused", "refused", "harmless", "WRONG", "crash"), table.groups(), strict=True):
        for _ in range(int(number)):
            yield "damage", "a file", outcome, "\n".join(told) if outcome in ("WRONG", "crash") else ""


def tests(group: str, seed: int, *files: str) -> Iterator[Case]:
    """Tests of the project, with other examples for each seed; each that passes is `same`."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--hypothesis-seed={seed}", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for number, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout.strip().splitlines()[-1]):
        for _ in range(int(number)):
            yield group, files[0], "same" if name == "passed" else "WRONG", done.stdout[-2000:]


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", action="append", choices=GROUPS, help="these groups only")
    options = parser.parse_args()
    table, stop, started = defaultdict(Counter), threading.Event(), time.monotonic()

    def count(cases: Iterator[Case]) -> None:
        for group, case, outcome, said in cases:
            table[group][outcome] += 1
            if outcome in ("WRONG", "crash"):
                print(f"{outcome}: {group}: {case}: {said}", flush=True)
            if stop.is_set():
                return

    with tempfile.TemporaryDirectory(prefix="edda-torture-", ignore_cleanup_errors=True) as folder:
        os.environ["EDDA_CACHE"] = f"{folder}/cache"
        every = sources(Path(folder), SMALL if options.small else LONG, options.only or list(GROUPS), options.seed,
                        options.small)  # fmt: skip
        with ThreadPoolExecutor(max_workers=2) as lanes:
            try:
                list(lanes.map(count, every))
            except KeyboardInterrupt:  # the table of what was tried until then
                stop.set()
                lanes.shutdown(cancel_futures=True)
    total = sum(table.values(), Counter())
    print(f"\n{'':<26}" + "".join(f"{name:>10}" for name in OUTCOMES))
    for group, counts in [*sorted(table.items()), ("all", total)]:
        print(f"{group:<26}" + "".join(f"{counts[name]:>10}" for name in OUTCOMES))
    print(f"seed {options.seed}, {time.monotonic() - started:.0f} s")
    sys.exit(bool(total["WRONG"] + total["crash"]))


if __name__ == "__main__":
    main()
