"""From raw log to pairs, and on request to recommendations: seconds, memory and bytes by stage, and how they grow.

    python benchmarks/prepare.py                                    # worlds of 0.1, 1 and 10 million interactions
    EDDA_DATA=… python benchmarks/prepare.py --datasets --plot FILE.png
    python benchmarks/prepare.py --worlds 10 100 --until export --store big     # overnight; again: continues

Every stage runs as a command in its own process, as users run it, so its seconds include starting Python and its memory
is its own. With `--store`, stores are kept and so are the costs of finished stages (costs.json); a stage that was
killed starts its clock again, though it continues from what it had. Exponents are the slopes of least-squares lines
through log CPU seconds over log interactions.
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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.store import Store
from pipeline.synthetic import make_world

STAGES = ("ingest", "graph", "neighbours", "walk", "align", "train", "evaluate", "export")
RUNS = Path(__file__).parents[1] / "flows" / "runs"


def main() -> None:
    """Measure and print."""
    options = parsed()
    stages = STAGES[: STAGES.index(options.until) + 1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.store or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure_run("to compile kernels", *world(Path(temporary), 0.01), Path(temporary), stages)
        runs = {f"{size:g} M": world(folder, size) for size in options.worlds}
        names = ("amazon", "aliccp", "aliad") if options.datasets else ()
        runs |= {name: (RUNS / f"{name}.toml", None) for name in names}
        measured = [measure_run(name, *run, folder, stages) for name, run in runs.items()]
    worlds = [row for row in measured if row["name"].endswith(" M")]
    growth = exponents(worlds, stages) if len(worlds) > 1 else {}
    steepest = max(1.0, exponents(worlds[-2:], stages)["total"]) if growth else 1.0
    if options.plot:
        plot(measured, worlds, stages, options.plot)
    if options.json:
        print(json.dumps({"runs": measured, "exponents": growth, "load": os.getloadavg()[0]}))
        return
    print_tables(measured, stages, growth)
    if growth:
        print_projection(worlds[-1], steepest)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=float, nargs="*", default=[0.1, 1, 10], help="millions of interactions")
    parser.add_argument("--datasets", action="store_true", help="also the released data sets in EDDA_DATA")
    parser.add_argument("--until", choices=STAGES[4:], default="align", help="the last stage; train: 3 epochs")
    parser.add_argument("--store", type=Path, help="folder that keeps stores and costs; a temporary one by default")
    parser.add_argument("--plot", type=Path, help="draw seconds over interactions")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def world(folder: Path, millions: float) -> tuple[Path, WorldSettings]:
    """A run of a generated world: eight domains, half of the interactions in the largest, a node for ten of them."""
    run, largest = folder / f"world-{millions:g}.toml", millions * 1e6 / sum(0.5**n for n in range(8))
    asked = {
        "domains": 8,
        "users": round(0.062 * largest),
        "items": round(0.038 * largest),
        "interactions": round(largest),
        "topics": max(24, round(100 * (millions / 10) ** 0.5)),
    }
    keys = "\n".join(f"{name} = {value}" for name, value in asked.items())
    training = "epochs = 3\nwidth = 64\nintra_width = 16"  # of 10 M nodes with 128 and 32 columns, tables are 15 GiB
    ranking = "[evaluate]\nusers = 20_000\n[export]\ntop = 10\n"
    run.write_text(f'name = "world-{millions:g}"\n[world]\n{keys}\n[train]\n{training}\n{ranking}')
    return run, WorldSettings(**asked)


def measure_run(name: str, run: Path, asked: WorldSettings | None, folder: Path, stages: Sequence[str]) -> dict:
    """Measure one run, stage by stage; a world is generated before the clock starts."""
    store, costs_file = folder / name, folder / name / "costs.json"
    costs = json.loads(costs_file.read_text()) if costs_file.exists() else {}
    if asked:
        make_world(Store(store), asked, {}, ComputeSettings())
    for stage in stages:
        if stage not in costs:
            before = disk_bytes(store)
            costs[stage] = edda(stage, run, store) | {"bytes": disk_bytes(store) - before}
            costs_file.write_text(json.dumps(costs))
            print(f"{name}: {stage} {costs[stage]}", file=sys.stderr, flush=True)
    made = json.loads(next(store.glob("rejects/*/manifest.json")).read_text())
    return {"name": name, "interactions": made["statistics"]["raw_rows"], "stages": costs}


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


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


def exponents(worlds: list[dict], stages: Sequence[str]) -> dict[str, float]:
    """Growth of CPU seconds with interactions, by stage and in total."""
    sizes = np.log([row["interactions"] for row in worlds])
    seconds = {stage: [row["stages"][stage]["cpu"] for row in worlds] for stage in stages}
    seconds["total"] = [total(row, "cpu") for row in worlds]
    return {stage: round(float(np.polyfit(sizes, np.log(cpu), 1)[0]), 2) for stage, cpu in seconds.items()}


def total(row: dict, what: str) -> float:
    """Seconds of all stages."""
    return sum(cost[what] for cost in row["stages"].values())


def print_tables(measured: list[dict], stages: Sequence[str], growth: dict[str, float]) -> None:
    """Wall and CPU seconds, MiB of memory and MB on disk by stage."""
    print(f"{resource.getpagesize()}-byte pages, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")
    print(f"{'s / CPU s / MiB / MB':22}" + "".join(f"{stage:>24}" for stage in (*stages, "total")))
    for row in measured:
        costs = [row["stages"][stage] for stage in stages]
        sums = {what: sum(cost[what] for cost in costs) for what in ("wall", "cpu", "bytes")}
        costs.append({**sums, "mib": max(cost["mib"] for cost in costs)})
        cells = [f"{c['wall']:.1f} / {c['cpu']:.1f} / {c['mib']:,} / {c['bytes'] / 1e6:,.0f}" for c in costs]
        print(f"{row['name']:>8} {row['interactions']:>13,}" + "".join(f"{cell:>24}" for cell in cells))
    if growth:
        print(f"{'exponent of CPU s':22}" + "".join(f"{growth[stage]:>24}" for stage in (*stages, "total")))


def print_projection(largest: dict, exponent: float) -> None:
    """Extrapolate the cost of the largest world to many more interactions."""
    print(f"projected with exponent {exponent:.2f} (two largest, at least 1), workers of 8 cores kept 80 % busy:")
    for billions in (1, 10):
        hours = total(largest, "cpu") * (billions * 1e9 / largest["interactions"]) ** exponent / 3600
        print(
            f"{billions:>4} billion interactions: {hours:,.0f} CPU hours, {hours / (32 * 8 * 0.8):.1f} h on 32 workers"
        )


def plot(measured: list[dict], worlds: list[dict], stages: Sequence[str], path: Path) -> None:
    """Plot seconds over interactions on logarithmic axes: a line per stage, a cross per data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = [row["interactions"] for row in worlds]
    for stage in stages:
        axes.plot(sizes, [row["stages"][stage]["wall"] for row in worlds], "o-", label=stage)
    axes.plot(sizes, [total(row, "wall") for row in worlds], "ko-", linewidth=2, label="total")
    for row in measured[len(worlds) :]:
        axes.plot(row["interactions"], total(row, "wall"), "kx")
        axes.annotate(row["name"], (row["interactions"], total(row, "wall")), (5, 5), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="interactions in the raw log", ylabel="wall seconds, 2 cores")
    axes.set_title("From raw log on")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
