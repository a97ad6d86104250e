"""Everything before training, from raw log to pairs: seconds and peak memory by stage, and how they grow.

    python benchmarks/prepare.py                                    # worlds of 0.1, 1 and 10 million interactions
    EDDA_DATA=… python benchmarks/prepare.py --datasets --plot FILE.png

Every stage runs as a command in its own process, as users run it, so its seconds include starting Python and its memory
is its own. Exponents are the slopes of least-squares lines through log CPU seconds over log interactions.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.store import Store
from pipeline.synthetic import make_world

STAGES = ("ingest", "graph", "neighbours", "walk", "align")
RUNS = Path(__file__).parents[1] / "flows" / "runs"


def main() -> None:
    """Measure and print."""
    options = parsed()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure_run("to compile kernels", *world(Path(folder), 0.01), Path(folder))
        runs = {f"{size:g} M": world(Path(folder), size) for size in options.worlds}
        names = ("amazon", "aliccp", "aliad") if options.datasets else ()
        runs |= {name: (RUNS / f"{name}.toml", None) for name in names}
        measured = [measure_run(name, *run, Path(folder)) for name, run in runs.items()]
    worlds = [row for row in measured if row["name"].endswith(" M")]
    growth = exponents(worlds) if len(worlds) > 1 else {}
    steepest = max(1.0, exponents(worlds[-2:])["total"]) if growth else 1.0
    if options.plot:
        plot(measured, worlds, options.plot)
    if options.json:
        print(json.dumps({"runs": measured, "exponents": growth, "load": os.getloadavg()[0]}))
        return
    print_tables(measured, growth)
    if growth:
        print_projection(worlds[-1], steepest)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=float, nargs="*", default=[0.1, 1, 10], help="millions of interactions")
    parser.add_argument("--datasets", action="store_true", help="also the released data sets in EDDA_DATA")
    parser.add_argument("--folder", help="where to put the temporary store")
    parser.add_argument("--plot", type=Path, help="draw seconds over interactions")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def world(folder: Path, millions: float) -> tuple[Path, WorldSettings]:
    """A run of a generated world: four domains, half of the interactions in the largest."""
    share, run = millions / 10, folder / f"world-{millions:g}.toml"
    asked = {
        "domains": 4,
        "users": round(213_000 * share),
        "items": round(133_000 * share),
        "interactions": round(5_333_000 * share),
        "topics": max(24, round(100 * share**0.5)),
    }
    keys = "\n".join(f"{name} = {value}" for name, value in asked.items())
    run.write_text(f'name = "world-{millions:g}"\n[world]\n{keys}\n')
    return run, WorldSettings(**asked)


def measure_run(name: str, run: Path, asked: WorldSettings | None, folder: Path) -> dict:
    """Measure one run, stage by stage; a world is generated before the clock starts."""
    store = folder / name
    if asked:
        make_world(Store(store), asked, {}, ComputeSettings())
    stages = {stage: edda(stage, run, store) for stage in STAGES}
    made = json.loads(next(store.glob("rejects/*/manifest.json")).read_text())
    print(f"{name}: {sum(cost['wall'] for cost in stages.values()):.1f} s", file=sys.stderr)
    return {"name": name, "interactions": made["statistics"]["raw_rows"], "stages": stages}


def edda(stage: str, run: Path, store: Path) -> dict[str, float]:
    """Run a stage's command; wall and CPU seconds, and peak resident memory in MiB."""
    command = [
        sys.executable,
        "-c",
        "from flows.cli.main import main; main()",
        stage,
        str(run),
        "--no-prefect",
        "--set",
        f"store={store}",
    ]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    return {
        "wall": round(time.monotonic() - started, 2),
        "cpu": round(usage.ru_utime + usage.ru_stime, 2),
        "mib": usage.ru_maxrss // 1024,
    }


def exponents(worlds: list[dict]) -> dict[str, float]:
    """Growth of CPU seconds with interactions, by stage and in total."""
    sizes = np.log([row["interactions"] for row in worlds])
    seconds = {stage: [row["stages"][stage]["cpu"] for row in worlds] for stage in STAGES}
    seconds["total"] = [total(row, "cpu") for row in worlds]
    return {stage: round(float(np.polyfit(sizes, np.log(cpu), 1)[0]), 2) for stage, cpu in seconds.items()}


def total(row: dict, what: str) -> float:
    """Seconds of all stages."""
    return sum(cost[what] for cost in row["stages"].values())


def print_tables(measured: list[dict], growth: dict[str, float]) -> None:
    """Wall and CPU seconds and MiB by stage."""
    print(f"{resource.getpagesize()}-byte pages, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")
    print(f"{'wall s / CPU s / MiB':22}" + "".join(f"{stage:>22}" for stage in STAGES) + f"{'total':>22}")
    for row in measured:
        costs = [*row["stages"].values()]
        costs.append({"wall": total(row, "wall"), "cpu": total(row, "cpu"), "mib": max(c["mib"] for c in costs)})
        cells = [f"{cost['wall']:.1f} / {cost['cpu']:.1f} / {cost['mib']:,}" for cost in costs]
        print(f"{row['name']:>8} {row['interactions']:>13,}" + "".join(f"{cell:>22}" for cell in cells))
    if growth:
        print(f"{'exponent of CPU s':22}" + "".join(f"{growth[stage]:>22}" for stage in (*STAGES, "total")))


def print_projection(largest: dict, exponent: float) -> None:
    """Extrapolate the cost of the largest world to many more interactions."""
    print(f"projected with exponent {exponent:.2f} (two largest, at least 1), workers of 8 cores kept 80 % busy:")
    for billions in (1, 10):
        hours = total(largest, "cpu") * (billions * 1e9 / largest["interactions"]) ** exponent / 3600
        print(
            f"{billions:>4} billion interactions: {hours:,.0f} CPU hours, {hours / (32 * 8 * 0.8):.1f} h on 32 workers"
        )


def plot(measured: list[dict], worlds: list[dict], path: Path) -> None:
    """Plot seconds over interactions on logarithmic axes: a line per stage, a cross per data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = [row["interactions"] for row in worlds]
    for stage in STAGES:
        axes.plot(sizes, [row["stages"][stage]["wall"] for row in worlds], "o-", label=stage)
    axes.plot(sizes, [total(row, "wall") for row in worlds], "ko-", linewidth=2, label="total")
    for row in measured[len(worlds) :]:
        axes.plot(row["interactions"], total(row, "wall"), "kx")
        axes.annotate(row["name"], (row["interactions"], total(row, "wall")), (5, 5), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="interactions in the raw log", ylabel="wall seconds, 2 cores")
    axes.set_title("From raw log to aligned pairs")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
